"""Trials that wait, and those that come back: from a crash, a lost device, a lack of memory, a stop."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import replace

from engine.base.confine import remove
from engine.base.errors import TrialError
from engine.journal import results, trials
from engine.journal.trials import QueuedTrial
from engine.runner.device import Slot
from engine.runner.training_states import TrainingStates
from engine.runner.trial_book import TrialBook
from engine.study.opened import OpenStudy
from engine.tasks.contract import Outside

RETRIES = 1


class Backlog:
    """The queue of the scheduler.

    waiting: trials to start, in order. pack: most trials that one worker trains at once, once memory has run out, or
    None. failures: of this run, by trial: a later one tries again.
    starts: workers that ended before they served, by device, since one that served.
    """

    def __init__(self) -> None:
        self.waiting: deque[QueuedTrial] = deque()
        self.pack: int | None = None
        self.failures: Counter[str] = Counter()
        self.starts: Counter[str] = Counter()

    def enter(self, opened: OpenStudy, book: TrialBook, states: TrainingStates) -> None:
        """Go on with a cycle of the study."""
        self.opened, self.store, self.book, self.states = opened, opened.store, book, states

    @property
    def micro(self) -> int | None:
        """Rows at once as they fit the devices, the same for all trials of the cycle; None: the study's."""
        calibration = results.CALIBRATION.get(self.store, self.opened.setup)
        return calibration.micro if calibration else None

    @property
    def retries(self) -> int:
        """How often a failed trial is tried again."""
        task = self.opened.task
        return task.retries(self.opened.study) if isinstance(task, Outside) else RETRIES

    def free(self, slot: Slot) -> list[QueuedTrial]:
        """The slot's trials, which it no longer runs."""
        trials = list(slot.trials.values())
        for trial in trials:
            remove(self.opened.state, f"rows/{trial.id}.npy")
        slot.trials, slot.dropped, slot.seconds = {}, set(), 0.0
        return trials

    def failed(self, slot: Slot, error: str, memory: bool) -> None:
        """Out of memory: a smaller pack, then fewer rows at once, as long as none is done; anything else: one retry."""
        if memory and self._shrink(slot):
            return
        slot.kill()  # what broke one trial may have broken the process
        self._retry(slot, self._fixed(error) if memory else error)

    def _fixed(self, error: str) -> str:
        """The error of a trial for which memory runs out, where the others are done."""
        train = self.opened.study.train
        rows = self.micro or train.micro_batch or train.batch_size
        return (
            f"{error}: out of memory with {rows} rows at once, with which other trials are done, so it is not trained "
            f"with fewer; free memory on the device, or set train.micro_batch to {max(1, rows // 2)}"
        )

    def _shrink(self, slot: Slot) -> bool:
        """Ask for less memory from now on and try again; False when nothing is left to shrink."""
        size = len(slot.trials)
        train = self.opened.study.train
        own = math.ceil(train.batch_size / slot.width)  # what a device has of a batch
        micro = min(own, self.micro or train.micro_batch or own) // 2
        if size > 1:
            self.pack = size // 2
            what = f"goes on with {self.pack} trials at once"
        elif micro >= 1 and self._may_change():
            self._use(micro)
            what = f"goes on with micro-batches of {micro}"
        else:
            return False
        self.store.event("memory", f"out of memory; {what}", next(iter(slot.trials)), "warning")
        slot.kill()  # gives the memory back
        for trial in self.free(slot):
            self.again(trial)
        return True

    def _may_change(self) -> bool:
        """True while no trial of the cycle is done: all of a comparison are trained alike."""
        return trials.counted(self.store, self.opened.setup, "COMPLETE") == 0

    def _use(self, micro: int) -> None:
        """Train with so many rows at once from now on, in later runs too."""
        if calibration := results.CALIBRATION.get(self.store, self.opened.setup):
            results.CALIBRATION.put(self.store, self.opened.setup, replace(calibration, micro=micro))

    def lost(self, slot: Slot, why: str) -> None:
        """The worker is gone, or is ended because nothing is to be expected of it."""
        served = slot.ready
        slot.kill()
        if served:
            self.starts.pop(slot.device, None)
        if slot.trials:
            self._retry(slot, why)
        elif slot.lost:
            self.store.event("lost", f"{why}; its trials go to the others", slot.device, "warning")
        elif not served and not slot.taken:
            self.starts[slot.device] += 1
            if self.starts[slot.device] > RETRIES:
                raise TrialError(f"{why} before its first trial; see {slot.log}")
            self.store.event("crash", f"{why} before its first trial; it is started again", slot.device, "error")

    def _retry(self, slot: Slot, error: str) -> None:
        """Try each trial again, as often as the task allows; a pack's are not to blame yet, so they are tried alone.

        That a device was lost, or taken away, is no trial's fault.
        """
        alone = len(slot.trials) == 1
        trials = self.free(slot)
        with self.store.transaction():
            for trial in trials:
                kind, level = ("taken", "warning") if slot.taken else ("crash", "error")
                self.store.event(kind, f"{error}; see {slot.log}", trial.id, level)
                if slot.lost or slot.taken:
                    continue
                self.failures[trial.id] += 1
                self.states.forget(trial)  # should its state be to blame
                if alone and self.failures[trial.id] > self.retries:
                    self.book.fail(trial.id, error)
        for trial in reversed(trials):
            if not alone or self.failures[trial.id] <= self.retries:
                self.again(trial)

    def again(self, trial: QueuedTrial) -> None:
        """It waits again, before the others."""
        self.book.wait_again(trial.id)
        self.waiting.appendleft(trial)

    def rescind(self, slot: Slot, why: str) -> None:
        """Stop a running job; its trials wait again and what they used stays charged."""
        slot.kill()
        with self.store.transaction():
            for trial in self.free(slot):
                self.book.wait_again(trial.id)
                self.store.event("stop", why, trial.id)
