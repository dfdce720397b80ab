"""What the leaderboard and the stages say of pools."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from engine.base.ids import checked_id

NEAR_ZERO = "the control's mean is within two standard errors of 0"  # so percent of it mean little


def bound_text(verdict: str, bound: float) -> str:
    """`at least +1.2 %`, of a change by which a pool helps."""
    if f"{bound:.1f}" in ("0.0", "-0.0"):
        return "above 0" if verdict == "helps" else "below 0"
    return f"at {'least' if verdict == 'helps' else 'most'} {bound:+.1f} %"


@dataclass(frozen=True)
class Change:
    """What a pool did against its control, in percent, with its confidence interval; None where nothing is known.

    bound: of one that helps or hurts, what its true change is at least, or at most, by the test that says so.
    """

    change: float | None
    ci_low: float | None
    ci_high: float | None
    seeds: int
    verdict: str
    bound: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is stored and printed."""
        return asdict(self)


def in_percent(change: float | None, low: float | None, high: float | None) -> str:
    """`+12.3 % [+4.0, +20.6]`."""
    if change is None:
        return "no result"
    return f"{change:+.1f} %" + (" (no interval)" if low is None else f" [{low:+.1f}, {high:+.1f}]")


@dataclass(frozen=True)
class Entry:
    """A line of the leaderboard.

    pool: its id. size: rows. share: part of a whole training that its trials are. change, std, ci_low, ci_high:
    percent of the control. metrics: metric → change in percent. p_best: probability of being the best.
    dropped: why the race has dropped it. skipped: metrics that were left out, and why.
    p: chance of so large a change of any pool where none differs, in this direction; of the last look. q: false
    discovery rate among all pools as clear as this one. shrunk: the change that is expected on fresh seeds, percent.
    values: metric → (the pool's mean, the control's), as measured. bound: of a pool that helps or hurts, what its true
    change is at least, or at most, by the test that says so, percent.
    """

    pool: str
    op: str | None
    statistic: str | None
    bucket: str | None
    label: str
    kind: str
    size: int
    share: float
    change: float | None
    std: float | None
    ci_low: float | None
    ci_high: float | None
    seeds: int
    metrics: dict[str, float]
    verdict: str
    p_best: float | None
    dropped: str | None
    skipped: list[str]
    p: float | None = field(default=None, kw_only=True)
    q: float | None = field(default=None, kw_only=True)
    shrunk: float | None = field(default=None, kw_only=True)
    values: dict[str, tuple[float, float]] = field(default_factory=dict, kw_only=True)
    bound: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        checked_id(self.pool, "a pool")

    def to_json(self) -> dict[str, Any]:
        """As `djsb rank --json` prints it."""
        return asdict(self)


@dataclass(frozen=True)
class ScaleArm(Entry):
    """An arm of the stage `scale`: repetition, or lower layers. samples: trained in all."""

    samples: int
    repetition: int


@dataclass(frozen=True)
class Guarded:
    """What a guard says of a recipe: its metric's change on fresh seeds, percent, against the lowest that may be.

    says: vetoes: below; holds: the interval, too, is not; unsure: the interval reaches below; unknown: not measured.
    """

    metric: str
    worst: float
    says: Literal["vetoes", "holds", "unsure", "unknown"]
    change: float | None
    ci_low: float | None
    ci_high: float | None

    @property
    def vetoes(self) -> bool:
        """True where there is no recipe for it."""
        return self.says in ("vetoes", "unknown")


@dataclass(frozen=True)
class Recipe(ScaleArm):
    """The confirmed recipe. kept: rows that its slices keep, of `rows`. guards: what they say of it."""

    kept: int
    rows: int
    guards: tuple[Guarded, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class CycleRecipe(Recipe):
    """A confirmed recipe with the number of its cycle."""

    cycle: int
