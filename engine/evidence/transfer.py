"""Scaling and transfer (Sections 4.4 and 4.5): a recipe against the control on larger models, more compute, other data.

Each approved proposal of kind `scale` is one point: a model, a dataset and an amount of training, with its FLOPs. Over
the points of one dataset the change is fitted as a line in the logarithm of the FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.evidence.effects import Runs, effects
from engine.journal.store import Row
from engine.records.experiment import Scale
from engine.records.proposal import stored_proposal
from engine.study.opened import OpenStudy

STAGE = "transfer"
AHEAD = 10.0  # times the most FLOPs that were measured: how far the line is drawn on


def approved(opened: OpenStudy) -> list[Row]:
    """The approved proposals of kind `scale` of the study's cycles, oldest first."""
    return opened.store.query(
        "SELECT * FROM proposals WHERE kind = 'scale' AND status = 'approved' AND (context = ? OR context IN "
        "(SELECT context FROM cycles WHERE root = ?)) ORDER BY at, id",
        (opened.root, opened.root),
    )


def trials_of(view: OpenStudy) -> list[Row]:
    """Id and state of every trial of those proposals."""
    asked = [row["id"] for row in approved(view)]
    return view.store.query(
        "SELECT DISTINCT t.id, t.state FROM proposal_trials x JOIN trials t ON t.id = x.trial "
        f"WHERE x.proposal IN ({', '.join('?' * len(asked))}) ORDER BY t.id",
        asked,
    )


def points(view: OpenStudy) -> list[Row]:
    """One row for each approved proposal: where, how much training, FLOPs of one trial, change with its interval.

    Intervals are corrected for the number of points; what has not run yet has no change. flops: of one training,
    forward and backward; None where they were not measured.
    """
    store, rows = view.store, approved(view)
    found = []
    for row in rows:
        proposal = stored_proposal(row)
        assert proposal.suggestion is not None and isinstance(proposal.suggestion.experiment, Scale)
        wanted = proposal.suggestion.experiment
        trials = store.query(
            "SELECT t.context, t.seed, t.samples, p.kind, m.name, m.value, t.seconds FROM proposal_trials x "
            "JOIN trials t ON t.id = x.trial JOIN pools p ON p.id = t.pool JOIN metrics m ON m.trial = t.id "
            "WHERE x.proposal = ? AND t.state = 'COMPLETE' ORDER BY t.seed, m.name",
            (row["id"],),
        )
        runs: dict[str, dict[int, dict[str, float | None]]] = {"recipe": {}, "control": {}}
        for t in trials:
            arm = "control" if t["kind"] == "control" else "recipe"
            runs[arm].setdefault(t["seed"], {})[t["name"]] = t["value"]
        samples = proposal.pools[0].samples
        per_sample = (store.result(trials[0]["context"], "calibration") or {}).get("flops") if trials else None
        found.append({
            "proposal": row["id"], "pool": wanted.pool, "label": proposal.pools[-1].label,
            "preset": wanted.preset or view.study.model.preset, "dataset": wanted.dataset or view.study.dataset.path,
            "compute": wanted.compute, "samples": samples, "rows": proposal.pools[0].to_pool().size,
            "flops_per_sample": per_sample, "flops": per_sample * samples if per_sample else None,
            **_change(view, runs, len(rows)),
        })  # fmt: skip
    return found


def _change(view: OpenStudy, runs: dict[str, dict[int, dict[str, float | None]]], points: int) -> Row:
    """The recipe against the control at one point."""
    if not (runs["recipe"] and runs["control"]):
        return {"change": None, "ci_low": None, "ci_high": None, "seeds": 0, "verdict": "unclear"}
    table: dict[str, Runs] = dict(runs)
    (e,) = effects(
        table, {"recipe": "control"}, view.main_metrics, aggregate=view.study.evaluation.aggregate,
        confidence=view.study.search.confidence, arms=points, anytime=False,
    )  # fmt: skip
    return {"change": e.change, "ci_low": e.ci_low, "ci_high": e.ci_high, "seeds": e.seeds, "verdict": e.verdict}


@dataclass(frozen=True)
class Line:
    """change = intercept + slope · log₁₀ FLOPs, in percent, by least squares over `points` points.

    slope_low, slope_high: interval of the slope, in points of percent for ten times the FLOPs; None below three points.
    """

    intercept: float
    slope: float
    slope_low: float | None
    slope_high: float | None
    points: int
    flops: tuple[float, float]
    _mean: float
    _spread: float
    _noise: float
    _quantile: float

    def at(self, flops: float) -> Row:
        """The expected change at so many FLOPs with its interval. extrapolated: beyond what was measured."""
        x = float(np.log10(flops))
        change = self.intercept + self.slope * x
        half = None
        if self.slope_low is not None:
            half = self._quantile * self._noise * float(np.sqrt(1 / self.points + (x - self._mean) ** 2 / self._spread))
        return {
            "flops": flops, "change": change, "ci_low": None if half is None else change - half,
            "ci_high": None if half is None else change + half,
            "extrapolated": not self.flops[0] <= flops <= self.flops[1],
        }  # fmt: skip


def fit(flops: Sequence[float], changes: Sequence[float], confidence: float = 0.95) -> Line | None:
    """A line through changes (percent) over log₁₀ FLOPs, with Student's t; None below two different FLOPs."""
    from scipy import stats

    if len(set(flops)) < 2:
        return None
    x, y = np.log10(np.asarray(flops, np.float64)), np.asarray(changes, np.float64)
    found = stats.linregress(x, y)
    spread = float(((x - x.mean()) ** 2).sum())
    rest = y - found.intercept - found.slope * x
    quantile = noise = 0.0
    low = high = None
    if len(x) > 2:
        quantile = float(stats.t.ppf((1 + confidence) / 2, len(x) - 2))
        noise = float(np.sqrt((rest**2).sum() / (len(x) - 2)))
        half = quantile * noise / spread**0.5
        low, high = float(found.slope) - half, float(found.slope) + half
    return Line(
        float(found.intercept), float(found.slope), low, high, len(x), (min(flops), max(flops)),
        float(x.mean()), spread, noise, quantile,
    )  # fmt: skip


def scaling_law(view: OpenStudy) -> Row | None:
    """Points and, for each recipe on the study's own data, the line with its continuation; None without points."""
    found = points(view)
    if not found:
        return None
    lines = {}
    for pool in dict.fromkeys(p["pool"] for p in found):
        own = [
            p for p in found
            if p["pool"] == pool and p["dataset"] == view.study.dataset.path and p["flops"] and p["change"] is not None
        ]  # fmt: skip
        line = fit([p["flops"] for p in own], [p["change"] for p in own], view.study.search.confidence)
        if line is not None:
            lines[pool] = {
                "slope": line.slope, "slope_low": line.slope_low, "slope_high": line.slope_high, "points": line.points,
                "ahead": line.at(AHEAD * line.flops[1]),
            }  # fmt: skip
    return {"points": found, "lines": lines}
