"""The scheduler: trials over worker processes, one slot per GPU or per CPU core, one queue for all.

It is the only writer of trials and costs. What a trial has used is charged as it runs, under
(trial, attempt), so that a kill at any moment charges nothing twice. Trials of equal length may be
packed: trained together by one worker, each charged its share.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from engine.base.amounts import format_seconds, parse_budget
from engine.base.arrays import as_npy
from engine.base.confine import inside, remove
from engine.base.errors import BudgetError, TrialError
from engine.journal import results
from engine.journal.requests import Request
from engine.journal.trials import QueuedTrial
from engine.records.trial import FRESH
from engine.runner.accounts import Accounts, Balance
from engine.runner.backlog import RETRIES, Backlog
from engine.runner.device import QUEUE, Arrival, Events, Slot, Slots, new_events
from engine.runner.devices import open_slots
from engine.runner.hearing import CHARGE, Hearing
from engine.runner.inbox import Inbox
from engine.runner.mapped_rows import MappedRows
from engine.runner.messages import Bad, Done, Failed, Note, Ready, Unfit
from engine.runner.training_states import TrainingStates
from engine.runner.trial_book import TrialBook
from engine.runner.watch import Watch
from engine.study.opened import OpenStudy
from engine.tasks.contract import Job, Outside, Part

TICK = 0.2  # seconds between two looks at what else there is to do


@dataclass
class Scheduler:
    """Runs approved trials until none is left, the budget is spent, or a stop is asked for.

    watch: called after every event, for progress. stopping: start nothing more; aborting: also end
    what runs; paused: start nothing until it is lifted. note: why the budget ended the run.
    """

    opened: OpenStudy
    limit: float
    slots: Slots
    events: Events
    watch: Callable[[Scheduler], None] = lambda _: None
    stopping: bool = False
    aborting: bool = False
    paused: bool = False
    note: str = ""
    stage: str = ""
    finished: int = 0

    def __post_init__(self) -> None:
        self.store = self.opened.store
        self.backlog = Backlog()
        self.waiting = self.backlog.waiting
        self.enter(self.opened)
        self.inbox = Inbox(self.store)
        self.workers = Watch(self.store, self.slots)
        self.charging, self._billed = True, 0.0
        self._tell("running")

    def enter(self, opened: OpenStudy) -> None:
        """Go on with another cycle of the study, on the same workers."""
        self.opened = opened
        self.accounts = Accounts(opened, self.limit)
        self.book = TrialBook(opened)
        self.states = TrainingStates(opened)
        self.backlog.enter(opened, self.book, self.states)
        self.hearing = Hearing(opened, self.accounts, self.book, self.states, self.backlog)
        self.mapped = MappedRows(opened, self.accounts)

    def balance(self) -> Balance:
        """What is spent, what runs, what is left."""
        return self.accounts.balance(t for s in self.slots for t in s.trials.values())

    @property
    def unfinished(self) -> int:
        """Trials that run or wait."""
        return len(self.waiting) + sum(len(s.trials) for s in self.slots)

    def calibrate(self, charge: bool = True, flops: bool = False) -> None:
        """Measure a few steps on the first device, once per setup; the time is charged, unless only a plan is made.

        flops: count those of a trained sample, too; packs are not timed then, as few trials follow.
        """
        self.charging = charge
        task = self.opened.task
        if isinstance(task, Outside):
            self.accounts.expect(task.expected(self.opened.study), self.opened.pool_size)
            return
        before = self.accounts.calibration
        timed = before is None or (before.alone and not flops)
        counted = flops and (before is None or before.flops is None)
        if not timed and not counted:
            return
        samples = round(self.opened.pool_size * self.opened.epochs)
        asked = {"timed": timed, "packs": not flops, "flops": counted, "samples": samples}
        done, seconds = self.alone("calibrate", "the calibration", **asked)
        first = self.slots[0]
        calibration = done.calibration.added_to(before, first.device, first.width) if done.calibration else None
        if calibration is None:
            raise TrialError(f"the calibration failed: the worker measured nothing; see {self.slots[0].log}")
        with self.store.transaction():
            results.CALIBRATION.put(self.store, self.opened.setup, calibration)
            if charge:
                self.accounts.charge_once("calibration", self.slots[0].device, seconds, again=before is not None)

    def score(self, checkpoint: Path, file: Path) -> None:
        """Let the first device score all training rows by a checkpoint, into a file; the time is charged."""
        _, seconds = self.alone("score", "scoring the rows", checkpoint=str(checkpoint), file=str(file))
        with self.store.transaction():
            self.accounts.charge_once("model_scores", self.slots[0].device, seconds)

    def alone(self, do: str, what: str, **content: Any) -> tuple[Done, float]:
        """Have the first worker do something that is no trial, while nothing else runs; what it came to, and seconds.

        It is tried again as a trial is. what: names it in errors. Raises: TrialError.
        """
        message = self._message(do, **content)
        left = RETRIES
        while True:
            there = [s for s in self.slots if not s.lost and not s.leaving] or [*self.slots]
            slot = next((s for s in there if s.ready), there[0])
            try:
                done, seconds = self._alone(slot, message)
                slot.spend(seconds)
                return done, seconds
            except TrialError as error:
                slot.kill()
                text = f"{what} failed: {error}; see {slot.log}"
                if (not left and not slot.taken) or all(s.lost for s in self.slots):
                    raise TrialError(text) from error
                left -= not slot.taken
                self.store.event("crash", f"{text}; it is tried again", slot.device, "error")

    def _alone(self, slot: Slot, message: dict[str, Any]) -> tuple[Done, float]:
        """Once. Raises: TrialError; KeyboardInterrupt when the engine is to end at once."""
        if slot.ready:
            self._give(slot, message)
        elif not slot.started:
            slot.start()
        while not self.aborting:
            self.workers.look()
            self._tend(busy=True)
            for arrival in self._arrived():
                answer = arrival.message
                if arrival.slot is not slot or arrival.life != slot.life:
                    self.hearing.hear(arrival)  # a worker that was started for trials before
                elif isinstance(answer, Ready) and not slot.ready:
                    slot.ready = True
                    self._give(slot, message)
                elif isinstance(answer, Done):
                    return answer, slot.width * (arrival.at - slot.began)
                elif isinstance(answer, Note):
                    self.hearing.hear(arrival)
                elif isinstance(answer, Failed):
                    raise TrialError(answer.error)
                elif isinstance(answer, Unfit):
                    slot.lost, slot.why = True, answer.why
                    raise TrialError(answer.why)
                else:
                    raise TrialError(answer.why if isinstance(answer, Bad) else slot.died() or "the worker is gone")
            if why := self.workers.silence(slot):
                raise TrialError(why)
        raise KeyboardInterrupt

    def run(self, stage: str, proposals: list[str], cap: float) -> str:
        """Run the waiting trials of the given proposals; why it ended: `done`, `budget` or `stopped`.

        cap: device-seconds that may be spent in all when the stage ends; at most the limit.
        """
        self.stage, self.finished, self.note = stage, 0, ""
        self.accounts.cap = min(cap, self.limit)
        self.waiting.clear()
        self.waiting.extend(self.book.waiting(proposals))
        self.note = self.mapped.ensure(self.waiting, self._asked_to_stop)
        try:
            while (self.waiting and not self.stopping and not self.note) or (self._running() and not self.aborting):
                self.obey()
                self._welcome()
                if not (self.stopping or self.note or self.paused):
                    self._fill()
                self._turn()
                self.watch(self)
        finally:
            for slot in self._running():  # idle workers stay for the next round
                self._rescind(slot, "the engine was stopped")
        return "stopped" if self.stopping else "budget" if self.note else "done"

    def _asked_to_stop(self) -> bool:
        self.obey()
        return self.stopping

    def obey(self) -> None:
        """Do what a UI has asked for since the last look."""
        for request in self.inbox.read():
            self.inbox.answer(request, self._obeyed(request))

    def _obeyed(self, request: Request) -> str:
        """Do what one request asks for; what came of it, as the record says."""
        if request.kind == "pause":
            self.paused = True
            self._tell("paused")
            return "running trials finish, nothing more starts"
        if request.kind == "resume":
            self.paused = False
            self._tell("running")
            return "goes on"
        if request.kind == "stop":
            self.stopping = True
            return "running trials finish, then the engine ends"
        if request.kind == "cancel":
            return self.cancel(request.argument or "")
        try:
            self.set_limit(parse_budget(request.argument or ""))
        except BudgetError as error:
            return str(error)
        return "from now on"

    def _tell(self, state: Literal["running", "paused"]) -> None:
        """Say in the database whether the engine is paused."""
        results.ENGINE.put(self.store, self.opened.setup, state)

    def cancel(self, trial: str) -> str:
        """Take a trial out for good, whether it waits or runs; what came of it. What it used stays charged."""
        if row := next((t for t in self.waiting if t.id == trial), None):
            self.waiting.remove(row)
            self.book.cancel(trial)
            return "taken out of the queue"
        slot = next((s for s in self.slots if trial in s.trials), None)
        if slot is None:
            return "it neither runs nor waits"
        if len(slot.trials) > 1:
            slot.dropped.add(trial)
            slot.send({"do": "drop", "trials": [trial]})
            return "it leaves its pack"
        self.hearing.settle(slot)
        slot.kill()
        self.backlog.free(slot)
        self.book.cancel(trial)
        return "it was ended"

    def set_limit(self, seconds: float) -> None:
        """Another budget from now on, in device-seconds; the stage keeps its share of it."""
        share = self.accounts.cap / self.limit
        self.limit = self.accounts.limit = seconds
        self.accounts.cap = share * seconds
        results.BUDGET.put(self.store, self.opened.setup, seconds)

    def _running(self) -> list[Slot]:
        return [s for s in self.slots if s.trials]

    # -- starting ------------------------------------------------------------------------------

    def _welcome(self) -> None:
        """Say which devices have joined; they take trials from now on."""
        for slot in self.slots.joined():
            self.store.event("joined", "it has joined, and takes trials from now on", slot.device)

    def _fill(self) -> None:
        """Start waiting trials on idle devices, while the budget allows."""
        if all(s.lost for s in self.slots):
            why = "; ".join(dict.fromkeys(s.why for s in self.slots if s.why))
            told = f" ({why})" if why else ""
            raise TrialError(f"every device is lost{told}; bring one back, then the same command goes on")
        for slot in self.slots:
            if not self.waiting:
                return
            if slot.trials or slot.lost or slot.leaving:
                continue
            if not slot.started and (self.slots.eager or self._has_work_for_another()):
                slot.start()
            if not slot.ready:
                continue
            estimate = self.accounts.estimate(self.waiting[0].samples - self.states.had(self.waiting[0]))
            pack = self._next_pack(estimate)
            if not pack:
                if not self._running():
                    left = self.balance().left
                    self.note = (
                        f"the budget ends here: a trial takes about {format_seconds(estimate or 0)} "
                        f"and {format_seconds(left)} of {format_seconds(self.limit)} are left"
                    )
                return
            self._launch(slot, pack, estimate)

    def _has_work_for_another(self) -> bool:
        """More trials wait than the devices that are on their way will take."""
        return len(self.waiting) > self._pack_size() * sum(s.is_wanted for s in self.slots)

    def _pack_size(self) -> int:
        """How many trials a worker trains at once: the fastest of the calibration, or less once memory ran out."""
        if self.backlog.micro is not None:
            return 1  # micro-batches go through one model at a time
        calibration = self.accounts.calibration
        fastest = calibration.fastest_pack if calibration else 1
        return max(1, min(fastest, self.backlog.pack or fastest))

    def _next_pack(self, estimate: float | None) -> list[QueuedTrial]:
        """The trials to start next on one device: equally long, few enough for the budget and to leave others some."""
        first = self.waiting[0]
        kind = self._length(first)
        alike = [t for t in self.waiting if self._length(t) == kind]
        idle = sum(not s.lost and not s.trials for s in self.slots)
        rounds = math.ceil(len(alike) / (idle * self._pack_size()))
        size = math.ceil(len(alike) / (idle * rounds))  # so that all devices end together
        if self.backlog.failures[first.id]:
            alike, size = [first], 1  # one that failed is tried alone
        else:
            alike = [t for t in alike if not self.backlog.failures[t.id]]
        if estimate:
            size = min(size, int(self.balance().left / estimate))
        chosen = alike[:size]
        for trial in chosen:
            self.waiting.remove(trial)
        return chosen

    def _length(self, trial: QueuedTrial) -> tuple[Any, ...]:
        """What trials of one pack have in common."""
        prepared = self.mapped.prepared(trial)
        return trial.samples, trial.horizon, trial.init, self.states.had(trial), prepared

    def _launch(self, slot: Slot, pack: list[QueuedTrial], estimate: float | None) -> None:
        with self.store.transaction():
            for trial in pack:
                resumed = self.states.had(trial)
                slot.trials[trial.id] = self.book.launch(trial, slot.device, estimate, resumed)
        jobs = [asdict(self._job(t)) for t in pack]
        self._give(slot, self._message("trials", self.mapped.prepared(pack[0]), jobs=jobs))

    def _give(self, slot: Slot, message: dict[str, Any]) -> None:
        slot.began, slot.seconds = time.monotonic(), 0.0
        slot.send(message)

    def _job(self, trial: QueuedTrial) -> Job:
        """The trial as its worker gets it; writes its rows."""
        rows = self.opened.realise(trial.rows, trial.seed)
        file = inside(self.opened.state, f"rows/{trial.id}.npy")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(as_npy(rows))
        output = self.opened.checkpoint(trial.id)
        output.parent.mkdir(exist_ok=True)
        remove(self.opened.state, f"checkpoints/{trial.id}")
        init = str(self.opened.checkpoint(trial.init)) if trial.init else None
        keep = self.book.wants_checkpoint(trial)
        return Job(
            trial.id, str(file), trial.samples, trial.seed, init, str(output) if keep else "", self.backlog.micro,
            trial.horizon, self.states.before(trial), self.states.after(trial),
            *self.judged(trial.seed), self.states.within(trial),
        )  # fmt: skip

    def judged(self, seed: int) -> tuple[Part, str | None]:
        """(the part of the evaluation that trials of a seed are judged on, file with the mask of its rows)."""
        if not self.opened.held_back:
            return "all", None
        part: Part = "held back" if seed >= FRESH else "search"
        file = self.opened.items_file(part)
        return part, str(file) if file else None

    def _message(self, do: str, prepared: Path | None = None, **content: Any) -> dict[str, Any]:
        """A job for a worker. prepared: caches other than those of the study's own rows."""
        study = self.accounts.study.model_dump(mode="json")
        return {"do": do, "study": study, "prepared": str(prepared or self.opened.prepared), **content}

    # -- hearing -------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Take in what has arrived, charge what runs, and find workers that have gone silent."""
        self.workers.look()
        self._tend(busy=bool(self.waiting) and not (self.stopping or self.paused or self.note))
        for arrival in self._arrived():
            self.finished += self.hearing.hear(arrival)
        for slot in self.slots:
            if (slot.trials or not slot.ready) and (why := self.workers.silence(slot)):
                self.backlog.lost(slot, why)
        if not self.hearing.charge(self.slots):
            self.note = f"the budget of {format_seconds(self.limit)} is spent"
            for slot in self._running():
                self._rescind(slot, "the budget is spent")

    def _tend(self, busy: bool) -> None:
        """Let the devices keep house, and charge what others account for them."""
        self._tell_of(self.slots.tend(busy))
        if time.monotonic() - self._billed >= CHARGE:
            self.bill()

    def _tell_of(self, lines: list[str]) -> None:
        for line in lines:
            self.store.event("slurm", line)

    def bill(self) -> None:
        """Charge what others account for the devices, as far as it is known."""
        self._billed = time.monotonic()
        if self.charging and (bills := self.slots.bills()):
            with self.store.transaction():
                self.accounts.charge_bills(bills)

    def settle(self) -> None:
        """Charge what jobs of an engine that was killed took beyond what it could charge."""
        with self.store.transaction():
            for job, seconds in self.accounts.charge_rest(self.slots.accounted):
                self.store.event("slurm", f"job {job} took {format_seconds(seconds)} more than its engine could charge")

    def close(self) -> None:
        """End the workers, and settle what they took."""
        self.workers.pulse.stop()
        self._tell_of(self.slots.close())
        self.bill()

    def _arrived(self) -> Iterator[Arrival]:
        """Messages that have come, after a while of waiting for the first."""
        with suppress(queue.Empty):
            yield self.events.get(timeout=min(TICK, self.hearing.until_due()) if self._running() else TICK)
            for _ in range(QUEUE):
                yield self.events.get_nowait()

    def _rescind(self, slot: Slot, why: str) -> None:
        self.hearing.settle(slot)
        self.backlog.rescind(slot, why)


@contextmanager
def scheduler(opened: OpenStudy, limit: float, workers: int | None) -> Iterator[Scheduler]:
    """A scheduler whose workers end with the block. workers: most devices to use, or None for all.

    Raises: StudyError when they are too few for a trial.
    """
    if limit <= 0:
        raise BudgetError("the budget must be above 0")
    events = new_events()
    task = opened.task if opened.study.task else None
    extra = task.environment(opened.study) if isinstance(task, Outside) else None

    def tell(text: str) -> None:
        opened.store.event("cluster", text, level="warning")

    study, logs = opened.study, opened.state / "logs"
    with open_slots(study.executor, workers, logs, events, tell, extra, study.devices_per_trial) as slots:
        found = Scheduler(opened, limit, slots, events)
        found.workers.pulse.start()
        found.settle()
        try:
            yield found
        finally:
            found.close()
