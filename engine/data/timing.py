"""What statistics will take: OPs are timed on blocks of the study's own rows, in the processes that compute them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from engine.base.parallel import run_chunks
from engine.data.catalogue import get_op
from engine.data.columns import ColumnRun, read_columns
from engine.data.dataset import Dataset
from engine.data.look import places
from engine.data.op_values import Job, OpRun, compute_chunk
from engine.data.statistics import passes

ROWS = 8_000  # of a sample for OPs of text
MEDIA_ROWS = 256  # and for those that open images or videos
FEW = 6  # blocks from which on the fastest and the slowest do not count
LONGEST = 20.0  # seconds after which no further block is waited for


@dataclass(frozen=True)
class Cost:
    """An OP on all rows that it has not been computed of.

    rows: those. sample: rows that it was timed on. each: seconds a row of one process. spread: share of that by which
    it may be off, two standard errors of the blocks' mean; None of one block. processes: that share the work.
    """

    op: str
    rows: int
    sample: int
    each: float
    spread: float | None
    processes: int

    @property
    def seconds(self) -> float:
        """Of wall time while the processes share it."""
        return self.rows * self.each / self.processes


@dataclass(frozen=True)
class Costs:
    """ops: each OP's; reading the rows stands as an OP of its own. memory: bytes of one process that computes."""

    ops: tuple[Cost, ...]
    memory: int

    @property
    def seconds(self) -> float:
        """Wall time of all."""
        return sum(cost.seconds for cost in self.ops)


def time_ops(
    left: dict[OpRun, int], data: Dataset, good: NDArray[np.bool_], root: Path, workers: int, longest: float = LONGEST
) -> Costs:
    """What OPs take. left: rows that each has not been computed of. OPs that ask a server are not among them."""
    runs = [run for run, rows in left.items() if rows and not get_op(run.name).asks]
    found: list[Cost] = []
    memory = 0
    for (_, gpus), group in passes(runs).items():
        count = MEDIA_ROWS if any(get_op(run.name).opens_media for run in group) else ROWS
        jobs = [
            Job(data, root, tuple(group), start, stop, np.flatnonzero(~good[start:stop]))
            for start, stop in places(good, count)
        ]
        blocks = list(_blocks(jobs, workers, gpus, longest))
        memory = max(memory, *(block.memory for block in blocks))
        processes = len(gpus) or workers
        names = {r.key: f"field {r.statistics[0]}" if isinstance(r, ColumnRun) else r.name for r in group}
        for key in [*names, ""]:
            each = np.sort([block.seconds[key] / max(1, block.rows) for block in blocks])
            each = each[1:-1] if len(each) >= FEW else each  # a block may have waited for something else
            spread = 2 * float(each.std(ddof=1)) / len(each) ** 0.5 / max(1e-12, each.mean()) if len(each) > 1 else None
            rows = max(left[run] for run in group if not key or run.key == key)
            sample = sum(block.rows for block in blocks)
            name = names.get(key, "reading rows and headers")
            found.append(Cost(name, rows, sample, float(each.mean()), spread, processes))
    return Costs(tuple(found), memory)


@dataclass(frozen=True)
class _Block:
    """rows: good ones. seconds: by key of the OP, and under no key what else it took. memory: of its process alone."""

    process: int
    rows: int
    seconds: dict[str, float]
    memory: int


def _blocks(jobs: Sequence[Job], workers: int, gpus: Sequence[str], longest: float) -> Iterator[_Block]:
    """Those that are done in time, at least one; a process's first builds its OPs, and counts only if it is alone."""
    began, seen, first = time.monotonic(), set[int](), list[_Block]()
    later = 0
    with closing(run_chunks(_timed, jobs, workers, gpus)) as results:  # type: ignore[type-var]
        for block in results:
            if block.process in seen or len(jobs) == 1:
                later += 1
                yield block
            else:
                first.append(block)
            seen.add(block.process)
            if time.monotonic() - began > longest:
                break
    if not later:
        yield from first


def _timed(job: Job) -> _Block:
    """One block, in a worker process."""
    began = time.perf_counter()
    work = read_columns if isinstance(job.runs[0], ColumnRun) else compute_chunk
    seconds = work(job)[4]
    rest = max(0.0, time.perf_counter() - began - sum(seconds.values()))
    rows = job.stop - job.start - len(job.bad)
    return _Block(os.getpid(), rows, {**seconds, "": rest}, psutil.Process().memory_full_info().uss)
