"""How far a small pool may mislead: Hoeffding's inequality, as Appendix C.1 of the paper uses it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

CHANCE = 0.05  # that a mean over a pool's rows lies further off than its margin


def exceeds(error: float, spread: float, draws: int = 1) -> float:
    """The most that the chance can be that a mean of `draws` values lies `error` or more above its expectation.

    P[Δ_pool − E[Δ_full] ≥ ε] ≤ P[Δ_pool − E[Δ_pool] ≥ ε] ≤ exp(−2·n·ε² / (b − a)²), for values in [a, b]: Hoeffding
    (1963), Theorem 2; Appendix C.1 of the paper has n = 1, one pool trained once. The first step holds where the full
    data show no less of an effect than the pool, as the paper assumes. The values are independent, or drawn without
    replacement (Hoeffding, Section 6). spread: b − a.
    """
    return math.exp(-2 * draws * (error / spread) ** 2)


def margin(chance: float, spread: float, draws: int) -> float:
    """How far such a mean lies from its expectation, to either side, but for that chance.

    ε = (b − a) · √(ln(2 / chance) / 2n): `exceeds` for both sides, solved for the error.
    """
    return spread * math.sqrt(math.log(2 / chance) / (2 * draws))


@dataclass(frozen=True)
class PoolBound:
    """What the pools' size and the seeds of the confirmation bound.

    rows: of a pool. margin: of the mean over them of anything between 0 and 1 from that of all rows, but for `chance`.
    seeds: of a confirmed recipe. misled: the most that the chance can be that its mean change lies above what is
    expected by half of the range in which changes lie, or more.
    """

    rows: int
    chance: float
    margin: float
    seeds: int
    misled: float

    @classmethod
    def of(cls, rows: int, seeds: int) -> PoolBound:
        """That of pools of so many rows, and of so many seeds."""
        return cls(rows, CHANCE, margin(CHANCE, 1, rows), seeds, exceeds(0.5, 1, seeds))

    def to_json(self) -> dict[str, Any]:
        """As `djsb plan --json` prints it."""
        return asdict(self)
