"""The accounting of an input: what was expected of it, what was read, and what was left out for which reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.base.errors import DataError


@dataclass(frozen=True)
class Accounting:
    """One input of a study, as `djsb check` prints it.

    input: its name, as `training rows` or `benchmark mme`. expected: what it holds. used: what of that is used.
    left_out: (reason, how many) of the rest. unit: what is counted; empty where only the note counts, as for a metric.
    note: how it is read.
    """

    input: str
    expected: int
    used: int
    left_out: tuple[tuple[str, int], ...] = ()
    note: str = ""
    unit: str = "rows"

    @property
    def missing(self) -> int:
        """What is neither used nor left out for a reason; less than 0 where more was read than is there."""
        return self.expected - self.used - sum(n for _, n in self.left_out)

    @property
    def line(self) -> str:
        """As people read it."""
        if not self.unit:
            return f"{self.input}: {self.note}"
        left = ", ".join(f"{n} {reason}" for reason, n in self.left_out)
        parts = [f"{self.used} of {self.expected} {self.unit}", f"left out: {left}" if left else "", self.note]
        return f"{self.input}: " + "; ".join(part for part in parts if part)

    @property
    def problem(self) -> str | None:
        """Why it cannot be used, in one line, or None where all of it is accounted for."""
        if not self.missing:
            return None
        return f"{self.line}; {self.missing} {self.unit} are not accounted for, so the input is not read as it is meant"

    def noted(self, note: str) -> Accounting:
        """The same with a note."""
        return replace(self, note=note)

    def to_json(self) -> dict[str, Any]:
        """As `djsb check --json` prints it, and as caches keep it."""
        return asdict(self)


def accounting_from_json(content: dict[str, Any]) -> Accounting:
    """The inverse of `Accounting.to_json`."""
    return Accounting(**{**content, "left_out": tuple((reason, n) for reason, n in content["left_out"])})


def refuse_gaps(inputs: Iterable[Accounting]) -> None:
    """Raises: DataError for the first input that is not accounted for."""
    for problem in filter(None, (i.problem for i in inputs)):
        raise DataError(problem)
