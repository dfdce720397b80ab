"""Statistics: one number per row and OP, by real Data-Juicer OP objects on batches in worker processes.

Each column is cached under (dataset fingerprint, OP, parameters, Data-Juicer version), chunk by
chunk, so that adding an OP computes that OP only and a killed run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import OpError
from engine.base.ids import content_id
from engine.base.parallel import run_chunks
from engine.base.paths import folder_of
from engine.data import asked, datajuicer, stat_files
from engine.data.catalogue import check_params, get_op
from engine.data.columns import PART, ColumnRun, read_columns, refuse_unfit
from engine.data.cuts import StatisticColumn
from engine.data.dataset import Dataset
from engine.data.op_values import ChunkResult, Job, OpRun, compute_chunk
from engine.data.ops import hub
from engine.data.ops.needs import missing_needs
from engine.data.tars import media_root
from engine.journal import caches
from engine.journal.store import Store
from engine.settings.scores import ScoresSection

CHUNK = 10_000
MEDIA_CHUNK = 250
EVERY = 1.0  # seconds between two times that what is computed is flushed and counted
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LeftOut:
    """An OP that the study names and that cannot run here."""

    op: str
    reason: str


def plan_ops(
    ops: Mapping[str, Mapping[str, Any]], data: Dataset, root: Path, scores: ScoresSection | None = None
) -> tuple[list[OpRun], list[LeftOut]]:
    """Which of a study's OPs run, and which are left out and why.

    root: the study's folder. scores: the language model of OPs that ask one. Raises: OpError for an unknown OP or
    parameter, and for two OPs that give one statistic.
    """
    runs: list[OpRun] = []
    left: list[LeftOut] = []
    givers: dict[str, str] = {}
    for name, given in ops.items():
        params = check_params(name, given, root)
        if get_op(name).asks and scores and scores.model:
            params.setdefault("api_or_hf_model", scores.model)
        if reason := _reason(name, params, data) or (asked.cannot_ask(scores) if get_op(name).asks else None):
            left.append(LeftOut(name, reason))
            continue
        items = tuple(sorted(params.items()))
        weights = hub.snapshot(str(params.get(get_op(name).model or "")))  # other weights may come under the same name
        parts = [data.fingerprint, data.key, name, items, datajuicer.version()]
        runs.append(OpRun(name, items, content_id([*parts, weights.name] if weights else parts)))
        for statistic in runs[-1].statistics:
            if (other := givers.setdefault(statistic, name)) != name:
                raise OpError(f"{name} and {other} both give {statistic}; take one of them out of ops")
    return runs, left


def refuse_same(ops: Sequence[OpRun], fields: Sequence[ColumnRun], more: Sequence[str] = ()) -> None:
    """Raises: OpError for a field that is called like another statistic. more: names beside those of the OPs."""
    givers = {statistic: run.name for run in ops for statistic in run.statistics} | dict.fromkeys(more, "the study")
    for run in fields:
        for statistic in run.statistics:
            if other := givers.get(statistic):
                raise OpError(
                    f"{run.section}: {run.field} gives {statistic}, and so does {other}; take one of them out, or "
                    "rename the field in the data"
                )
            givers[statistic] = f"the field {run.field}"


def _reason(name: str, params: Mapping[str, Any], data: Dataset) -> str | None:
    """Why an OP gives no statistic of these data here, or None."""
    op = get_op(name)
    if missing := op.modalities - data.modalities - {"audio"}:
        return f"the data has no {', '.join(sorted(missing))}"
    if not (op.statistics or op.barred):
        return "it keeps rows by a field's values, and gives no number"
    return missing_needs(name, params)


def passes(runs: Sequence[OpRun]) -> dict[tuple[int, tuple[str, ...]], list[OpRun]]:
    """(rows of a chunk, GPUs) → the OPs that run together on such chunks."""
    on_gpu, gpus = datajuicer.on_gpus({r.name for r in runs})
    found: dict[tuple[int, tuple[str, ...]], list[OpRun]] = {}
    for run in runs:
        op = get_op(run.name)
        size = MEDIA_CHUNK if op.opens_media else asked.CHUNK if op.asks else CHUNK
        size = PART if isinstance(run, ColumnRun) else size
        found.setdefault((size, gpus if run.name in on_gpu else ()), []).append(run)
    return found


def compute(
    runs: Sequence[OpRun],
    data: Dataset,
    good: NDArray[np.bool_],
    store: Store,
    state: Path,
    workers: int,
    progress: Progress | None = None,
    scores: ScoresSection | None = None,
) -> list[StatisticColumn]:
    """All columns of the given OPs, from the cache where they are there.

    good: (rows,) rows to compute; the others stay NaN. Text OPs and media OPs go in passes of
    their own, since their chunks differ in size; so do OPs with a model where there are GPUs, one process a GPU.
    """
    planned = passes(runs)
    total, done = len(data) * len(planned), 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if progress:
            progress(done, total)

    for (size, places), group in planned.items():
        _compute_group(group, size, data, good, store, state, workers, places, advance, scores)
    loaded = {run.key: stat_files.load(run, state) for run in runs}
    fields = [run for run in runs if isinstance(run, ColumnRun)]
    refuse_unfit(fields, data, good, store, lambda run: loaded[run.key][0].column.low)
    return [column for run in runs for column in loaded[run.key]]


def _compute_group(
    runs: Sequence[OpRun],
    size: int,
    data: Dataset,
    good: NDArray[np.bool_],
    store: Store,
    state: Path,
    workers: int,
    places: Sequence[str],
    advance: Callable[[int], None],
    scores: ScoresSection | None,
) -> None:
    """Compute the chunks that are missing. A chunk counts once its values are on disk and its row is committed."""
    by_key = {run.key: run for run in runs}
    files = {run.key: stat_files.open_column(run, data.fingerprint, len(data), store, state) for run in runs}
    missing: dict[tuple[int, int], list[OpRun]] = {c: [] for c in data.chunks(size)}
    for run in runs:
        starts = {chunk.start for chunk in caches.chunks(store, run.key)}
        for chunk, ops in missing.items():
            if chunk[0] not in starts:
                ops.append(run)
    advance(sum(b - a for (a, b), ops in missing.items() if not ops))
    root = media_root(data.path, state) if data.fields.images or data.fields.videos else folder_of(data.path)
    jobs = [Job(data, root, tuple(ops), *c, np.flatnonzero(~good[slice(*c)])) for c, ops in missing.items() if ops]
    done: list[ChunkResult] = []
    sums: dict[tuple[str, int], str] = {}
    saved = time.monotonic()
    try:
        if scores and get_op(runs[0].name).asks:
            results = asked.answers(jobs, scores, store, good)
        else:
            work = read_columns if isinstance(runs[0], ColumnRun) else compute_chunk
            results = run_chunks(work, jobs, workers, places)
        for result in results:
            start, stop, values, *_ = result
            sums |= {(key, start): stat_files.write(by_key[key], files[key], start, b) for key, b in values.items()}
            done.append(result)
            if time.monotonic() - saved > EVERY:
                stat_files.save(done, sums, files, store)
                done, sums, saved = [], {}, time.monotonic()
            advance(stop - start)
    finally:
        stat_files.save(done, sums, files, store)
