"""Cycles: how one begins, and what it came to (Appendix E.10, Table 14)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from engine.base.ids import checked_id
from engine.records.leaderboard import Change


@dataclass(frozen=True)
class CycleStart:
    """A cycle as it began. The first has no parent, and starts from no trial's checkpoint.

    root: setup of the first cycle. init: the trial whose checkpoint it starts from. proposal: what asked for it.
    spent: device-seconds charged before.
    """

    setup: str
    root: str
    cycle: int = 1
    parent: str | None = None
    init: str | None = None
    proposal: str | None = None
    spent: float = 0.0


@dataclass(frozen=True)
class Place:
    """A statistic with its best bucket in the probe, and the change of that in percent."""

    statistic: str
    label: str
    change: float


@dataclass(frozen=True)
class Moves:
    """How the ranking changed from one cycle to the next (Table 14).

    both: in the top of both, in the later order. new, gone: in the later or in the earlier top only. up, down: of
    those in the later top whose earlier place is known, with the places that they rose or fell.
    """

    top: int
    both: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]
    up: tuple[tuple[str, int], ...]
    down: tuple[tuple[str, int], ...]

    @property
    def mean_up(self) -> float | None:
        """Places by which those that rose did so on average; None if none did."""
        return sum(n for _, n in self.up) / len(self.up) if self.up else None

    @property
    def mean_down(self) -> float | None:
        """The same of those that fell."""
        return sum(n for _, n in self.down) / len(self.down) if self.down else None

    def to_json(self) -> dict[str, Any]:
        """As it is stored and printed."""
        return {**asdict(self), "mean_up": self.mean_up, "mean_down": self.mean_down}


@dataclass(frozen=True)
class CycleEnd:
    """What a cycle came to.

    checkpoint: the best trial of its recipe. pinned: the same where a further cycle may start from it. standing:
    statistics in the order of their best buckets. scores: metric → mean of the recipe over its fresh seeds.
    against_first: the recipe's checkpoints against those of the first cycle's recipe. None: not known before its end.
    """

    checkpoint: str | None
    pinned: str | None
    standing: tuple[Place, ...] | None
    moves: Moves | None
    scores: dict[str, float] | None
    against_first: Change | None

    def __post_init__(self) -> None:
        for trial in filter(None, (self.checkpoint, self.pinned)):
            checked_id(trial, "the result cycle")

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {**asdict(self), "moves": self.moves and self.moves.to_json()}
