"""The book of trials: every change of a trial's state, each in one transaction, and its checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.base.confine import remove
from engine.journal import checkpoints, trials, usage
from engine.journal.store import now
from engine.journal.trials import QueuedTrial
from engine.study.opened import OpenStudy
from engine.study.variants import in_cycles


class TrialBook:
    """Trials of one study in its store. Only the scheduler writes here."""

    def __init__(self, opened: OpenStudy) -> None:
        self.opened, self.store = opened, opened.store

    def recover(self) -> None:
        """Trials that ran when the last engine ended wait again, as do failed ones; what they used stays charged."""
        with self.store.transaction():
            for trial in trials.in_state(self.store, "FAIL"):
                trials.wait_again(self.store, trial)
            for trial in trials.in_state(self.store, "RUNNING"):
                trials.wait_again(self.store, trial)
                self.store.event("recover", "was cut off with its engine; starts anew", trial, "warning")
        self._delete("rows")  # of trials that ran
        queue = trials.in_state(self.store, "WAITING")
        work = self.opened.state / "command"
        for left in work.iterdir() if work.exists() else ():
            if left.is_dir() and left.name not in queue:  # one that waits may go on with what it has left
                self._delete(f"{left.parent.name}/{left.name}")
        kept = checkpoints.every_kept(self.store)
        done = set(trials.in_state(self.store, "COMPLETE"))
        folder = self.opened.state / "checkpoints"
        for left in folder.iterdir() if folder.exists() else ():
            if left.name in done - kept:
                self.keep_best(left.name)  # the engine ended between the trial's end and this
            elif left.name not in kept:
                self._delete(f"{left.parent.name}/{left.name}")

    def waiting(self, proposals: Sequence[str]) -> list[QueuedTrial]:
        """Waiting trials of the given proposals, longest first, then in rounds of seeds."""
        return trials.waiting(self.store, self.opened.setup, proposals)

    def launch(self, trial: QueuedTrial, device: str, estimate: float | None, resumed: int) -> QueuedTrial:
        """The trial as it runs now, with its attempt, device, estimate and the samples that an earlier one trained."""
        started = replace(
            trial, state="RUNNING", attempts=trial.attempts + 1, device=device, estimate=estimate, resumed=resumed,
            started=now(), error=None, charged=0.0,
        )  # fmt: skip
        trials.launch(self.store, started)
        usage.clear(self.store, trial.id)
        return started

    def complete(self, trial: str, metrics: Mapping[str, float], seconds: float) -> None:
        """Its metrics; one that is not a number is stored as None and named. Call inside a transaction."""
        scores = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        trials.complete(self.store, trial, scores, seconds)
        for name, value in scores.items():
            if value is None:
                self.store.event("metric", f"{name} is not a number; left out", trial, "warning")

    def wants_checkpoint(self, trial: QueuedTrial) -> bool:
        """True for a whole training that is kept, and for one that scores rows or that a cycle starts from."""
        confirms = trial.stage == "confirm" and in_cycles(self.opened)
        if trial.whole and (confirms or self.opened.study.train.keep_checkpoints > 0):
            return True
        return checkpoints.is_needed(self.store, trial.id)

    def wait_again(self, trial: str) -> None:
        """It will be run anew."""
        trials.wait_again(self.store, trial)

    def fail(self, trial: str, error: str) -> None:
        """It is not tried again by this engine."""
        trials.fail(self.store, trial, error)

    def cancel(self, trial: str) -> None:
        """It is never run again."""
        trials.cancel(self.store, trial)

    def keep_best(self, trial: str) -> None:
        """Keep the checkpoints of the best trials by their first main metric; delete the others."""
        path = self.opened.checkpoint(trial)
        if not path.exists():
            return
        size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        checkpoints.keep(self.store, trial, str(path.relative_to(self.opened.folder)), size)
        self.prune(candidates=in_cycles(self.opened))

    def prune(self, candidates: bool = False) -> None:
        """Delete the cycle's checkpoints beyond the best, but those that cycles start from or end with.

        candidates: those that this cycle may end with stay, too.
        """
        opened = self.opened
        ranked = checkpoints.ranked(self.store, opened.setup, opened.main_metrics[0], candidates)
        for trial in ranked[opened.study.train.keep_checkpoints :]:
            self._delete(f"checkpoints/{trial}")
            checkpoints.deleted(self.store, trial)

    def _delete(self, name: str) -> None:
        """Delete what lies under this name in the study's state; what cannot be deleted is told and stays."""
        try:
            remove(self.opened.state, name)
        except OSError as error:
            self.store.event("disk", f"{error.filename} cannot be deleted: {error.strerror}", level="warning")
