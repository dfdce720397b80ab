"""A study's design: what of it was fitted to its budget, what that takes, and what it buys."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class StudyDesign:
    """What was chosen for a budget, before anything was explored.

    limit: device-seconds that it is for. fields: field of study.yaml → the value that was chosen. explicit: fields that
    could have been chosen, and that study.yaml sets itself. pools, size: that are probed, and their rows. seconds:
    stage → device-seconds. confirming: whole trainings of the confirmation, and of the least that could be one.
    planned: fresh seeds, as they were first chosen. effect: by how many standard deviations of a seed a recipe must be
    better to be named with 80 %; None where none is. least: device-seconds that can end in a confirmed answer. step:
    (device-seconds, what they would buy) of the next larger budget that buys more; None where none does.
    unreserved: the budget is below the least, and a person wants the search anyway. fitted: candidates and fresh seeds
    as what was left paid for when the confirmation began; None before.
    """

    limit: float
    fields: dict[str, Any]
    explicit: tuple[str, ...]
    pools: int
    size: int
    seconds: dict[str, float]
    confirming: tuple[int, int]
    planned: int
    effect: float | None
    least: float
    step: tuple[float, str] | None = None
    unreserved: bool = False
    fitted: tuple[int, int] | None = None

    @property
    def total(self) -> float:
        """Device-seconds of all stages."""
        return sum(self.seconds.values())

    def to_json(self) -> dict[str, Any]:
        """As it is stored and printed."""
        return asdict(self)
