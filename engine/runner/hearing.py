"""What workers say: points, heartbeats, ends. It is written here, and what running trials have used is charged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.journal import curves
from engine.runner.accounts import Accounts
from engine.runner.backlog import Backlog
from engine.runner.device import Slot
from engine.runner.training_states import TrainingStates
from engine.runner.trial_book import TrialBook
from engine.study.opened import OpenStudy
from engine.tasks.contract import Outside

SILENCE = 300.0  # seconds without a heartbeat after which a worker counts as lost
HUNG = 10.0  # times its estimate, and at least SILENCE, after which a job that still beats counts as hung


@dataclass
class Hearing:
    """Hears the workers of one cycle of a study."""

    opened: OpenStudy
    accounts: Accounts
    book: TrialBook
    states: TrainingStates
    backlog: Backlog

    def __post_init__(self) -> None:
        self.store = self.opened.store

    def hear(self, slot: Slot, event: dict[str, Any] | None) -> int:
        """Handle one event; how many trials it finished."""
        if event is None:
            if slot.lost:
                self.backlog.lost(slot, f"{slot.device} is lost")
            elif died := slot.died():
                self.backlog.lost(slot, died)
        elif event["event"] == "ready":
            slot.ready = True
        elif not slot.trials:
            return 0  # the last words of a job that was cancelled
        elif event["event"] == "curve":
            self._curve(slot, event)
        elif event["event"] == "beat":
            self._beat(slot, event["seconds"])
        elif event["event"] == "done":
            return self._finish(slot, event)
        elif event["event"] == "failed":
            with self.store.transaction():
                self._charge(slot, event["seconds"])
            self.backlog.failed(slot, event["error"], event["memory"])
        return 0

    def _curve(self, slot: Slot, event: dict[str, Any]) -> None:
        if event["trial"] not in slot.trials:
            return
        with self.store.transaction():
            curves.add(self.store, event["trial"], event["step"], event["values"])

    def _charge(self, slot: Slot, seconds: float) -> None:
        """Share what the job has used since the last time among its trials that still run."""
        spent, slot.seconds = seconds - slot.seconds, seconds
        for key, trial in slot.trials.items():
            used = trial.charged + max(0.0, spent) / len(slot.trials)
            slot.trials[key] = self.accounts.charge(trial, slot.device, used)

    def _beat(self, slot: Slot, seconds: float) -> None:
        with self.store.transaction():
            self._charge(slot, seconds)
        estimate = sum(t.estimate or SILENCE for t in slot.trials.values())
        if seconds > max(SILENCE, HUNG * estimate) and not isinstance(self.opened.task, Outside):
            self.backlog.lost(slot, f"the trial hangs: {seconds:.0f} s, estimated {estimate:.0f} s")

    def _finish(self, slot: Slot, event: dict[str, Any]) -> int:
        results: dict[str, dict[str, float]] = event["results"]
        with self.store.transaction():
            self._charge(slot, event["seconds"])
            for key, trial in slot.trials.items():
                if key in results:
                    self.book.complete(key, results[key], trial.charged)
                else:
                    self.book.cancel(key)
        done = [t for t in self.backlog.free(slot) if t.id in results]
        for trial in done:
            self.book.keep_best(trial.id)
            self.states.supersede(trial)
        return len(done)
