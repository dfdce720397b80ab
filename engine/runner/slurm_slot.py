"""A slot in a job of Slurm, and the job: what has become of both."""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from engine.base.paths import ENTRY
from engine.runner.device import Events, Listener, Slot, joint, worker_env
from engine.runner.messages import Unfit
from engine.runner.slurm_jobs import Run
from engine.runner.slurm_queue import Seen
from engine.runner.slurm_relay import END, HEAD, LEAVING, OUTPUT, Link
from engine.settings.running import SlurmSection
from engine.tasks.contract import BARE

WORKER = [sys.executable, str(ENTRY), "worker"]
FATE = 15.0  # seconds in which Slurm says what has become of a job


class Owner(Protocol):
    """Who has the jobs."""

    settings: SlurmSection
    closing: bool

    def submit(self, job: Job) -> None:
        """Submit a job. Raises: StudyError where Slurm has taken none of the run's yet."""

    def look(self) -> Mapping[str, Seen]:
        """The user's jobs as Slurm sees them; none where it does not answer, which is news."""
        ...

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs; that Slurm does not answer is news."""

    def new_run(self, job: Job, run: int) -> Run:
        """A job runs: its account."""
        ...


class SlurmSlot(Slot):
    """Devices in a job, and the worker on them."""

    def __init__(self, job: Job, at: int, names: Sequence[str], log: Path, events: Events, bare: bool) -> None:
        """at: number of the slot in its job. bare: another program trains."""
        super().__init__(f"{job.device}/{joint(names)}", log, events, names)
        self.job, self.at = job, at
        self._env = worker_env(names) | ({BARE: "1"} if bare else {})
        self._lock = threading.RLock()
        self._link: Link | None = None
        self._listener: Listener | None = None
        self._launched = self._wanted = self._asked = False
        self._end: str | None = None

    @property
    def started(self) -> bool:
        """See Slot. In a job that waits in the queue there is no worker."""
        return self._launched

    @property
    def is_linked(self) -> bool:
        """Its job runs, and has come."""
        return self._link is not None

    @property
    def is_wanted(self) -> bool:
        """It was started, and its worker is not there yet."""
        return self._wanted and not self.ready

    def start(self) -> None:
        """See Slot: at once where the job runs, else once it does. Raises: StudyError where Slurm refuses it."""
        with self._lock:
            self._wanted = True
            if self._link is not None:
                self._launch(self._link)
                return
        self.job.ensure()

    def _launch(self, link: Link) -> None:
        if self._launched or self.leaving:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._listener, self._launched, self._asked, self.taken, self._end = self.reborn(), True, False, False, None
        self._say(link, do="start", life=self.life, command=WORKER, env=self._env, log=str(self.log))

    def serve(self, link: Link) -> None:
        """Hear the slot's side of a job that has come, until it goes; in a thread of its own."""
        with self._lock:
            if self._link is not None:
                self._link.close()
            self._link, self.leaving = link, ""
            if self._wanted:
                self._launch(link)
        with suppress(OSError, EOFError, struct.error):
            while True:
                frame = link.receive()
                letter, life = struct.unpack_from(HEAD, frame)
                self._hear(letter, life, frame[struct.calcsize(HEAD) :])
        link.close()
        with self._lock:
            if self._link is not link:
                return  # it was let go
            self._link = None
            launched, listener, run = self._launched and self._end is None, self._listener, self.job.run
        if launched and listener is not None:
            end, self.taken = self.job.fate(run, self.seconds)
            self._end = end
            listener.end()

    def _hear(self, letter: bytes, life: int, content: bytes) -> None:
        if letter == LEAVING:
            self.leaving = content.decode(errors="replace")[:200]
        elif self._listener is not None and life == self.life and self._launched:
            if letter == OUTPUT:
                self._listener.feed(content)
            elif letter == END:
                self._end = content.decode(errors="replace")[:2000]
                self._listener.end()

    def _say(self, link: Link, **content: Any) -> None:
        link.send(json.dumps(content, allow_nan=False).encode())

    def send(self, message: dict[str, Any]) -> None:
        """See Slot."""
        with self._lock:
            if self._link is not None:
                self._say(self._link, do="line", line=json.dumps(message, allow_nan=False))
        self.heard = time.monotonic()

    def leave(self) -> None:
        """Ask the worker once to break off what it trains."""
        if not self._asked:
            self._asked = True
            self.send({"do": "leave"})

    def kill(self) -> None:
        """See Slot. The job goes on, for another worker."""
        with self._lock:
            if self._launched and self._link is not None:
                self._say(self._link, do="kill")
            self._launched = self._wanted = False
            self.reborn()

    def let_go(self) -> None:
        """Leave the job, which ends once all its slots are left."""
        self.kill()
        with self._lock:
            link, self._link, self.leaving = self._link, None, ""
        if link is not None:
            self._say(link, do="end")

    def refuse(self, why: str) -> None:
        """The slot's jobs come to nothing: the scheduler gives it up."""
        self.reborn().post(Unfit(why=why[:2000]))

    def died(self) -> str | None:
        """See Slot."""
        if not self._launched or self._end is None:
            return None
        return self._end if self.taken else f"the worker died ({self._end})"

    def is_stopped(self) -> bool:
        """See Slot."""
        return self.job.seen is not None and self.job.seen.state in ("SUSPENDED", "STOPPED")

    def spend(self, seconds: float) -> None:
        """See Slot."""
        super().spend(seconds)
        if self.job.run is not None:
            self.job.run.used += seconds


class Job:
    """One of the jobs that are there at once; when it has ended, another takes its place.

    id: as Slurm names it; uid: of the submission. run: the last one. seen: what Slurm said last.
    """

    def __init__(self, number: int, owner: Owner) -> None:
        self.device, self._owner = f"slurm{number}", owner
        self.slots: list[SlurmSlot] = []
        self.id: str | None = None
        self.uid = ""
        self.run: Run | None = None
        self.seen: Seen | None = None
        self.since = time.monotonic()  # when it last had something to do
        self.failures = 0

    def ensure(self) -> None:
        """Submit it, unless it is there or waits. Raises: StudyError where Slurm refuses the first one."""
        if self.id is None and not all(slot.lost for slot in self.slots):
            self._owner.submit(self)

    def come(self, run: int) -> None:
        """A slot of it has come: run after run, each with its own account."""
        self.failures = 0
        if self.id is not None and (self.run is None or (self.run.job, self.run.run) != (self.id, run)):
            self.run = self._owner.new_run(self, run)
        if self.run is not None:
            self.run.lost = None  # it was the connection alone

    def fate(self, run: Run | None, worked: float) -> tuple[str, bool]:
        """(What has become of it, whether that is no fault of its trials), once a slot's connection has ended.

        worked: seconds that the slot's trials ran.
        """
        deadline = time.monotonic() + FATE
        seen = None
        while not self._owner.closing and time.monotonic() < deadline:
            seen = self._owner.look().get(run.job) if run else None
            again = seen is not None and run is not None and seen.run > run.run
            if seen is None or seen.waits or again or not seen.is_there:
                break
            time.sleep(0.5)
        name = f"job {run.job}" if run else "its job"
        if seen is None or (seen.is_there and not seen.waits and run is not None and seen.run == run.run):
            return f"the connection to {name} is lost", True
        if seen.waits or (run is not None and seen.run > run.run):
            return f"{name} was preempted, and waits in Slurm's queue again", True
        if seen.state in ("TIMEOUT", "DEADLINE"):
            whole = worked > self._owner.settings.seconds / 2
            return f"{name} ran into its time limit (executor.slurm.time)", not whole
        return f"{name} ended: {seen.state}", seen.state not in ("FAILED", "OUT_OF_MEMORY")

    @property
    def works(self) -> bool:
        """A trial runs in it."""
        return any(slot.trials for slot in self.slots)

    @property
    def is_left(self) -> bool:
        """It is about to end, and nothing runs in it any more."""
        return any(slot.leaving for slot in self.slots) and not self.works

    def let_go(self) -> None:
        """End it, and let another take its place when one is wanted."""
        linked = any(slot.is_linked for slot in self.slots)
        for slot in self.slots:
            slot.let_go()
        if self.id is not None and not linked:
            self._owner.cancel([self.id])
        self.forget()

    def forget(self) -> None:
        """It has ended."""
        self.id, self.seen, self.uid = None, None, ""
