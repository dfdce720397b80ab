"""Scaling and transfer (Sections 4.4 and 4.5): a recipe against the control on larger models, more compute, other data.

Each approved proposal of kind `transfer` is one point: a model, a dataset and an amount of training, with its FLOPs.
Over the points of one dataset the change is fitted as a line in the logarithm of the FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.evidence.effects import effects
from engine.journal import metrics, results
from engine.journal.metrics import ProposalRuns
from engine.records.leaderboard import Change
from engine.study.view import StudyView

STAGE = "transfer"
AHEAD = 10.0  # times the most FLOPs that were measured: how far the line is drawn on


@dataclass(frozen=True)
class TransferRun:
    """An approved proposal: a recipe, where it is trained, and how much.

    checkpoint: in place of the preset. compute: times the study's own training. samples: of one training. rows: of the
    pool.
    """

    proposal: str
    pool: str
    label: str
    preset: str
    checkpoint: str | None
    dataset: str
    compute: float
    samples: int
    rows: int


@dataclass(frozen=True)
class Point(TransferRun):
    """A transfer and its change against the control there.

    flops: of one training, forward and backward; None where they were not measured. What has not run yet has no change.
    """

    flops_per_sample: float | None
    flops: float | None
    change: float | None
    ci_low: float | None
    ci_high: float | None
    seeds: int
    verdict: str


def _point(view: StudyView, transfer: TransferRun, points: int) -> Point:
    """points: how many there are; intervals are corrected for their number."""
    runs = metrics.of_proposal(view.store, transfer.proposal)
    calibration = results.CALIBRATION.get(view.store, runs.setup) if runs.setup else None
    per_sample = calibration.flops if calibration else None
    change = asdict(_change(view, runs, points))
    del change["bound"]  # a point tells its two-sided interval
    return Point(
        **asdict(transfer), flops_per_sample=per_sample, flops=per_sample * transfer.samples if per_sample else None,
        **change,
    )  # fmt: skip


def _change(view: StudyView, runs: ProposalRuns, points: int) -> Change:
    """The recipe against the control at one point."""
    if not (runs.others and runs.control):
        return Change(None, None, None, 0, "unclear")
    (e,) = effects(
        {"recipe": runs.others, "control": runs.control}, {"recipe": "control"}, view.main_metrics,
        aggregate=view.study.evaluation.aggregate, confidence=view.study.search.confidence, arms=points,
    )  # fmt: skip
    return Change(e.change, e.ci_low, e.ci_high, e.seeds, e.verdict, e.bound)


@dataclass(frozen=True)
class Expected:
    """The line's change at a number of FLOPs, with its interval. extrapolated: outside the measured range."""

    flops: float
    change: float
    ci_low: float | None
    ci_high: float | None
    extrapolated: bool


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

    def at(self, flops: float) -> Expected:
        """The expected change at a number of FLOPs."""
        x = float(np.log10(flops))
        change = self.intercept + self.slope * x
        half = None
        if self.slope_low is not None:
            half = self._quantile * self._noise * float(np.sqrt(1 / self.points + (x - self._mean) ** 2 / self._spread))
        low, high = (None, None) if half is None else (change - half, change + half)
        return Expected(flops, change, low, high, not self.flops[0] <= flops <= self.flops[1])


def fit(flops: Sequence[float], changes: Sequence[float], confidence: float = 0.95) -> Line | None:
    """A line through changes (percent) over log₁₀ FLOPs, with Student's t; None below two different FLOPs."""
    from scipy import stats

    if len(set(flops)) < 2:
        return None
    x, y = np.log10(np.asarray(flops, np.float64)), np.asarray(changes, np.float64)
    line = stats.linregress(x, y)
    spread = float(((x - x.mean()) ** 2).sum())
    rest = y - line.intercept - line.slope * x
    quantile = noise = 0.0
    low = high = None
    if len(x) > 2:
        quantile = float(stats.t.ppf((1 + confidence) / 2, len(x) - 2))
        noise = float(np.sqrt((rest**2).sum() / (len(x) - 2)))
        half = quantile * noise / spread**0.5
        low, high = float(line.slope) - half, float(line.slope) + half
    return Line(
        float(line.intercept), float(line.slope), low, high, len(x), (min(flops), max(flops)),
        float(x.mean()), spread, noise, quantile,
    )  # fmt: skip


@dataclass(frozen=True)
class ScalingLine:
    """A recipe's line on the study's own data. ahead: the line drawn on beyond what was measured; None of two points,
    which are no law.
    """

    slope: float
    slope_low: float | None
    slope_high: float | None
    points: int
    ahead: Expected | None


@dataclass(frozen=True)
class ScalingLaw:
    """Points, and the line of each recipe, by the id of its pool."""

    points: list[Point]
    lines: dict[str, ScalingLine]

    def to_json(self) -> dict[str, Any]:
        """As `djsb show scaling --json` prints it."""
        return asdict(self)


def scaling_law(view: StudyView, transfers: Sequence[TransferRun]) -> ScalingLaw | None:
    """Points and, for each recipe on the study's own data, the line with its continuation; None without points."""
    if not transfers:
        return None
    points = [_point(view, transfer, len(transfers)) for transfer in transfers]
    lines = {}
    for pool in dict.fromkeys(p.pool for p in points):
        own = [
            (p.flops, p.change) for p in points
            if p.pool == pool and p.dataset == view.study.dataset.places and p.flops and p.change is not None
        ]  # fmt: skip
        line = fit([f for f, _ in own], [c for _, c in own], view.study.search.confidence)
        if line is not None:
            ahead = line.at(AHEAD * line.flops[1]) if line.points > 2 else None
            lines[pool] = ScalingLine(line.slope, line.slope_low, line.slope_high, line.points, ahead)
    return ScalingLaw(points, lines)
