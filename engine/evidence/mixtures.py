"""Mixtures: a log-linear regression of what they did on their weights, and what it expects of others.

As RegMix (arXiv 2407.01492) and Olmix (2602.12237) do, the logarithm of each metric's ratio to the control is taken as
linear in the weights. A square root of each weight beside it lets a source give less the more of it there is, and
products of two weights let sources help or hinder each other, where left-out mixtures are so predicted better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from engine.evidence.effects import Effect
from engine.evidence.ranking import Ranked, rank
from engine.journal import pools, results
from engine.records.mixture import Surface, Tried
from engine.records.pool import Layer
from engine.study.view import StudyView

Floats = NDArray[np.float64]
LEAST = 0.01  # of the control; a metric's ratio counts as this where it is lower, since its logarithm is taken
RIDGES = np.logspace(-4, 1, 11)  # variance of the noise over that of the slopes
# variance of the slopes of square roots and of products over that of the weights' own; 0: they take no part
FORMS = ((0.0, 0.0), (0.1, 0.0), (1.0, 0.0), (0.1, 1.0), (1.0, 1.0))
TOLD = 1000  # a weight is a whole number of thousandths
ROUNDED = 1e-9
CANDIDATES = 2000
STEPS = np.linspace(0, 1, 11)  # weights of a drawn response


@dataclass(frozen=True)
class Fit:
    """The regression on the mixtures that ran.

    base: (parts,) proportional weights. weights: (mixtures, parts). changes: (mixtures,) percent, as measured.
    expected: (mixtures,) percent, each by the regression on the others. slopes: (features, metrics). spread: (features,
    features), covariance of the slopes for noise of 1. noise: (metrics,) its standard deviation. form: of FORMS.
    """

    base: Floats
    weights: Floats
    changes: Floats
    expected: Floats
    slopes: Floats
    spread: Floats
    noise: Floats
    form: tuple[float, float]

    def predict(self, weights: Floats) -> Floats:
        """(n,) change in percent of mixtures (n, parts)."""
        return _percent(_features(weights, self.base, self.form) @ self.slopes)

    def drawn(self, rng: np.random.Generator) -> Fit:
        """The same with slopes that are as likely as their uncertainty makes them."""
        root = np.linalg.cholesky(self.spread)
        return replace(self, slopes=self.slopes + root @ rng.standard_normal(self.slopes.shape) * self.noise)

    @property
    def rank(self) -> float | None:
        """Spearman's correlation of what was expected out of fold with what was measured; None where all are equal."""
        from scipy.stats import rankdata

        a, b = rankdata(self.expected), rankdata(self.changes)
        return None if not (a.std() and b.std()) else float(np.corrcoef(a, b)[0, 1])


def regress(base: Floats, weights: Floats, metrics: Floats, anchored: bool = True) -> Fit | None:
    """Fit what mixtures did; None below three mixtures.

    base: (parts,) proportional weights. weights: (mixtures, parts). metrics: (mixtures, metrics) change of each metric
    in percent of the control's, in its good direction. anchored: the control is the mixture `base`, and counts as one
    that changed nothing.
    """
    if len(weights) < 3:
        return None
    every = np.vstack([base, weights]) if anchored else weights
    logs = np.log(np.maximum(1 + metrics / 100, LEAST))
    logs = np.vstack([np.zeros(logs.shape[1]), logs]) if anchored else logs
    measured = metrics.mean(1)
    best: tuple[float, Fit] | None = None
    for ridge, form in product(RIDGES, FORMS):
        features, scale = _features(every, base, form), _scales(len(base), form)
        penalty = np.diag([1e-6, *(ridge / scale)])
        spread = np.asarray(np.linalg.inv(features.T @ features + penalty), np.float64)
        slopes = spread @ features.T @ logs
        leverage = np.einsum("ij,jk,ik->i", features, spread, features)
        left_out = (logs - features @ slopes) / np.maximum(1 - leverage, 1e-6)[:, None]
        expected = _percent((logs - left_out)[len(logs) - len(weights) :])
        error = float(((expected - measured) ** 2).mean())
        if best is None or error < best[0]:
            noise = np.sqrt((left_out**2).mean(0))
            best = error, Fit(base, weights, measured, expected, slopes, spread, noise, form)
    assert best is not None
    return best[1]


def _features(weights: Floats, base: Floats, form: tuple[float, float]) -> Floats:
    """(mixtures, features): one, the weights and what the form has beside them, as differences from the base."""
    a, b = np.triu_indices(len(base), 1)
    found = [np.ones((len(weights), 1)), weights - base]
    found += [np.sqrt(weights) - np.sqrt(base)] if form[0] else []
    found += [weights[:, a] * weights[:, b] - base[a] * base[b]] if form[1] else []
    return np.hstack(found)


def _scales(parts: int, form: tuple[float, float]) -> Floats:
    """Variance of each slope over that of the weights' own."""
    counts = (parts, parts * (form[0] > 0), parts * (parts - 1) // 2 * (form[1] > 0))
    return np.repeat((1.0, *form), counts)


def _percent(logs: Floats) -> Floats:
    return np.asarray(100 * np.expm1(np.minimum(logs, 10)).mean(1))


def caps_of(counts: Floats, size: int, repeats: float) -> Floats:
    """(parts,) largest weights in whole thousandths, where no row of a part is drawn more often than that.

    counts: good rows of each. size: rows of the pool.
    """
    return np.minimum(1.0, np.floor(TOLD * counts * repeats / size) / TOLD)


def random_mixtures(base: Floats, caps: Floats, n: int, rng: np.random.Generator) -> Floats:
    """(n, parts) weights from Dirichlet distributions around the proportional ones, narrow to wide; none above caps."""
    width = np.exp(rng.uniform(np.log(0.5), np.log(8), n))
    gammas = rng.standard_gamma(np.maximum(width[:, None] * base, 0.02)) + 1e-12
    return _fitted(gammas / gammas.sum(1, keepdims=True), caps)


def _near(weights: Floats, caps: Floats, n: int, rng: np.random.Generator) -> Floats:
    """(n, parts) mixtures around some, (any, parts)."""
    chosen = weights[rng.integers(len(weights), size=n)] + 0.01
    moved = chosen * np.exp(rng.normal(0, rng.uniform(0.05, 0.7, (n, 1)), chosen.shape)) - 0.01
    moved = np.maximum(moved, 0) + 1e-12
    return _fitted(moved / moved.sum(1, keepdims=True), caps)


def _fitted(weights: Floats, caps: Floats) -> Floats:
    """Weights in whole thousandths that add up to 1; what is above a cap goes to the others in proportion."""
    for _ in range(len(caps)):
        over = weights >= caps
        rest = np.where(over, 0.0, weights)
        room, total = 1 - np.where(over, caps, 0.0).sum(1, keepdims=True), rest.sum(1, keepdims=True)
        weights = np.where(over, caps, rest * np.divide(room, total, out=np.zeros_like(room), where=total > 0))
    exact = weights * TOLD
    whole = np.floor(exact + 1e-6)
    order = np.argsort(np.argsort(whole - exact, axis=1), axis=1)  # the largest remainders are rounded up
    return np.asarray((whole + (order < np.round(TOLD - whole.sum(1, keepdims=True)))) / TOLD)


def best_mixtures(fit: Fit, caps: Floats, tried: Floats, n: int, rng: np.random.Generator) -> Floats:
    """(n, parts) mixtures to try next: the first seems best, each other does by slopes that may be the true ones.

    caps: (parts,) in whole thousandths. tried: (any, parts) mixtures that are not to be tried again.
    """
    before = {tuple(row) for row in tried.tolist()}
    found: list[Floats] = []
    for place in range(n):
        rate = (fit if place == 0 else fit.drawn(rng)).predict
        best = random_mixtures(fit.base, caps, CANDIDATES, rng)
        for _ in range(3):
            best = best[np.argsort(-rate(best))[:20]]
            best = np.vstack([best, _near(best, caps, CANDIDATES // 4, rng)])
        for row in best[np.argsort(-rate(best))]:
            if tuple(row.tolist()) not in before:
                before.add(tuple(row.tolist()))
                found.append(row)
                break
    return np.array(found)


@dataclass(frozen=True)
class Response:
    """What a cycle's mixtures did.

    names: of what is weighted. rows: good rows of each. entries: the mixtures, best first. fit: None below three of
    them with results. weights: (entries, parts).
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]
    entries: tuple[Ranked, ...]
    weights: Floats
    fit: Fit | None

    @property
    def base(self) -> Floats:
        """(parts,) proportional weights."""
        return np.asarray(self.rows, np.float64) / sum(self.rows)

    @property
    def caps(self) -> Floats:
        """(parts,) largest weights that the cap on repeats allows, and none below the proportional one."""
        pool = self.entries[0].pool
        found = caps_of(np.asarray(self.rows, np.float64), pool.size, pool.max_repeats or 1)
        return np.maximum(found, self.base) + ROUNDED

    def along(self, part: int) -> Floats:
        """(any, parts) mixtures in which a part has more and more, and the others the rest in proportion.

        None goes past the cap on repeats.
        """
        shares = np.unique([*(STEPS * min(1.0, self.caps[part])), self.base[part]])
        others = np.where(np.arange(len(self.names)) == part, 0.0, self.base)
        found = (1 - shares)[:, None] * others / others.sum()
        found[:, part] = shares
        return np.asarray(found[(found <= self.caps).all(1)])


def response(view: StudyView) -> Response | None:
    """The mixtures of the probe that trained longest, and the regression on them; None where nothing can be mixed."""
    parts = results.PARTS.get(view.store, view.setup)
    if not parts or not all(parts.values()) or len(parts) < 2:
        return None
    ranked = [r for r in rank(view, ("mixture",), ("probe",)) if r.effect.change is not None]
    place = {name: i for i, name in enumerate(parts)}
    buckets = {cut.pool.slices: f"{cut.statistic} {cut.bucket}" for cut in pools.cuts(view.store, view.setup)}

    def part_of(layer: Layer) -> int | None:
        return place.get(layer.source or buckets.get(layer.slices, ""))

    at = [[part_of(layer) for layer in r.pool.layers] for r in ranked]
    chosen = [(r, i) for r, i in zip(ranked, at, strict=True) if r.share == ranked[0].share and None not in i]
    weights = np.zeros((len(chosen), len(parts)))
    for row, (entry, places) in zip(weights, chosen, strict=True):
        for part, layer in zip(places, entry.pool.layers, strict=True):
            row[part] = layer.weight
    entries = tuple(r for r, _ in chosen)
    base = np.asarray(list(parts.values()), np.float64)
    changes = metric_changes([r.effect for r in entries], view.study.evaluation.aggregate)
    fit = regress(base / base.sum(), weights, changes, not view.study.mixtures.over)
    return Response(tuple(parts), tuple(parts.values()), entries, weights, fit)


def promising(view: StudyView) -> list[Ranked]:
    """Mixtures that did better than the control, first those that the regression likes best."""
    found = response(view)
    if found is None or found.fit is None:
        return [r for r in rank(view, ("mixture",), ("probe",)) if r.effect.change is not None and r.effect.change > 0]
    order = np.argsort(-found.fit.predict(found.weights), kind="stable")
    likely = [found.entries[i] for i in order.tolist()]
    return [r for r in likely if r.effect.change is not None and r.effect.change > 0]


def metric_changes(effects: Sequence[Effect], aggregate: str) -> Floats:
    """(effects, metrics) changes in percent: of every metric that all have, or of all metrics at once."""
    shared = [name for name in (effects[0].metrics if effects else ()) if all(name in e.metrics for e in effects)]
    if aggregate == "change-of-means" or not shared:
        return np.array([[e.change or 0.0] for e in effects])
    return np.array([[e.metrics[name] for name in shared] for e in effects])


def surface(found: Response) -> Surface | None:
    """What the regression expects, as numbers to be drawn; None where there is none."""
    if found.fit is None:
        return None
    fit, parts = found.fit, range(len(found.names))
    lines = [found.along(part) for part in parts]
    along = [fit.predict(line) for line in lines]
    first, second = sorted(parts, key=lambda part: -float(np.ptp(along[part])))[:2]
    tried = [
        Tried(entry.pool.id, weights.tolist(), float(change), float(expected))
        for entry, weights, change, expected in zip(
            found.entries, found.weights, fit.changes, fit.expected, strict=True
        )
    ]
    return Surface(
        list(found.names), found.base.tolist(), fit.rank, tried,
        [list(zip(w[:, i].tolist(), c.tolist(), strict=True)) for i, w, c in zip(parts, lines, along, strict=True)],
        (first, second), STEPS.tolist(),
        [[_at(found, fit, {first: a, second: b}) for a in STEPS.tolist()] for b in STEPS.tolist()],
    )  # fmt: skip


def _at(found: Response, fit: Fit, given: dict[int, float]) -> float | None:
    """What is expected where two parts have these weights, and the others the rest in proportion; None past a cap."""
    left = 1 - sum(given.values())
    others = found.base.copy()
    others[list(given)] = 0
    if left < -1e-9 or (left > 1e-9 and not others.sum()):
        return None
    weights = others * max(0.0, left) / others.sum() if others.sum() else others
    weights[list(given)] = list(given.values())
    return float(fit.predict(weights[None])[0]) if (weights <= found.caps).all() else None
