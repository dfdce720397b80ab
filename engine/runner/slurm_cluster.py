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
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from pathlib import Path

from engine.base.amounts import format_seconds
from engine.base.errors import StudyError
from engine.base.ids import content_id
from engine.base.listening import listening
from engine.journal.results import Allocated
from engine.runner import slurm_jobs
from engine.runner.device import Bill, Events, Slots, grouped, joint, left_over
from engine.runner.slurm_jobs import Run
from engine.runner.slurm_queue import Seen, SlurmError, SlurmQueue
from engine.runner.slurm_relay import HEAD, HELLO, Link, Relay
from engine.runner.slurm_slot import Job, SlurmSlot
from engine.settings.running import ExecutorSection

POLL = 10.0  # seconds between two looks at the queue
ENDING = 60.0  # seconds in which jobs that are cancelled end
FAILURES = 2  # jobs in a row that end before their workers come, after which no more are submitted
QUIET = frozenset({"None", "", "Priority", "Resources", "BeginTime", "Cleaning"})  # reasons to wait, and no news


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
        self._submitted: dict[str, str] = {}  # id → device, of all jobs of this run
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
        self._tidy()
        threading.Thread(target=self._accept, daemon=True).start()
        threading.Thread(target=self._poll, daemon=True).start()

    def _named(self) -> str:
        """What the study's jobs are called by; those of a copy of its folder are called otherwise."""
        file = self._folder / "name"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(secrets.token_hex(6), encoding="utf-8")
        return content_id([file.read_text(encoding="utf-8")[:100], str(file.resolve())], 12)

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
        self._accepted, job.since, self._submitted[job.id] = True, time.monotonic(), job.device
        self._news.put(f"{job.device}: job {job.id} is submitted")

    def _tidy(self) -> None:
        """Delete what submitit has written for jobs that have ended; their logs stay until the next run."""
        for file in self._folder.iterdir():
            if file.suffix in (".pkl", ".sh") or (not self._accepted and file.suffix == ".out"):
                file.unlink(missing_ok=True)

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
            own = {job.id for job in self.jobs}
            self.cancel([name for name in self._submitted if name not in own and name in seen and seen[name].waits])
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
            link.send(json.dumps({"do": "end"}, allow_nan=False).encode())
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
            return [Bill(run.taken, run.device, run.used, run.final is not None) for run in self._runs]

    def accounted(self, taken: Allocated) -> float | None:
        """See Slots."""
        with suppress(SlurmError):
            seen = self._queue.accounted(taken.job).get(taken.run) or self._queue.jobs().get(taken.job)
            if seen is not None and seen.run == taken.run:
                return taken.devices * seen.seconds
        return None

    def close(self) -> list[str]:
        """See Slots."""
        if self.closing:
            return []
        self.closing = True
        self._wake.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        seen = self.look()
        jobs = {name for name in self._submitted if name not in seen or seen[name].is_there}
        for slot in self:
            slot.kill()
            assert isinstance(slot, SlurmSlot)
            slot.let_go()
        self.cancel(sorted(jobs))
        self._settle(jobs)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()  # it cancels what may have been forgotten
            self._guard.wait()
        self._tidy()
        return list(self._told())

    def _find_others(self, seen: Mapping[str, Seen]) -> None:
        """Runs of which no slot came: a job that was queued again after it was left, or cancelled as it began."""
        known = {(run.job, run.run) for run in self._runs}
        for name, device in self._submitted.items():
            if (last := seen.get(name)) and last.seconds and not last.waits and (name, last.run) not in known:
                run = Run(name, last.run, device, self.settings.devices, time.monotonic())
                run.see(last, self.settings.gpus > 0)
                self._runs.append(run)

    def _settle(self, jobs: set[str]) -> None:
        """Wait until the jobs have ended, and take what they took from the accounting, or the queue."""
        deadline, seen = time.monotonic() + ENDING, self.look()
        while jobs and time.monotonic() < deadline:
            self._take_in(seen)
            if not any(name in seen and seen[name].is_there for name in jobs):
                break
            time.sleep(0.5)
            seen = self.look()
        else:
            if jobs:
                self._news.put(f"jobs do not end: {', '.join(sorted(jobs))}; end them: scancel JOB")
        self._find_others(seen)
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
