"""What training rows and evaluation rows have in common."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Pair:
    """A training row, the evaluation row that it is like, how alike they are (0 … 1), and the beginning of its text."""

    row: int
    evaluation: int
    alike: float
    text: str = ""


@dataclass(frozen=True)
class Overlap:
    """Near-duplicates of evaluation rows among the training rows.

    rows: training rows that have one, of so many `compared`, of `training` in all. held: evaluation rows that stand
    among them, of `evaluation`. by: what was compared, as `images`. left_out: they are not trained on. first: some.
    """

    rows: int
    compared: int
    training: int
    held: int
    evaluation: int
    by: str
    left_out: bool = False
    first: tuple[Pair, ...] = ()

    @property
    def text(self) -> str:
        """In a sentence."""
        of = f"{self.training:,} training rows"
        if self.compared < self.training:
            of = f"a sample of {self.compared:,} of {of}"
        if not self.rows:
            return f"None of {self.evaluation:,} evaluation rows has a near-duplicate among {of} (by {self.by})."
        stand = (
            f"{self.held:,} of {self.evaluation:,} evaluation rows have near-duplicates among {of}: {self.rows:,} rows "
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

    def to_json(self) -> dict[str, Any]:
        """As it is stored and printed."""
        return asdict(self)
