"""Devices in jobs of a Slurm cluster: each job is a share of a node, whose slots train one trial after another.

The engine runs where jobs are submitted, and listens; a job's relay connects, starts a worker for each slot and passes
on its messages (slurm_relay.py). What must hold: jobs can reach the engine's machine, and the study's folder, its data
and djsb lie on a file system that all nodes see under the same path.

Near the end of its time, and when it is preempted, a job is left: what trains is broken off in a state from which it
goes on in another job. A job that Slurm queues again comes back by itself; one that has ended is submitted anew.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from pathlib import Path
from typing import Any

from engine.base.amounts import format_seconds
from engine.base.errors import StudyError
from engine.base.listening import listening
from engine.base.paths import ENTRY
from engine.runner import slurm_jobs
from engine.runner.device import Bill, Events, Listener, Slot, Slots, grouped, joint, left_over, worker_env
from engine.runner.messages import Unfit
from engine.runner.slurm_jobs import Run
from engine.runner.slurm_queue import Seen, SlurmError, SlurmQueue
from engine.runner.slurm_relay import END, HEAD, HELLO, LEAVING, OUTPUT, Link, Relay
from engine.settings.running import ExecutorSection
from engine.tasks.contract import BARE

WORKER = [sys.executable, str(ENTRY), "worker"]
POLL = 10.0  # seconds between two looks at the queue
FATE = 15.0  # seconds in which Slurm says what has become of a job
ENDING = 60.0  # seconds in which jobs that are cancelled end
FAILURES = 2  # jobs in a row that end before their workers come, after which no more are submitted
QUIET = frozenset({"None", "", "Priority", "Resources", "BeginTime", "Cleaning"})  # reasons to wait, and no news


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
        with suppress(OSError, EOFError):
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

    def __init__(self, number: int, owner: SlurmSlots) -> None:
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


class SlurmSlots(Slots):
    """The slots of all jobs of a run."""

    eager = False

    def __init__(
        self, executor: ExecutorSection, workers: int | None, logs: Path, events: Events, each: int, bare: bool,
        ask: SlurmQueue,
    ) -> None:  # fmt: skip
        """each: devices of a slot. Raises: StudyError where a job has too few devices for one."""
        super().__init__()
        self.settings, self._queue = executor.slurm, ask
        self._folder = logs.parent / "slurm"
        self._study = self._named()
        self.name = f"djsb-{self._study}-{secrets.token_hex(4)}"
        self._key = secrets.token_bytes(32)
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._runs: list[Run] = []
        self._lock = threading.Lock()
        self._guard: subprocess.Popen[bytes] | None = None
        self._said: set[str] = set()
        self._accepted = False  # whether Slurm has taken a job
        self.closing = False
        kind = "gpu" if self.settings.gpus else "cpu"
        names = [f"{kind}{number}" for number in range(self.settings.devices)]
        slurm_jobs.asked_for(self.settings, workers, each)
        if idle := left_over(names, each):
            self._news.put(f"in each job {idle}")
        self.jobs = [Job(number, self) for number in range(slurm_jobs.jobs_at_once(self.settings, workers))]
        for job in self.jobs:
            for at, some in enumerate(grouped(names, each)):
                log = logs / f"worker-{job.device}-{joint(some)}.log"
                job.slots.append(SlurmSlot(job, at, some, log, events, bare))
            self.extend(job.slots)
        self._widths = [slot.width for slot in self.jobs[0].slots]
        self._socket, self._addresses = _reachable(executor.address)
        self._wake = threading.Event()
        self._end_stale()
        threading.Thread(target=self._accept, daemon=True).start()
        threading.Thread(target=self._poll, daemon=True).start()

    def _named(self) -> str:
        """What the study's jobs are called by, whatever its folder is."""
        file = self._folder / "name"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(secrets.token_hex(6), encoding="utf-8")
        return "".join(c for c in file.read_text(encoding="utf-8")[:12] if c.isalnum())

    # -- jobs ----------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Submit a job. Raises: StudyError where Slurm has taken none of the run's yet."""
        self._watch_over()
        job.uid = secrets.token_hex(8)
        try:
            relay = Relay(self._addresses, self._key, job.uid, self._widths)
            job.id = slurm_jobs.submitted(relay, self.settings, self._folder, self.name)
        except StudyError as error:
            job.forget()
            if not self._accepted:
                raise
            for slot in job.slots:
                slot.refuse(str(error))
            return
        self._accepted, job.since = True, time.monotonic()
        self._news.put(f"{job.device}: job {job.id} is submitted")

    def _watch_over(self) -> None:
        """Have a process of its own cancel the jobs when this one is gone, whatever ended it."""
        if self._guard is None:
            script = 'cat > /dev/null; exec scancel --quiet --user="$1" --name="$2"'
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", script, "sh", str(os.getuid()), self.name],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def _end_stale(self) -> None:
        """End jobs of an earlier run of the study. Raises: StudyError where they do not end."""
        deadline = time.monotonic() + ENDING
        told = False
        while stale := [
            s.job for s in self.look().values() if s.is_there and s.name.startswith(f"djsb-{self._study}-")
        ]:
            if not told:
                self._news.put(f"jobs of an earlier run were still there, and are cancelled: {', '.join(stale)}")
                self.cancel(stale)
                told = True
            if time.monotonic() > deadline:
                raise StudyError(f"jobs of an earlier run do not end: {', '.join(stale)}; end them: scancel JOB")
            time.sleep(0.5)

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs; that Slurm does not answer is news."""
        try:
            self._queue.cancel(jobs)
        except SlurmError as error:
            self._tell_once(str(error))

    def look(self) -> dict[str, Seen]:
        """The user's jobs as Slurm sees them; none where it does not answer, which is news."""
        try:
            return self._queue.jobs()
        except SlurmError as error:
            self._tell_once(str(error))
            return {}

    def _tell_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._news.put(text)

    def new_run(self, job: Job, run: int) -> Run:
        """A job runs: its account."""
        assert job.id is not None
        found = Run(job.id, run, job.device, self.settings.devices, time.monotonic())
        with self._lock:
            self._runs.append(found)
        again = f", for the {run + 1}. time" if run else ""
        self._news.put(f"{job.device}: job {job.id} runs{again}")
        self._wake.set()
        return found

    def _poll(self) -> None:
        """Look at the queue, again and again, in a thread of its own."""
        while not self.closing:
            self._wake.wait(POLL)
            self._wake.clear()
            if self.closing:
                return
            try:
                seen = self._queue.jobs()
            except SlurmError as error:
                self._tell_once(str(error))
                continue
            self._take_in(seen)
            for job in self.jobs:
                self._look_at(job, seen)

    def _take_in(self, seen: dict[str, Seen]) -> None:
        with self._lock:
            runs = [run for run in self._runs if run.final is None]
        for run in runs:
            now = seen.get(run.job)
            if now is not None and now.run == run.run and not now.waits:
                run.see(now, self.settings.gpus > 0)
            elif now is None or now.run > run.run:  # over; how long it took is known by the clock, or by the accounting
                run.lost = run.lost or time.monotonic()

    def _look_at(self, job: Job, seen: dict[str, Seen]) -> None:
        name = job.id
        if name is None:
            return
        job.seen = seen.get(name)
        if job.seen is not None and job.seen.is_there:
            if job.seen.waits and job.seen.reason not in QUIET:
                self._tell_once(f"{job.device}: job {name} waits in Slurm's queue: {job.seen.reason}")
            return
        if time.monotonic() - job.since < POLL and job.seen is None:
            return  # too new to be seen
        came = job.run is not None and job.run.job == name
        how = job.seen.state if job.seen else "gone"
        job.failures = 0 if came else job.failures + 1
        if not came and job.failures >= FAILURES:
            for slot in job.slots:
                slot.refuse(f"job {name} ended ({how}) before its workers came; see {self._folder}/{name}_0_log.out")
        job.forget()

    # -- connections ---------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self.closing:
            try:
                end, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(end,), daemon=True).start()

    def _greet(self, end: socket.socket) -> None:
        """Find out which slot has come, and serve it."""
        try:
            link = Link(end, self._key, first=True)
            frame = link.receive()
            hello = json.loads(frame[struct.calcsize(HEAD) :]) if struct.unpack_from(HEAD, frame)[0] == HELLO else {}
        except (OSError, EOFError, AuthenticationError, ValueError):
            end.close()
            return
        job = next((j for j in self.jobs if j.uid == hello.get("uid")), None)
        while job is not None and job.id is None and job.uid:  # sbatch has not answered yet
            time.sleep(0.1)
        if job is None or self.closing or not job.uid:
            link.send(json.dumps({"do": "end"}).encode())
            link.close()
            return
        job.come(int(hello["run"]))
        run = job.run
        job.slots[hello["slot"]].serve(link)
        if run is not None and not any(slot.is_linked for slot in job.slots):
            run.lost = time.monotonic()
            self._wake.set()

    # -- the scheduler's side ------------------------------------------------------------------

    def tend(self, busy: bool) -> list[str]:
        """See Slots."""
        now = time.monotonic()
        for job in self.jobs:
            for slot in job.slots:
                if slot.leaving and slot.trials:
                    slot.leave()
                elif slot.leaving and not slot.is_linked:
                    slot.leaving = ""
            if busy or job.works:
                job.since = now
            if job.id is None:
                continue
            if all(slot.lost for slot in job.slots):
                job.let_go()
            elif job.is_left:
                self._news.put(f"{job.device}: job {job.id} is left")
                job.let_go()
            elif now - job.since > self.settings.idle:
                self._news.put(f"{job.device}: job {job.id} is let go, as no trial waits for it")
                job.let_go()
        return list(self._told())

    def _told(self) -> Iterator[str]:
        while not self._news.empty():
            yield self._news.get()

    def bills(self) -> list[Bill]:
        """See Slots."""
        with self._lock:
            return [Bill(r.key, r.device, r.devices * r.seconds, r.used, r.final is not None) for r in self._runs]

    def close(self) -> list[str]:
        """See Slots."""
        if self.closing:
            return []
        self.closing = True
        self._wake.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            jobs = {run.job for run in self._runs if run.final is None} | {job.id for job in self.jobs if job.id}
        for slot in self:
            slot.kill()
            assert isinstance(slot, SlurmSlot)
            slot.let_go()
        self.cancel(sorted(jobs))
        self._settle(jobs)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()  # it cancels what may have been forgotten
            self._guard.wait()
        return list(self._told())

    def _settle(self, jobs: set[str]) -> None:
        """Wait until the jobs have ended, and take what they took from the accounting, or the queue."""
        deadline = time.monotonic() + ENDING
        while jobs and time.monotonic() < deadline:
            seen = self.look()
            self._take_in(seen)
            if not any(name in seen and seen[name].is_there for name in jobs):
                break
            time.sleep(0.5)
        else:
            if jobs:
                self._news.put(f"jobs do not end: {', '.join(sorted(jobs))}; end them: scancel JOB")
        for run in self._runs:
            with suppress(SlurmError):
                if (accounted := self._queue.accounted(run.job).get(run.run)) is not None:
                    run.see(accounted, self.settings.gpus > 0)
                    run.final = accounted.seconds, "sacct"
            run.final = run.final or (run.seconds, "the engine's clock")
            taken = f"{run.devices} device(s) for {format_seconds(run.final[0])}, as {run.final[1]} says"
            self._news.put(f"{run.device}: job {run.job} took {taken}; {format_seconds(run.used)} of it was work")


def _reachable(address: str | None) -> tuple[socket.socket, list[tuple[str, int]]]:
    """A socket that jobs can reach, and what they find it by. address: HOST or HOST:PORT, or None.

    Raises: StudyError where the port is no number; ListenError where it is taken.
    """
    host, _, port = (address or "").partition(":")
    if port and not port.isdigit():
        raise StudyError(f"executor.address: {address} is not HOST or HOST:PORT of this machine, as login1:7000")
    found = listening("0.0.0.0", int(port or 0))
    number = found.getsockname()[1]
    names = [host] if host else [socket.gethostname(), socket.getfqdn(), *_own_addresses()]
    return found, [(name, number) for name in dict.fromkeys(names)]


def _own_addresses() -> Iterator[str]:
    """This machine's addresses, but those of itself alone."""
    with suppress(OSError):
        for *_, address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM):
            if not str(address[0]).startswith("127."):
                yield str(address[0])
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        outward.connect(("192.0.2.1", 9))  # nothing is sent: it tells which address would be used
        yield str(outward.getsockname()[0])


@contextmanager
def slurm_slots(
    executor: ExecutorSection, workers: int | None, logs: Path, events: Events, each: int = 1, bare: bool = False
) -> Iterator[SlurmSlots]:  # fmt: skip
    """The slots of the run's jobs, which end with the block. See SlurmSlots."""
    slots = SlurmSlots(executor, workers, logs, events, each, bare, SlurmQueue())
    try:
        yield slots
    finally:
        slots.close()
