"""What workers say: points and ends. It is written here, and what running trials have used is charged.

Charged is the time on the engine's own clock, from the job's start to the message of its end, whatever arrives between.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.base.ids import json_text
from engine.base.secrets import redact
from engine.journal import curves, trials, usage
from engine.runner.accounts import Accounts
from engine.runner.backlog import Backlog
from engine.runner.device import Arrival, Slot
from engine.runner.messages import Bad, Described, Done, Failed, Gone, Note, Point, Ready, Unfit, Usage
from engine.runner.training_states import TrainingStates
from engine.runner.trial_book import TrialBook
from engine.runner.watch import SILENCE
from engine.study.opened import OpenStudy
from engine.tasks.contract import Outside

NOTES = 100  # lines for the log that a worker may send in its life
CHARGE = 1.0  # seconds between two charges of what runs
HUNG = 10.0  # times its estimate, and at least SILENCE, after which a job that still beats counts as hung


@dataclass
class Hearing:
    """Hears the workers of one cycle of a study."""

    opened: OpenStudy
    accounts: Accounts
    book: TrialBook
    states: TrainingStates
    backlog: Backlog
    _steps: list[curves.Step] = field(default_factory=list)
    _taken: list[usage.Reading] = field(default_factory=list)
    _due: float = 0.0

    def __post_init__(self) -> None:
        self.store = self.opened.store

    def hear(self, arrival: Arrival) -> int:
        """Take in one message; how many trials it finished. A bad one fails the trials of its worker only."""
        slot, message = arrival.slot, arrival.message
        if arrival.life != slot.life:
            return 0  # the last words of a worker that was ended
        if isinstance(message, Ready):
            slot.ready = True
        elif isinstance(message, Unfit):
            slot.lost, slot.why = True, message.why
            self.backlog.lost(slot, message.why)
        elif isinstance(message, Gone):
            self._gone(slot, arrival.at)
        elif isinstance(message, Bad):
            self._bad(slot, arrival.at, message.why)
        elif isinstance(message, Note):
            self._note(slot, arrival.at, message.text)
        elif isinstance(message, Usage):
            values = {str(name): value for name, value in message.values.items()}
            self._taken += [usage.Reading(trial, message.seconds, values) for trial in slot.trials]
        elif not slot.trials:
            self._bad(slot, arrival.at, f"the worker sent a message ({message.event}) while it had no job")
        elif isinstance(message, Failed):
            self.settle(slot, arrival.at)
            if slot.leaving:  # its programs are told to end as well
                slot.taken = True
                self.backlog.lost(slot, message.error)
            else:
                self.backlog.failed(slot, message.error, message.memory)
        elif isinstance(message, Done):
            return self._finish(slot, arrival.at, message)
        elif isinstance(message, Point):
            self._point(slot, arrival.at, message)
        elif isinstance(message, Described):
            self._described(slot, arrival.at, message)
        return 0

    def _gone(self, slot: Slot, at: float) -> None:
        self.settle(slot, at)
        if slot.lost:
            self.backlog.lost(slot, f"{slot.device} is lost")
        elif died := slot.died():
            self.backlog.lost(slot, died)

    def _bad(self, slot: Slot, at: float, why: str) -> None:
        if slot.trials:
            self.settle(slot, at)
            self.backlog.failed(slot, why, memory=False)
        else:
            self.store.event("worker", f"{why}; it is started anew", slot.device, "warning")
            slot.kill()

    def _note(self, slot: Slot, at: float, text: str) -> None:
        """Write a line into the log, as long as a worker sends but a few."""
        slot.notes += 1
        if slot.notes > NOTES:
            self._bad(slot, at, f"the worker sent more than {NOTES} lines for the log")
        else:
            self.store.event("worker", " ".join(redact(text).split()), slot.device, "warning")

    def _point(self, slot: Slot, at: float, point: Point) -> None:
        if point.trial in slot.trials:
            self._steps.append(curves.Step(point.trial, point.step, point.values))
        else:
            self._bad(slot, at, f"the worker sent a point of {point.trial!r}, which it does not train")

    def _described(self, slot: Slot, at: float, message: Described) -> None:
        if message.trial in slot.trials:
            trials.describe(self.store, message.trial, json_text(message.facts))
        else:
            self._bad(slot, at, f"the worker told of {message.trial!r}, which it does not train")

    def _finish(self, slot: Slot, at: float, done: Done) -> int:
        parked = done.parked if slot.leaving else {}
        said = {*done.results, *done.parked}
        others, missing = said - slot.trials.keys(), slot.trials.keys() - done.results.keys() - slot.dropped - {*parked}
        if others or missing:
            what = f"of {min(others)!r}, which it does not train" if others else f"without {min(missing)}"
            self._bad(slot, at, f"the worker sent results {what}")
            return 0
        with self.store.transaction():
            self.settle(slot, at)
            for key, trial in slot.trials.items():
                if key in done.results:
                    self.book.complete(key, done.results[key], trial.charged)
                elif key not in parked or key in slot.dropped:
                    self.book.cancel(key)
        dropped = slot.dropped
        freed = self.backlog.free(slot)
        for trial in (t for t in reversed(freed) if t.id in parked.keys() - done.results.keys() - dropped):
            self.store.event("parked", f"{slot.leaving}: it goes on after {self.states.had(trial)} samples", trial.id)
            self.backlog.again(trial)
        finished = [t for t in freed if t.id in done.results]
        for trial in finished:
            self.book.keep_best(trial.id)
            self.states.supersede(trial)
        self.store.renew_copy()
        return len(finished)

    # -- charging ------------------------------------------------------------------------------

    def until_due(self) -> float:
        """Seconds until running trials are charged next."""
        return max(0.0, self._due - time.monotonic())

    def charge(self, slots: Sequence[Slot]) -> bool:
        """Charge what runs once it is due, and write the points that have come; False when the budget is spent."""
        running = [s for s in slots if s.trials]
        if self.until_due() or not (running or self._steps or self._taken):
            return True
        now = time.monotonic()
        with self.store.transaction():
            self._write()
            for slot in running:
                self._charge(slot, now)
        left = self.accounts.limit - self.accounts.spent()
        self._due = now + min(
            CHARGE, max(0.0, left) / max(1, sum(s.width for s in running))
        )  # soon, when the budget nears its end
        for slot in running:
            self._end_if_hung(slot)
        return left >= 0

    def settle(self, slot: Slot, at: float | None = None) -> None:
        """Write all that is known of what runs on a slot, which ends. at: when, by the engine's clock; None: now."""
        with self.store.transaction():
            self._write()
            self._charge(slot, time.monotonic() if at is None else at)

    def _write(self) -> None:
        steps, self._steps, taken, self._taken = self._steps, [], self._taken, []
        curves.add(self.store, steps)
        usage.add(self.store, taken)

    def _charge(self, slot: Slot, at: float) -> None:
        """Share what the job has used since the last time among its trials that still run."""
        spent = max(0.0, at - slot.began - slot.seconds)
        slot.seconds += spent
        for key, trial in slot.trials.items():
            own = slot.width * spent / len(slot.trials)
            slot.spend(own)
            slot.trials[key] = self.accounts.charge(trial, slot.device, trial.charged + own)

    def _end_if_hung(self, slot: Slot) -> None:
        estimate = sum(t.estimate or SILENCE for t in slot.trials.values()) / slot.width
        if slot.seconds > max(SILENCE, HUNG * estimate) and not isinstance(self.opened.task, Outside):
            self.backlog.lost(slot, f"the trial hangs: {slot.seconds:.0f} s, estimated {estimate:.0f} s")
