"""Chunks of work over worker processes; results come back as they finish."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from engine.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_chunks(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    setup: Callable[..., None] | None = None,
    setup_args: tuple[Any, ...] = (),
    preload: tuple[str, ...] = (),
) -> Iterator[Result]:
    """Apply `work` to every job in `workers` processes, in no order.

    setup: called once in each process. preload: modules that the processes share, imported once
    in the server that they are forked from.
    Raises: DataError when a process is killed (out of memory, most often).
    """
    if not jobs:
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engine.parallel", *preload])
    with ProcessPoolExecutor(min(workers, len(jobs)), context, setup, setup_args) as pool:
        # a few jobs ahead of the workers, so that results do not pile up
        queue = iter(jobs)
        running = {pool.submit(work, job) for job, _ in zip(queue, range(2 * workers), strict=False)}
        try:
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
                    for job in queue:
                        running.add(pool.submit(work, job))
                        break
        except BrokenProcessPool as error:
            raise DataError(
                "a data worker died, most often for want of memory; lower --workers and run the same command again"
            ) from error
        finally:
            for future in running:
                future.cancel()
