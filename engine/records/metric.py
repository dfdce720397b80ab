"""A metric with its direction and scale."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A score of a reference model.

    higher_is_better: its direction. low, high: its scale, the values it can take. main: counts in the
    ranking unless the study names others.
    """

    name: str
    higher_is_better: bool
    low: float
    high: float
    main: bool = True
