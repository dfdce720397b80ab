"""What training rows have in common with what models are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

NAMED = 3  # evaluations of which a sentence each is said


@dataclass(frozen=True)
class Pair:
    """A training row, the evaluation row that it is like, how alike they are (0 … 1), and the beginning of its text.

    evaluation: or the number of an item of a benchmark, which stands at `place`.
    """

    row: int
    evaluation: int
    alike: float
    text: str = ""
    place: str = ""


@dataclass(frozen=True)
class Overlap:
    """Near-duplicates of evaluation rows among the training rows.

    rows: training rows that have one, of so many `compared`, of `training` in all. held: evaluation rows that stand
    among them, of `evaluation`. by: what was compared, as `images`. left_out: they are not trained on. first: some.
    name, unit: of a benchmark and what it counts; without a name these are the rows of evaluation.path.
    """

    rows: int
    compared: int
    training: int
    held: int
    evaluation: int
    by: str
    left_out: bool = False
    first: tuple[Pair, ...] = ()
    name: str = ""
    unit: str = "evaluation rows"

    @property
    def text(self) -> str:
        """In a sentence."""
        of, items = f"{self.training:,} training rows", self.unit + (f" of {self.name}" if self.name else "")
        if self.compared < self.training:
            of = f"a sample of {self.compared:,} of {of}"
        if not self.rows:
            return f"None of {self.evaluation:,} {items} has a near-duplicate among {of} (by {self.by})."
        stand = (
            f"{self.held:,} of {self.evaluation:,} {items} have near-duplicates among {of}: {self.rows:,} rows "
            f"(by {self.by})"
        )
        if self.left_out:
            return f"{stand}; these are not trained on."
        return (
            f"{stand}. What is trained on them is judged by what it has seen; evaluation.overlap: drop leaves them out "
            "of training."
        )

    @property
    def warns(self) -> bool:
        """True where they are trained on."""
        return bool(self.rows) and not self.left_out

    def like(self, pair: Pair) -> str:
        """What a row is like, in words."""
        if not self.name:
            return f"evaluation {pair.evaluation}"
        return f"{self.name}: {pair.place}" if pair.place else f"{self.name} {pair.evaluation}"

    def to_json(self) -> dict[str, Any]:
        """As it is stored and printed."""
        return asdict(self)


def warnings(overlaps: Sequence[Overlap]) -> tuple[str, ...]:
    """A sentence for each evaluation whose rows or items are trained on, the worst first; of many the others' names."""
    worst = sorted((o for o in overlaps if o.warns), key=lambda o: -o.held / max(1, o.evaluation))
    others = ", ".join(o.name or "evaluation.path" for o in worst[NAMED:])
    more = (f"Near-duplicates of {others} are among the training rows, too: djsb check.",) if others else ()
    return (*(o.text for o in worst[:NAMED]), *more)
