"""Scaling and transfer (Sections 4.4 and 4.5): a recipe against the control on larger models, more compute, other data.

Each approved proposal of kind `scale` is one point: a model, a dataset and an amount of training, with its FLOPs. Over
the points of one dataset the change is fitted as a line in the logarithm of the FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from engine.errors import StudyError
from engine.evidence import Runs, effects
from engine.experiments import Scale
from engine.open_study import OpenStudy
from engine.proposals import stored_proposal
from engine.store import Row
from engine.study import Study, explain

if TYPE_CHECKING:
    from engine.scheduler import Scheduler
    from engine.tasks import Task

STAGE = "transfer"
AHEAD = 10.0  # times the most FLOPs that were measured: how far the line is drawn on

# -- running -----------------------------------------------------------------------------------


def elsewhere(opened: OpenStudy, wanted: Scale) -> OpenStudy:
    """The study on another model or dataset, from the study's model on: a context of its own.

    Raises: StudyError when the study does not know the preset, or the dataset cannot be read.
    """
    content = opened.study.model_dump()
    if wanted.preset is not None:
        content["model"] |= {"preset": wanted.preset, "checkpoint": None}
    if wanted.dataset is not None:
        content["dataset"] |= {"path": wanted.dataset}
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"scale: {explain(error)}") from None
    return OpenStudy(opened.folder, study, opened.store, opened.workers, opened.notice)


def run(opened: OpenStudy, at_work: Scheduler) -> str:
    """Run the approved proposals of kind `scale`; how it ended, as the scheduler says."""
    from engine.proposal_queue import ensure_trials

    how = "done"
    for row in _approved(opened):
        proposal = stored_proposal(row)
        assert proposal.suggestion is not None and isinstance(proposal.suggestion.experiment, Scale)
        ensure_trials(opened, proposal, row["id"])
        other = elsewhere(opened, proposal.suggestion.experiment)
        at_work.enter(other)
        if how != "done" or not at_work.book.waiting([row["id"]]):
            continue
        opened.store.put_result(other.context, "metric_scales", [asdict(m) for m in other.metrics])
        at_work.calibrate(flops=True)
        how = at_work.run(STAGE, [row["id"]], at_work.limit)
    return how


def _approved(opened: OpenStudy) -> list[Row]:
    """The approved proposals of kind `scale` of the study's cycles, oldest first."""
    return opened.store.query(
        "SELECT * FROM proposals WHERE kind = 'scale' AND status = 'approved' AND (context = ? OR context IN "
        "(SELECT context FROM cycles WHERE root = ?)) ORDER BY at, id",
        (opened.root, opened.root),
    )


def trials_of(view: OpenStudy) -> list[Row]:
    """Id and state of every trial of those proposals."""
    asked = [row["id"] for row in _approved(view)]
    return view.store.query(
        "SELECT DISTINCT t.id, t.state FROM proposal_trials x JOIN trials t ON t.id = x.trial "
        f"WHERE x.proposal IN ({', '.join('?' * len(asked))}) ORDER BY t.id",
        asked,
    )


# -- what came of it ---------------------------------------------------------------------------


def points(view: OpenStudy) -> list[Row]:
    """One row for each approved proposal: where, how much training, FLOPs of one trial, change with its interval.

    Intervals are corrected for the number of points; what has not run yet has no change. flops: of one training,
    forward and backward; None where they were not measured.
    """
    store, rows = view.store, _approved(view)
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


def count_flops(task: Task, study: Study, prepared: Path) -> float:
    """FLOPs of a trained sample, forward and backward, by torch's counter: two steps less one, without evaluation."""
    from tempfile import TemporaryDirectory

    from torch.utils.flop_counter import FlopCounterMode

    from engine.tasks import Job, Report

    batch, counted = study.train.batch_size, []
    with TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.npy"
        np.save(rows, np.arange(batch, dtype=np.int64))
        for steps in (1, 2):
            job = Job("flops", str(rows), steps * batch, 0, None, "", horizon=2 * batch)
            with FlopCounterMode(display=False) as counter:
                task.run(study, prepared, job, Report(lambda _kind, _content: None))
            counted.append(counter.get_total_flops())
    return float(counted[1] - counted[0]) / batch
