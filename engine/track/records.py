"""What a tracker gets: a trial as a run, and the study as one run above them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Scalar = str | int | float | bool
STATES: dict[str, Literal["running", "finished", "failed", "killed"]] = {
    "WAITING": "running", "RUNNING": "running", "COMPLETE": "finished", "FAIL": "failed", "CANCELLED": "killed",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A value of a curve. step: optimiser steps done."""

    name: str
    step: int
    value: float


@dataclass(frozen=True)
class TrialRun:
    """A trial as far as it is.

    study: id of the study's own run. points: of its curves, by step, without what is no number. scores: what it came
    to, once it has ended; they stand at the last step. began, ended: seconds since 1970. mark: changes when it has
    ended anew.
    """

    id: str
    study: str
    name: str
    group: str
    params: Mapping[str, Scalar]
    points: tuple[Point, ...]
    scores: Mapping[str, float]
    state: Literal["running", "finished", "failed", "killed"]
    note: str
    began: float
    ended: float | None
    mark: str

    @property
    def last(self) -> int:
        """The last step of its curves."""
        return max((p.step for p in self.points), default=0)

    @property
    def whole(self) -> tuple[Point, ...]:
        """Curves and scores."""
        return (*self.points, *(Point(name, self.last, value) for name, value in self.scores.items()))

    def at(self, step: int) -> float:
        """When a step was done, as if all took as long. Seconds since 1970."""
        if self.ended is None or not self.last:
            return self.began
        return self.began + (self.ended - self.began) * min(1.0, step / self.last)


@dataclass(frozen=True)
class StudyRun:
    """The study in one setting.

    text: answer and leaderboard as Markdown. table: the leaderboard, one mapping a pool, all with the same keys.
    numbers: of how far it is and what leads. step: finished trials. ended: no engine runs.
    """

    id: str
    name: str
    params: Mapping[str, Scalar]
    text: str
    table: tuple[Mapping[str, Any], ...]
    numbers: Mapping[str, float]
    step: int
    began: float
    ended: bool
    mark: str
