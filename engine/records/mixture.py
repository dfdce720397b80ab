"""What the mixtures of a study have shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Tried:
    """A mixture that ran. weights: of each part, 0 … 1. change, expected: percent, the latter from the others alone."""

    pool: str
    weights: list[float]
    change: float
    expected: float


@dataclass(frozen=True)
class Surface:
    """What a regression on mixtures expects.

    names: of what is weighted. base: proportional weights. rank: Spearman's correlation, out of fold. along: of each
    part (weight, change in percent), the others in proportion. across: the two parts that matter most. steps: weights
    of both on the grid. grid: of each weight of the second, the change at each of the first; None beyond
    1 together, or past the cap on repeats.
    """

    names: list[str]
    base: list[float]
    rank: float | None
    tried: list[Tried]
    along: list[list[tuple[float, float]]]
    across: tuple[int, int]
    steps: list[float]
    grid: list[list[float | None]]

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)
