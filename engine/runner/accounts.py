"""The study's accounts: what is charged, what a trial will take, what is left of the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from engine.journal import costs, cycles, results, trials
from engine.journal.results import Allocated, Calibration
from engine.journal.trials import QueuedTrial
from engine.runner.device import Bill
from engine.settings.study import STAGES, Study
from engine.study.designed import design_of
from engine.study.opened import OpenStudy

# share of the budget that may be spent when a stage of a study that is not designed ends
STAGE_CAP = {"probe": 0.6, "combine": 0.8, "scale": 0.85, "screen": 0.92, "confirm": 1.0}
AHEAD = 1.25  # times its planned part that a stage of a designed study may take of what is not reserved


@dataclass(frozen=True)
class Balance:
    """What is spent and what may be spent, in device-seconds.

    limit: the whole budget. spent: charged so far. reserved: estimates of the trials that run now.
    """

    limit: float
    spent: float
    reserved: float = 0.0

    @property
    def left(self) -> float:
        """Device-seconds that are neither spent nor reserved; never negative."""
        return max(0.0, self.limit - self.spent - self.reserved)

    def fits(self, estimate: float) -> bool:
        """True if a trial of this estimated cost may start."""
        return estimate <= self.left


class Accounts:
    """Costs of one study. Every attempt at a trial is one row, rewritten while it runs.

    limit: device-seconds that may be spent in all; cap: until the current stage ends.
    """

    def __init__(self, opened: OpenStudy, limit: float) -> None:
        self.opened, self.store = opened, opened.store
        self.limit = self.cap = limit

    def spent(self) -> float:
        """Device-seconds charged so far."""
        return costs.total(self.store)

    def balance(self, running: Iterable[QueuedTrial] = ()) -> Balance:
        """What is spent, what the running trials will still take, what is left."""
        reserved = sum(max(0.0, (t.estimate or 0.0) - t.charged) for t in running)
        return Balance(self.cap, self.spent(), reserved)

    @property
    def calibration(self) -> Calibration | None:
        """The calibration: seconds of a few timed steps, once per study."""
        return results.CALIBRATION.get(self.store, self.opened.setup)

    @property
    def study(self) -> Study:
        """The study as its trials are trained on these devices."""
        study, calibration = self.opened.study, self.calibration
        if calibration is None:
            return study
        found = {"activation_checkpointing": calibration.checkpointing, "compile": calibration.compiled}
        update = {name: "on" for name, is_on in found.items() if is_on}
        return study.model_copy(update={"train": study.train.model_copy(update=update)})

    def estimate(self, samples: int) -> float | None:
        """Device-seconds of training on a number of samples and of the evaluation.

        From finished trials of this study, else from the calibration.
        """
        if measured := trials.durations(self.store, self.opened.setup):
            return estimate_cost(samples, measured)
        calibration = self.calibration
        return calibration.fixed + calibration.per_sample * samples if calibration else None

    def allowance(self, share: float) -> float:
        """Device-seconds that may be spent in all once a stage of this cycle has taken its share, 0 … 1.

        What was left when the cycle began is divided evenly over it and the cycles that may follow.
        """
        opened = self.opened
        began = cycles.get(self.store, opened.setup).spent
        ahead = 1 + max(0, opened.study.cycles.max - opened.cycle)
        return float(began + share * max(0.0, self.limit - began) / ahead)

    def until(self, stage: str) -> float:
        """Device-seconds that may be spent in all when a stage ends, so that later stages are not starved.

        A designed study reserves its confirmation, by what a trial takes now; what is left is divided as was planned.
        Where trials take far more than that, exploring has half, if the least confirmation leaves it as much.
        """
        design, whole = design_of(self.opened), self.allowance(1.0)
        if design is None:
            return self.allowance(STAGE_CAP[stage])
        if stage == "confirm" or design.unreserved:
            return whole
        began = cycles.get(self.store, self.opened.setup).spent
        each = self.estimate(int(design.size * self.opened.study.train.epochs)) or 0.0
        likely, least = (n * each for n in design.confirming)
        reserve = min(likely, max((whole - began) / 2, least))
        explored = {name: seconds for name, seconds in design.seconds.items() if name != "confirm"}
        so_far = sum(s for name, s in explored.items() if STAGES.index(name) <= STAGES.index(stage))
        part = min(1.0, AHEAD * so_far / max(1e-9, sum(explored.values())))
        return began + part * max(0.0, whole - reserve - began)

    def expect(self, seconds: float | None, rows: int) -> None:
        """Take the user's word, until a trial has run: device-seconds of a trial on a pool of so many rows."""
        if seconds is not None:
            each = seconds / (rows * self.opened.epochs)
            results.CALIBRATION.put(self.store, self.opened.setup, Calibration(each, 0.0, {1: each}, 1, "expected"))

    def charge(self, trial: QueuedTrial, device: str, seconds: float) -> QueuedTrial:
        """The trial, charged with what this attempt has used so far in place of what it had used before."""
        costs.charge(
            self.store, f"{trial.id}:{trial.attempts}", "trial", seconds, trial=trial.id, stage=trial.stage,
            device=device, samples=trial.samples,
        )  # fmt: skip
        return replace(trial, charged=seconds)

    def charge_bills(self, bills: Sequence[Bill]) -> None:
        """What devices took that others account for, less what of it is charged already."""
        for bill in bills:
            rest = max(0.0, bill.taken.seconds - bill.used)
            costs.charge(self.store, bill.taken.key, "allocation", rest, device=bill.device)
        results.ALLOCATED.put(self.store, self.opened.root, [bill.taken for bill in bills if not bill.final])

    def charge_rest(self, accounted: Callable[[Allocated], float | None]) -> Iterator[tuple[str, float]]:
        """Charge what jobs of an earlier engine took after its last word, which it could not: (job, device-seconds)."""
        left = results.ALLOCATED.get(self.store, self.opened.root) or []
        for taken in left:
            if rest := max(0.0, (accounted(taken) or 0.0) - taken.seconds):
                costs.charge(self.store, taken.key, "allocation", costs.get(self.store, taken.key) + rest)
                yield taken.job, rest
        if left:
            results.ALLOCATED.put(self.store, self.opened.root, [])

    def charge_once(self, kind: str, device: str, seconds: float, again: bool = False) -> None:
        """What the calibration, or scoring the rows, took. again: the second calibration, which counted FLOPs."""
        key = f"{kind}:{self.opened.setup}{':flops' * again}"
        costs.charge(self.store, key, kind, seconds, device=device)


def estimate_cost(samples: int, measured: Iterable[tuple[int, float]]) -> float | None:
    """Device-seconds that a trial of `samples` trained samples will take.

    measured: (trained samples, device-seconds) of finished trials or of a calibration. A line
    through the measurements when their sizes differ (a trial has a fixed part, its evaluation),
    else in proportion; None when nothing was measured.
    """
    points = [(float(n), s) for n, s in measured if n > 0 and s > 0]
    if not points:
        return None
    sizes = {n for n, _ in points}
    mean_n = sum(n for n, _ in points) / len(points)
    mean_s = sum(s for _, s in points) / len(points)
    if len(sizes) > 1:
        slope = sum((n - mean_n) * (s - mean_s) for n, s in points) / sum((n - mean_n) ** 2 for n, _ in points)
        fixed = mean_s - slope * mean_n
        if slope > 0 and fixed >= 0:
            return fixed + slope * samples
    return mean_s * samples / mean_n
