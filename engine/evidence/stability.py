"""Whether what is found at one size holds at another: how alike the orders of pools are, and where effects vanish.

A scale is what trials of one kind were: rows of a pool and samples trained. Pools are the same at two scales when their
slices are. The intervals of Kendall's and Spearman's coefficients are those of Fieller, Hartley and Pearson (1957) and
of Bonett and Wright (2000): they cover which pools were compared. Noise of the trials draws both towards zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.evidence.effects import Effect, effects
from engine.journal import metrics, pools
from engine.journal.pools import TrainedPool
from engine.records.pool import Layer
from engine.settings.study import STAGES
from engine.study.view import StudyView

FEWEST = 3  # pools at both scales, below which their orders say nothing
KINDS = ("single", "combination")


@dataclass(frozen=True, order=True)
class Scale:
    """samples: trained in all by a trial. rows: of each pool. share: part of a whole training."""

    samples: int
    rows: int
    share: float

    @property
    def text(self) -> str:
        """`448 rows, 900 samples`."""
        part = "" if self.share >= 1 else f", {100 * self.share:g} % of the steps"
        return f"{self.rows:,} rows, {self.samples:,} samples{part}"


@dataclass(frozen=True)
class Coefficient:
    """A rank correlation with its interval, None where too few pools give none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Agreement:
    """How alike the orders of the pools of two scales are. pools: how many were at both."""

    small: Scale
    large: Scale
    pools: int
    kendall: Coefficient
    spearman: Coefficient


@dataclass(frozen=True)
class Faded:
    """A pool whose interval excluded zero at one scale, and includes it, or lies on the other side, at a larger one."""

    label: str
    seen: Scale
    seen_change: float
    lost: Scale
    lost_change: float
    ci_low: float
    ci_high: float
    turned: bool


@dataclass(frozen=True)
class Stability:
    """Of neighbouring scales, the smaller first, and the pools whose effect a larger scale no longer shows."""

    agreements: list[Agreement]
    faded: list[Faded]


def stability(view: StudyView) -> Stability:
    """Of all scales that the search's trials had."""
    scales = _scales(view)
    orders = sorted(scales)
    found = [a for small, large in pairwise(orders) if (a := _agreement(small, large, scales))]
    labels = {layers: label for of_scale in scales.values() for layers, (label, _) in of_scale.items()}
    faded = [f for layers, label in labels.items() if (f := _faded(label, layers, scales))]
    return Stability(found, faded)


_OfScale = Mapping[tuple[Layer, ...], tuple[str, Effect]]  # what a pool keeps → (its label, its effect)


def _scales(view: StudyView) -> dict[Scale, _OfScale]:
    """Every pool at every scale that it ran at, against the control there."""
    table = metrics.by_pool(view.store, view.setup, False, STAGES[:-1])
    trained = {p.key: p for p in pools.trained(view.store, view.setup) if p.key in table}
    controls = {(*k[1:], p.pool.size): k for k, p in trained.items() if p.kind == "control"}
    names = {key: ":".join(map(str, key)) for key in trained}
    against = {
        names[k]: names[control] for k, p in trained.items()
        if p.kind in KINDS and (control := controls.get((*k[1:], p.pool.size)))
    }  # fmt: skip
    changes = effects(
        {names[key]: table[key] for key in trained}, against, view.main_metrics,
        aggregate=view.study.evaluation.aggregate, confidence=view.study.search.confidence,
    )  # fmt: skip
    by_name = {names[key]: p for key, p in trained.items()}
    found: dict[Scale, dict[tuple[Layer, ...], tuple[str, Effect]]] = {}
    for e in changes:
        if e.change is not None:
            p = by_name[e.pool]
            found.setdefault(_scale(p), {})[p.pool.layers] = (p.label, e)
    return dict(found)


def _scale(p: TrainedPool) -> Scale:
    return Scale(p.samples, p.pool.size, p.samples / p.horizon)


def _agreement(small: Scale, large: Scale, scales: Mapping[Scale, _OfScale]) -> Agreement | None:
    """None where too few pools are at both."""
    both = [layers for layers in scales[small] if layers in scales[large]]
    if len(both) < FEWEST:
        return None
    before, after = ([scales[at][layers][1].change or 0.0 for layers in both] for at in (small, large))
    return Agreement(small, large, len(both), *coefficients(before, after))


def coefficients(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> tuple[Coefficient, Coefficient]:
    """(Kendall's τ-b, Spearman's ρ) of two orders."""
    from scipy import stats

    n, z = len(a), float(stats.norm.ppf((1 + confidence) / 2))
    tau, rho = float(stats.kendalltau(a, b).statistic), float(stats.spearmanr(a, b).statistic)
    return (
        _within(tau, z * math.sqrt(0.437 / (n - 4)) if n > 4 else None),
        _within(rho, z * math.sqrt((1 + rho**2 / 2) / (n - 3)) if n > 3 else None),
    )


def _within(value: float, half: float | None) -> Coefficient:
    """A coefficient with the interval of its Fisher z. half: of that, None where there is none."""
    if half is None or math.isnan(value):
        return Coefficient(0.0 if math.isnan(value) else value, None, None)
    z = math.atanh(max(-0.999999, min(0.999999, value)))
    return Coefficient(value, math.tanh(z - half), math.tanh(z + half))


def _faded(label: str, layers: tuple[Layer, ...], scales: Mapping[Scale, _OfScale]) -> Faded | None:
    """Where a pool's effect vanishes, at the smallest scale at which it does and from which on it is not seen."""
    course = [(scale, scales[scale][layers][1]) for scale in sorted(scales) if layers in scales[scale]]
    course = [(scale, e) for scale, e in course if e.ci_low is not None and e.ci_high is not None]
    seen: tuple[Scale, Effect] | None = None
    lost: Faded | None = None
    for scale, e in course:
        assert e.change is not None and e.ci_low is not None and e.ci_high is not None
        side = 1 if e.ci_low > 0 else -1 if e.ci_high < 0 else 0
        if seen is None or seen[1].change is None or side == (1 if seen[1].change > 0 else -1):
            seen, lost = ((scale, e), None) if side else (seen, lost)
        elif lost is None:
            lost = Faded(label, seen[0], seen[1].change, scale, e.change, e.ci_low, e.ci_high, bool(side))
    return lost
