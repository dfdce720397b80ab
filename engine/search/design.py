"""What a search of given sizes costs, and how small an effect it can name: race, screening, confirmation.

Both are models and read nothing of a study. `make bench-search` checks them against the loop's own decisions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.evidence.claims import adjusted
from engine.evidence.noise import SHORTER
from engine.evidence.variance import Floats
from engine.search.control import control_seeds
from engine.search.race import bound
from engine.settings.study import Study

BETTER = 5  # pools that are better than the others, of 60 or more; one in twelve of fewer
WORLDS = 500  # that a chance is counted in
LINKED = 0.8  # a run at a share s correlates by (s/t)^0.8 with its own result at a share t, on a recorded world
CAUTION = 1.15  # claims are that much harder to make than by known, equal, normal noise; as measured there, too
GOAL = 0.8


@dataclass(frozen=True)
class Design:
    """Sizes of a search.

    pools: that race. rungs, keeps: as `SearchSection.course` has them. top: pools that stay in the race at least.
    combinations: recipes that race after the pools. screen, screen_seeds: recipes of the screening and their seeds.
    candidates, seeds: of the confirmation. all_data: with the arm of all rows. noise: the control's standard deviation
    over the pools'.
    """

    pools: int
    rungs: tuple[tuple[float, int], ...]
    keeps: tuple[float, ...]
    top: int = 5
    combinations: int = 0
    screen: int = 0
    screen_seeds: int = 4
    candidates: int = 2
    seeds: int = 5
    all_data: bool = True
    noise: float = 1.0

    @classmethod
    def of(cls, study: Study, pools: int, combinations: int = 0, noise: float = 1.0) -> Design:
        """The sizes that a study asks for."""
        search, confirm = study.search, study.confirm
        rungs, keeps = search.course
        return cls(
            pools, rungs, keeps, search.top, combinations, search.screen.top, search.screen.seeds,
            confirm.candidates, confirm.seeds, confirm.all_data, noise,
        )  # fmt: skip

    @property
    def control(self) -> int:
        """Fresh seeds of the control."""
        return control_seeds(self.seeds, self.candidates, self.noise)

    @property
    def least(self) -> int:
        """Pools that the race must leave."""
        return max(self.top, self.screen)


@dataclass(frozen=True)
class Price:
    """Full trainings that each part takes at most."""

    race: float
    combine: float
    screen: float
    confirm: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.race + self.combine + self.screen + self.confirm


def price(design: Design) -> Price:
    """What a design costs in whole trainings. A longer training is taken to go on from a shorter one."""
    _, race = bound(design.rungs, design.keeps, design.pools, design.least)
    least = max(design.candidates, design.screen)
    combine = bound(design.rungs, design.keeps, design.combinations, least)[1] if design.combinations else 0.0
    share, had = design.rungs[-1]
    each = design.screen_seeds - share * min(had, design.screen_seeds)
    screen = each * (min(design.screen, design.pools) + 1) if design.screen else 0.0
    confirm = float((design.candidates + design.all_data) * design.seeds + design.control)
    return Price(race, combine, screen, confirm)


def smallest_effect(design: Design, goal: float = GOAL) -> float:
    """By how many standard deviations of a seed the better pools must lie above the others for one to be named.

    goal: with which probability. Infinite where no effect is large enough.
    """
    low, high = 0.0, 16.0
    if chance(design, high) < goal:
        return math.inf
    while high - low > 0.05:
        middle = (low + high) / 2
        low, high = (low, middle) if chance(design, middle) >= goal else (middle, high)
    return high


@lru_cache(maxsize=4096)
def chance(design: Design, effect: float) -> float:
    """P that a truly better pool is named, where a twelfth of the pools (five at most) are better by `effect`.

    effect: in standard deviations of one seed of a whole training.
    """
    rng = np.random.default_rng(0)
    true = np.zeros(design.pools)
    true[: min(BETTER, math.ceil(design.pools / 12))] = effect
    order = _search(design, true, rng)
    chosen = order[:, : min(design.candidates, design.pools)]
    return _named(design, true[chosen], rng)


def _search(design: Design, true: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """(worlds, pools) pools from the best on, as race and screening have ordered them."""
    seeds = max(design.screen_seeds, max(n for _, n in design.rungs))
    noise = rng.standard_normal((WORLDS, design.pools, seeds))
    alive, at = np.ones((WORLDS, design.pools), bool), design.rungs[0][0]
    count = design.pools
    for (share, n), keep in zip(design.rungs, design.keeps, strict=True):
        noise, at = _longer(noise, at, share, rng), share
        order = _order(true, noise[:, :, :n], share, alive)
        if (share, n) != design.rungs[-1]:
            count = min(count, max(design.least, math.ceil(keep * count)))
            alive = _first(order, count)
    if not design.screen:
        return order
    return _order(true, _longer(noise, at, 1.0, rng)[:, :, : design.screen_seeds], 1.0, _first(order, design.screen))


def _longer(noise: Floats, at: float, share: float, rng: np.random.Generator) -> Floats:
    """The same runs, further on."""
    same = (at / share) ** LINKED
    further: Floats = same * noise + math.sqrt(1 - same**2) * rng.standard_normal(noise.shape)
    return further


def _order(true: Floats, noise: Floats, share: float, alive: NDArray[np.bool_]) -> NDArray[np.int64]:
    measured = true + share**-SHORTER * noise.mean(2)
    return np.argsort(-np.where(alive, measured, -np.inf), axis=1, kind="stable")


def _first(order: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """(worlds, pools) whether a pool is among the first of the order."""
    found = np.zeros(order.shape, bool)
    np.put_along_axis(found, order[:, :count], True, 1)
    return found


def _named(design: Design, true: Floats, rng: np.random.Generator) -> float:
    """Share of worlds whose best candidate is called on fresh seeds, and is truly better. true: worlds × candidates."""
    from scipy import optimize, special

    k, n, n_c = true.shape[1], design.seeds, design.control
    shared = design.noise**2 / n_c
    error = math.sqrt(1 / n + shared)
    loads, family = np.full(k, math.sqrt(shared) / error), np.zeros(k, np.int64)
    z = optimize.brentq(lambda z: adjusted(np.full(k, z), loads, family)[0] - 0.05, 1, 6)
    df = k * (n - 1) + n_c - 1 if design.noise <= 1 else n_c - 1
    bound = float(special.stdtrit(df, special.ndtr(z)))
    spread = np.sqrt(rng.chisquare(df, (len(true), 1)) / df)
    control = math.sqrt(shared) * rng.standard_normal((len(true), 1))
    measured = true + rng.standard_normal(true.shape) / math.sqrt(n) - control
    best = measured.argmax(1)[:, None]
    called = np.take_along_axis(measured, best, 1) > CAUTION * bound * error * spread
    return float((called & (np.take_along_axis(true, best, 1) > 0)).mean())
