"""Claims: what may be said of many pools that share one control, and at which looks.

The scores of pools correlate since all hold the control's noise. How far the largest of them goes by chance follows
from that correlation (Dunnett 1955); pools are tested from the largest score down (step-down max-t).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.evidence.variance import Floats

RESERVE = 1 / 8  # of the error, for seeds beyond the plan
MANY = 100  # pools from which on their loads are grouped
_GRID = np.linspace(-8, 8, 129)  # the control's noise in its standard deviations
_WEIGHTS = np.exp(-(_GRID**2) / 2) / np.exp(-(_GRID**2) / 2).sum()


@dataclass(frozen=True)
class Looks:
    """When results are read: at these numbers of seeds, rising, and beyond the last at twice, four times … as many.

    At n of N seeds the bound is c · √(N/n) times that of one look (O'Brien and Fleming 1979), with c such that the
    looks together keep the error (Bonferroni). The first further look takes half of the reserve, the next a quarter.
    further: the looks beyond the plan where they are fixed, too.
    """

    planned: tuple[int, ...]
    further: tuple[int, ...] | None = None

    def last(self, seeds: Sequence[int], settled: float) -> int | None:
        """Seeds below this are read, of a pool with these; None before its first look.

        settled: trials of seeds from here on wait or run. A seed that is lost does not put off a planned look.
        """
        top, found, fixed = max(seeds, default=-1), None, (*self.planned, *(self.further or ()))
        for n in self._every(top + 1):
            if n <= settled and (top >= n - 1 or (n in fixed and top >= (found or 0))):
                found = n
        return found

    def share(self, look: int, error: float) -> float:
        """The part of an error that a look may spend, 0 … 1."""
        if look in self.planned:
            return _shares(self.planned, error)[self.planned.index(look)]
        place = [n for n in self._every(look) if n > self.planned[-1]].index(look)
        return float(RESERVE * 0.5 ** (place + 1))

    def _every(self, up_to: int) -> Iterator[int]:
        yield from self.planned
        if self.further is not None:
            yield from self.further
            return
        n = 2 * self.planned[-1]
        while n <= up_to:
            yield n
            n *= 2


def halvings(seeds: int) -> Looks:
    """Looks at all of the planned seeds, at half of them, a quarter …, down to two."""
    planned = [max(2, seeds)]
    while planned[0] > 2:
        planned.insert(0, math.ceil(planned[0] / 2))
    return Looks(tuple(planned))


@lru_cache
def _shares(planned: tuple[int, ...], error: float) -> tuple[float, ...]:
    from scipy import optimize, special

    steps = np.sqrt(planned[-1] / np.array(planned))
    kept = error * (1 - RESERVE)
    c = optimize.brentq(lambda c: special.ndtr(-c * steps).sum() - kept, 0, 40) if len(steps) > 1 else None
    spent = special.ndtr(-c * steps) if c else np.array([kept])
    return tuple((spent / error).tolist())


def normal_scores(t: Floats, df: Floats) -> Floats:
    """Standard normal scores as rare as these of Student's t; -inf where there is none."""
    from scipy import special

    with np.errstate(invalid="ignore", divide="ignore"):
        # by the smaller tail, so that large scores keep their digits
        z = -special.ndtri(special.stdtr(df, -np.abs(t)))
    z = np.where(np.isinf(t), 37, np.minimum(z, 37))  # without noise, whatever the degrees of freedom
    return np.where(np.isnan(z), -np.inf, np.sign(t) * z)


def _inside(low: float, high: float, loads: Floats, families: NDArray[np.int64], times: Floats) -> float:
    """log P(no score of any family lies outside). times: how many pools each stands for."""
    from scipy import special

    rest, total = np.sqrt(1 - loads**2)[:, None], 0.0
    inside = special.ndtr((high - loads[:, None] * _GRID) / rest)
    if math.isfinite(low):
        inside -= special.ndtr((low - loads[:, None] * _GRID) / rest)
    logs = times[:, None] * np.log(np.maximum(inside, 1e-300))
    for family in np.unique(families):
        total += math.log(float(_WEIGHTS @ np.exp(logs[families == family].sum(0))) + 1e-300)
    return total


def _grouped(loads: Floats, families: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """(loads and families of groups, the group of each pool). Of many pools one load is as another to two decimals."""
    if len(loads) <= MANY:
        return loads, families, np.arange(len(loads))
    pairs = np.stack([families, np.minimum(loads.round(2), 0.99)])
    alike, places = np.unique(pairs, axis=1, return_inverse=True)
    return alike[1], alike[0].astype(np.int64), places.ravel()


def adjusted(z: Floats, loads: Floats, families: NDArray[np.int64], copies: float = 1.0) -> Floats:
    """P of the step-down test that each pool is better than its control, corrected for all; about 1 from 0.5 on.

    z: scores, standard normal where nothing differs. loads: what of each is the control's noise, √ρ. families: pools
    of one number share a control. copies: how many pools each stands for.
    """
    found, highest = np.ones(len(z)), 0.0
    of_group, family_of, group = _grouped(loads, families)
    left = copies * np.bincount(group, minlength=len(of_group)).astype(np.float64)
    for at in np.argsort(-z, kind="stable"):
        if highest > 0.5 or z[at] == -np.inf:
            break
        highest = max(highest, -math.expm1(_inside(-math.inf, float(z[at]), of_group, family_of, left)))
        found[at] = highest
        left[group[at]] -= copies
    return found


def reach(error: float, loads: Floats, families: NDArray[np.int64], copies: float = 1.0, sides: int = 2) -> float:
    """How far from 0 the scores of all pools stay together, on both sides or above only, but for this error."""
    from scipy import optimize, special

    most = -float(special.ndtri(error / (sides * max(1.0, copies * len(loads)))))
    least = -float(special.ndtri(error / sides))
    goal = math.log1p(-error)
    of_group, family_of, group = _grouped(loads, families)
    times = copies * np.bincount(group, minlength=len(of_group)).astype(np.float64)

    def short(c: float) -> float:
        return _inside(-c if sides == 2 else -math.inf, c, of_group, family_of, times) - goal

    return most if short(most) <= 0 else least if short(least) >= 0 else float(optimize.brentq(short, least, most))


def discoveries(p: Sequence[float | None]) -> list[float | None]:
    """q of each p: the false discovery rate among all that are as small (Benjamini and Hochberg 1995)."""
    known = np.array([1.0 if x is None else x for x in p])
    order = np.argsort(known)[::-1]
    q = np.empty(len(known))
    q[order] = np.minimum.accumulate(known[order] * len(known) / np.arange(len(known), 0, -1))
    return [None if x is None else min(1.0, float(v)) for x, v in zip(p, q, strict=True)]


def any_time(z: Floats, seeds: NDArray[np.int64], planned: int, family: float) -> Floats:
    """P for whoever reads at any time, corrected for all: 1/e of a normal mixture (Robbins 1970), and Bonferroni.

    planned: seeds at which it should be sharpest.
    """
    rho = planned / 12
    with np.errstate(over="ignore"):
        e = np.sqrt(rho / (seeds + rho)) * np.exp(z**2 / 2 * seeds / (seeds + rho))
    return np.where(np.isfinite(z) & (z > 0), np.minimum(1, family / e), 1.0)


def any_time_reach(error: float, seeds: NDArray[np.int64], planned: int, family: float) -> Floats:
    """How far from 0 a pool's score stays at all times, but for its part of the error."""
    rho = planned / 12
    return np.sqrt(2 * (1 + rho / seeds) * (math.log(family / error) + np.log1p(seeds / rho) / 2))
