"""Chunks of work over worker processes; results come back as they finish."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from multiprocessing import forkserver, resource_tracker
from multiprocessing.queues import SimpleQueue
from typing import Protocol, TypeVar

from engine.base import lifetime
from engine.base.errors import MachineError
from engine.base.paths import HOME

Job = TypeVar("Job")
Result = TypeVar("Result")
RETRIES = 1  # times that work is taken up again after a process was killed
PRELOAD = ["engine.data.warm"]  # modules that the server imports for all workers


WORKER_DIED = "a data worker died, most often for want of memory; lower --workers and run the same command again"


class Elsewhere(Protocol):
    """Workers that are not this machine's own, as those of a cluster."""

    def gpus(self) -> tuple[str, ...]:
        """The GPUs that they have."""
        ...

    def run(self, work: Callable[[Job], Result], jobs: Sequence[Job], on_gpus: bool) -> Iterator[Result]:
        """See `run_chunks`."""
        ...


_elsewhere: ContextVar[Elsewhere | None] = ContextVar("elsewhere", default=None)
_place = ""


@contextmanager
def done_elsewhere(workers: Elsewhere) -> Iterator[None]:
    """What `run_chunks` is given within the block goes to these workers."""
    token = _elsewhere.set(workers)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def workers_elsewhere() -> Elsewhere | None:
    """Those that work goes to now, or None."""
    return _elsewhere.get()


def take_place(name: str) -> None:
    """Let this process, a worker elsewhere, have a place; empty: none."""
    global _place
    _place = os.environ["CUDA_VISIBLE_DEVICES"] = name


def place() -> str:
    """The place that this worker process has for itself, as a GPU; empty where it has none."""
    return _place


def _begin(owner: str, places: SimpleQueue[str] | None) -> None:
    """Prepare a worker process; it takes one of the places."""
    _end_with(owner)
    if places is not None:
        take_place(places.get())


def _end_with(owner: str) -> None:
    """End this process when its owner has ended: its own parent is the server that it was forked from."""

    def watch() -> None:
        while lifetime.lives(owner):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def warm_up(preload: Sequence[str] = PRELOAD) -> None:
    """Start the server that workers are forked from; it imports Data-Juicer while the caller goes on.

    preload: modules that it imports instead. A server that runs already stays as it is.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(preload))
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
    # the server takes its path from these: a user's engine/ in the working directory must not shadow ours
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HOME), before["PYTHONPATH"])))
    os.environ["PYTHONSAFEPATH"] = "1"
    resource_tracker.ensure_running()
    # the server and all that is forked from it inherit that Ctrl-C, the engine's, is blocked, and that nobody reads
    # their standard error: what goes wrong in them comes back as an exception
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    told, nobody = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nobody, 2)
    try:
        forkserver.ensure_running()
    finally:
        os.dup2(told, 2)
        os.close(told)
        os.close(nobody)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def crew(workers: int, preload: Sequence[str]) -> ProcessPoolExecutor:
    """Processes that end with this one, for work that is asked for piece by piece. preload: modules that it needs."""
    warm_up(preload)
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(workers, context, _end_with, (lifetime.mark(),))


def run_chunks(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    places: Sequence[str] = (),
    here: bool = False,
) -> Iterator[Result]:
    """Apply `work` to every job in `workers` processes, in no order.

    places: GPUs; there is then one process for each of them, which sees no other.
    The processes are forked from a server that has imported Data-Juicer once, so they share it. When one is killed (out
    of memory, most often), what was not done is tried again by half as many. Raises: MachineError when that happens
    again. Within `done_elsewhere` other workers do it, and `workers` and `places` are theirs to say; unless it
    belongs `here`.
    """
    others = None if here else workers_elsewhere()
    if others:
        yield from others.run(work, jobs, bool(places))
        return
    left = list(jobs)
    for tries in range(RETRIES, -1, -1):
        lost: list[Job] = []
        yield from _run(work, left, len(places) or workers, places, lost)
        if not lost:
            return
        left, workers, places = lost, max(1, workers // 2), places[: (len(places) + 1) // 2]
        if not tries:
            raise MachineError(WORKER_DIED)


def _run(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, places: Sequence[str], lost: list[Job]
) -> Iterator[Result]:
    """The same once. lost: takes the jobs that were not done because a process was killed."""
    if not jobs:
        return
    warm_up()
    context = multiprocessing.get_context("forkserver")
    free = context.SimpleQueue()
    for name in places:
        free.put(name)
    with ProcessPoolExecutor(
        min(workers, len(jobs)), context, _begin, (lifetime.mark(), free if places else None)
    ) as pool:
        # a few jobs ahead of the workers, so that results do not pile up
        queue = iter(jobs)
        running: dict[Future[Result], Job] = {}

        def submit(count: int) -> None:
            for job in islice(queue, 0 if lost else count):
                try:
                    running[pool.submit(work, job)] = job
                except BrokenProcessPool:
                    lost.append(job)

        submit(2 * workers)
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        lost.append(job)
                        continue
                    yield result
                    submit(1)
        except KeyboardInterrupt:  # or another signal that ends the command: nobody waits for a chunk's end
            for process in pool._processes.values():
                process.kill()
            raise
        finally:
            for future in running:
                future.cancel()
        lost += queue
