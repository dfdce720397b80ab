"""Bounds by their place among a statistic's values: percentiles (`p90`) and k-sigma (`mean+1.5sd`).

A study cuts its buckets by them (`pools.bounds`), and a proposal may name the bounds of an interval so. Where one lies
is computed from the good rows once, and is a plain number from then on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

PATTERN = r"^(p(100|[0-9]{1,2})(\.[0-9]{1,3})?|mean([+-][0-9](\.[0-9]{1,3})?sd)?)$"
FORMS = "p0 … p100 or mean, mean+1sd, mean-1.5sd …"


@dataclass(frozen=True, order=True)
class Place:
    """sigma: `at` counts standard deviations from the mean; otherwise percent of the rows, 0 … 100."""

    sigma: bool
    at: float

    def share(self) -> float:
        """Share of the rows below it, 0 … 1; of a normal distribution where it counts sigmas."""
        return (1 + math.erf(self.at / math.sqrt(2))) / 2 if self.sigma else self.at / 100


def parse(text: str) -> Place:
    """A place as it is written. Raises: ValueError that says how to write one."""
    if not re.fullmatch(PATTERN, text) or (text.startswith("p") and float(text[1:]) > 100):
        raise ValueError(f"{text[:40]!r} is no place among the values; write {FORMS}")
    if text.startswith("p"):
        return Place(False, float(text[1:]))
    return Place(True, float(text[4:-2] or 0))


def parse_all(texts: Sequence[str]) -> tuple[Place, ...]:
    """Places that rise, all percentiles or all k-sigma. Raises: ValueError."""
    found = tuple(parse(t) for t in texts)
    if len({p.sigma for p in found}) > 1 or any(a.at >= b.at for a, b in pairwise(found)):
        raise ValueError("bounds must rise, and be all percentiles or all mean ± k sd")
    if any(not p.sigma and p.at in (0, 100) for p in found):
        raise ValueError("p0 and p100 bound nothing")
    return found


def shares(places: Sequence[Place], buckets: int) -> list[float]:
    """Share of the rows that each bucket is expected to keep; equal ones without places."""
    if not places:
        return [1 / buckets] * buckets
    edges = [0.0, *(p.share() for p in places), 1.0]
    return [b - a for a, b in pairwise(edges)]
