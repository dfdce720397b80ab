"""The ranks of a worker: a process for each device of its slot, forked from the first, which speaks with the engine.

The others get their jobs from it, train with it over `torch.distributed`, and end with it. When one of them fails or
ends, or all wait for each other too long, the first says so in one line, and the engine ends the worker.
"""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

from engine.base.amounts import format_seconds
from engine.base.errors import TrialError
from engine.base.lifetime import end_with
from engine.tasks.contract import BARE
from engine.tasks.shared import sharded

PINS = "DJSB_CORES"  # of the environment: the core of each device
WAIT = "DJSB_RANK_WAIT"  # of the environment: seconds that devices may wait for each other
PATIENCE = 600.0  # seconds, where it does not say
CAUSE = 5.0  # seconds in which a rank's own words arrive, once the others have lost it
Failed = Callable[[str, bool], None]  # takes an error in one line, and whether it is for want of memory


class Ranks:
    """The other ranks, as the first one sees them."""

    def __init__(self, store: int, devices: list[str]) -> None:
        self._store, self._devices = store, devices
        self._jobs: list[Any] = []
        self._said = ["" for _ in devices]  # by each rank: ready or done, last
        self._changed = threading.Condition()
        self._failed: Failed | None = None  # of the job that runs
        self._told = threading.Event()
        self._parted: float | None = None  # when the first rank had done its part of the job that runs

    def listen(self, ranks: list[tuple[int, int, int]]) -> None:
        """Listen to them, each (process, its jobs, its words), until all are ready."""
        for rank, (process, jobs, words) in enumerate(ranks, 1):
            self._jobs.append(os.fdopen(jobs, "w", encoding="utf-8"))
            threading.Thread(target=self._listen, args=(rank, process, words), daemon=True).start()

    def wait_until(self, said: str) -> None:
        """Wait until each of them has said so; one that fails ends this process."""
        with self._changed:
            self._changed.wait_for(lambda: all(word == said for word in self._said[1:]))

    def _listen(self, rank: int, process: int, words: int) -> None:
        with os.fdopen(words, encoding="utf-8") as lines, suppress(ValueError):
            for line in lines:
                told = json.loads(line)
                if told["event"] == "failed":
                    self._fail(f"{self._devices[rank]}: {told['error']}", told["memory"])
                with self._changed:
                    self._said[rank] = told["event"]
                    self._changed.notify_all()
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        self._fail(f"the process of {self._devices[rank]} died (exit code {code})", False)

    def _fail(self, error: str, memory: bool) -> None:
        if self._failed is None:
            print(error, flush=True)  # to the worker's log
            os._exit(1)
        self._failed(error, memory)
        self._told.set()

    def await_cause(self) -> None:
        """Give a rank that failed first the time to say why."""
        self._told.wait(CAUSE)

    @contextmanager
    def on_one_job(self, job: dict[str, Any], failed: Failed) -> Iterator[None]:
        """Within the block all ranks do the job together. failed: takes the error of another one."""
        self._failed, self._parted, count = failed, None, len(self._devices)
        self._said = ["" for _ in self._devices]
        for jobs in self._jobs:
            with suppress(BrokenPipeError):  # its end arrives as its last words
                jobs.write(json.dumps(job, allow_nan=False) + "\n")
                jobs.flush()
        ended = threading.Event()
        threading.Thread(target=self._mind, args=(ended,), daemon=True).start()
        join(0, count, self._store)
        with sharded.together(0, count):
            yield
        self._parted = time.monotonic()
        self.wait_until("done")
        ended.set()
        self._failed = None

    def _mind(self, ended: threading.Event) -> None:
        """Say it when nothing has gone on for too long."""
        while not ended.wait(0.5):
            moved = self._parted or sharded.moved()
            if moved is not None and time.monotonic() - moved > patience():
                self._fail(
                    f"the {len(self._devices)} devices of the trial have waited for each other for "
                    f"{format_seconds(patience())}: one hangs, or is slower by that ({WAIT} allows more)", False,
                )  # fmt: skip
                return


def patience() -> float:
    """Seconds that ranks may wait for each other."""
    return float(os.environ.get(WAIT, PATIENCE))


def split(
    begin: Callable[[], None], work: Callable[[dict[str, Any]], None], memory: Callable[[Exception], bool]
) -> Ranks | None:
    """Fork a process for each further device of this worker; None where it has one, or another program trains.

    begin: what a process does before it is ready. work: does a job together with the first rank. memory: whether an
    error is for want of it. Called before there are threads; returns in the first rank only.
    """
    devices = os.environ.get("DJSB_DEVICES", "").split()
    if len(devices) < 2 or BARE in os.environ:
        return None
    store, first = os.memfd_create("djsb-ranks"), os.getpid()  # where the ranks find each other
    ranks: list[tuple[int, int, int]] = []
    for rank in range(1, len(devices)):
        (read_jobs, write_jobs), (read_words, write_words) = os.pipe(), os.pipe()
        if (process := os.fork()) == 0:
            end_with(first)
            for ours in (write_jobs, read_words, *(number for _, *other in ranks for number in other)):
                os.close(ours)
            _be(rank, devices)
            _follow(rank, len(devices), store, (read_jobs, write_words), begin, work, memory)
        os.close(read_jobs)
        os.close(write_words)
        ranks.append((process, write_jobs, read_words))
    _be(0, devices)
    found = Ranks(store, devices)
    found.listen(ranks)
    return found


def _be(rank: int, devices: list[str]) -> None:
    """Take one of the worker's devices."""
    os.environ["DJSB_DEVICE"] = devices[rank]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[rank]
    if cores := os.environ.get(PINS):
        os.sched_setaffinity(0, {int(cores.split()[rank])})


def _follow(
    rank: int, count: int, store: int, pipes: tuple[int, int], begin: Callable[[], None],
    work: Callable[[dict[str, Any]], None], memory: Callable[[Exception], bool],
) -> NoReturn:  # fmt: skip
    """Do the jobs that the first rank passes on, until it ends. After an error the others cannot go on: end as well."""
    jobs, words = (os.fdopen(number, mode, encoding="utf-8") for number, mode in zip(pipes, "rw", strict=True))

    def say(**content: Any) -> None:
        words.write(json.dumps(content, allow_nan=False) + "\n")
        words.flush()

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    code = 0
    try:
        begin()
        say(event="ready")
        for line in jobs:
            join(rank, count, store)
            with sharded.together(rank, count):
                work(json.loads(line))
            say(event="done")
    except Exception as error:  # the process border: the first rank passes it on
        traceback.print_exc()
        say(event="failed", error=one_line(error), memory=memory(error))
        code = 1
    os._exit(code)


def one_line(error: Exception) -> str:
    """An error as the engine is told it."""
    from engine.base.errors import DjsbError

    text = str(error) if isinstance(error, DjsbError) else f"{type(error).__name__}: {error}"
    return (text.splitlines() or [type(error).__name__])[0][:2000]


def join(rank: int, count: int, store: int) -> None:
    """Connect with the other ranks, once: over NCCL on GPUs, over gloo on CPUs. Raises: TrialError."""
    from torch import cuda, distributed

    if distributed.is_initialized():
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    limit = timedelta(seconds=2 * patience())  # the first rank says it before
    try:
        distributed.init_process_group(
            "nccl" if cuda.is_available() else "gloo", rank=rank, world_size=count, timeout=limit,
            store=distributed.FileStore(f"/proc/self/fd/{store}", count),  # type: ignore[attr-defined]
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise TrialError(f"the {count} devices of the trial cannot reach each other: {one_line(error)}") from error
