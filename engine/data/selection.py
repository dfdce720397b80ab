"""Which rows a recipe's filters keep, chunk by chunk: a chunk's answer hangs on its own rows only.

Where a study's cache has the statistics, columns settle it; else our own calls of the OPs compute them, and what they
do not settle the OP itself judges. The rows are those that `dj-process` keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.errors import DataError
from engine.base.ids import content_id
from engine.base.parallel import run_chunks
from engine.base.paths import folder_of
from engine.data.catalogue import check_params, get_op, statistics_of
from engine.data.dataset import Dataset, as_list
from engine.data.field_entries import statistic_key
from engine.data.judgement import Column, Mask, judged
from engine.data.media import locate
from engine.data.op_values import Job, OpRun, compute_chunk, verdicts
from engine.data.output import Chunk, Log
from engine.data.recipe_entries import Entry
from engine.data.recipes import Recipe
from engine.data.scan import inspect

CHUNK, MEDIA_CHUNK = 10_000, 250
FEW = 100  # rows of a chunk that are looked at here; a worker takes seconds to start
Progress = Callable[[int, int], None]
Columns = Mapping[str, Column]  # statistic → its values


@dataclass(frozen=True)
class Known:
    """What a study has computed of the same rows. good: rows that its scan found sound. columns: OP → statistics.

    An OP that names a field stands there with it, as `statistic_key` says.
    """

    good: Mask | None = None
    columns: Mapping[str, Columns] = field(default_factory=dict)

    def part(self, start: int, stop: int) -> Known:
        """Of a chunk."""
        columns = {
            op: {name: (low[start:stop], high[start:stop]) for name, (low, high) in columns.items()}
            for op, columns in self.columns.items()
        }
        return Known(None if self.good is None else self.good[start:stop], columns)


@dataclass(frozen=True)
class Question:
    """A chunk whose rows are judged. where: names the recipe. root: what was unpacked of tars beside the data."""

    recipe: Recipe
    where: str
    data: Dataset
    root: Path
    start: int
    stop: int
    known: Known


def own_params(entry: Entry) -> dict[str, Any]:
    """The parameters of a filter that its statistics hang on; the others are bounds."""
    name, params = entry
    op = get_op(name)
    return {key: value for key, value in params.items() if key in op.params or key == op.model}


def select(
    recipe: Recipe,
    where: str,
    data: Dataset,
    root: Path,
    known: Known,
    log: Log,
    workers: int,
    progress: Progress | None = None,
) -> Iterator[Chunk]:
    """The answers for all chunks of the data, in order; what the log has is not judged again.

    Raises: DataError where an OP fails on a row, OpError, MachineError.
    """
    has_media = bool(data.modalities & {"image", "video"})  # their files may have gone since they were scanned
    chunks = list(data.chunks(MEDIA_CHUNK if has_media else CHUNK))
    waiting = {chunk[0]: log.chunks[chunk] for chunk in chunks if chunk in log.chunks}
    left = []
    for chunk in chunks:
        question = Question(recipe, where, data, root, *chunk, known.part(*chunk))
        done = waiting.get(chunk[0]) or (None if has_media else _settled(question))
        if done is None:
            left.append(question)
        else:
            waiting[chunk[0]] = done
    answers = run_chunks(answer, left, workers)
    for chunk in chunks:
        while chunk[0] not in waiting:
            new = next(answers)
            log.add(new)
            waiting[new.start] = new
        yield waiting.pop(chunk[0])
        if progress:
            progress(chunk[1], len(data))


def _settled(q: Question) -> Chunk | None:
    """The answer where columns alone give it, but for a few rows that the scan has not found sound."""
    good = q.known.good
    if good is None or np.count_nonzero(~good) > FEW:
        return None
    bad = []
    for number in (np.flatnonzero(~good) + q.start).tolist():
        (row,) = q.data.reader.read(number, number + 1)
        reason = inspect(row, q.data, q.root, folder_of(q.data.path))
        if reason is None:  # a study asks for more, as an id of its own
            return None
        bad.append((number, reason[:300]))
    alive = good.copy()
    for entry in q.recipe.filters:
        found = _judged(entry, q.known.columns.get(statistic_key(*entry)))
        if found is None or not found[1][alive].all():
            return None
        alive &= found[0]
    return Chunk(q.start, q.stop, np.flatnonzero(alive) + q.start, tuple(bad))


def _judged(entry: Entry, columns: Columns | None) -> tuple[Mask, Mask] | None:
    return judged(*entry, columns) if columns else None


def answer(question: Question) -> Chunk:
    """Which rows of a chunk stay; in a worker process. Raises: as `select`."""
    q = question
    rows = q.data.reader.read(q.start, q.stop)
    bad: list[tuple[int, str]] = []
    for number, row in enumerate(rows):
        sound = q.known.good is not None and bool(q.known.good[number])
        if (reason := _lost(row, q) if sound else inspect(row, q.data, q.root, folder_of(q.data.path))) is not None:
            bad.append((q.start + number, reason[:300]))
    alive = np.ones(len(rows), bool)
    alive[[number - q.start for number, _ in bad]] = False
    for columns, entry in _with_columns(q, alive):
        keep, sure = _judged(entry, columns) or (np.zeros(len(rows), bool), np.zeros(len(rows), bool))
        unsure = np.flatnonzero(alive & ~sure).tolist()
        run = _run(entry, True)
        for number, verdict in zip(unsure, verdicts(run, [rows[i] for i in unsure], q.data, q.root), strict=True):
            if isinstance(verdict, str):
                why = " ".join(verdict.split())[:300]
                raise DataError(
                    f"{entry[0]} could not apply {q.where}: {q.data.path}, row {q.start + number}: {why}; mend or "
                    "leave out that row or OP"
                )
            keep[number] = verdict
        alive &= keep
    return Chunk(q.start, q.stop, np.flatnonzero(alive) + q.start, tuple(bad))


def _with_columns(q: Question, alive: Mask) -> Iterator[tuple[Columns | None, Entry]]:
    """The filters in order, each with its statistics of the rows that are left.

    Those beside each other that need no model are computed together, so that what they share is done once; one that
    needs a model sees only what those before it keep.
    """
    heavy = [get_op(name).model is not None for name, _ in q.recipe.filters]
    for _, group in groupby(enumerate(q.recipe.filters), lambda pair: (heavy[pair[0]], pair[0] * heavy[pair[0]])):
        entries = [entry for _, entry in group]
        runs = {statistic_key(*entry): _run(entry, False) for entry in entries if statistics_of(*entry)}
        missing = [run for name, run in runs.items() if name not in q.known.columns]
        values: dict[str, Any] = {}
        if missing and alive.any():
            job = Job(q.data, q.root, tuple(missing), q.start, q.stop, np.flatnonzero(~alive))
            values = compute_chunk(job)[2]
        for entry in entries:
            columns = q.known.columns.get(statistic_key(*entry))
            if columns is None and (run := runs.get(statistic_key(*entry))) and run.key in values:
                columns = _columns(run.statistics, values[run.key])
            yield columns, entry


def _columns(names: Sequence[str], lines: Any) -> Columns:
    return {name: (lines[2 * i], lines[2 * i + 1]) for i, name in enumerate(names)}


def _run(entry: Entry, bounds: bool) -> OpRun:
    """A filter as statistics are computed, or with its bounds."""
    name, own = entry[0], own_params(entry)
    params = check_params(name, own) | ({k: v for k, v in entry[1].items() if k not in own} if bounds else {})
    items = tuple(sorted(params.items()))
    return OpRun(name, items, content_id([name, repr(items) if bounds else items]))  # a bound may be infinite


def _lost(row: dict[str, Any], q: Question) -> str | None:
    """Why a row that was sound is not any more, or None: its media are looked for, and not opened."""
    for name in (q.data.fields.images, q.data.fields.videos):
        for value in as_list(row.get(name)) if name else ():
            try:
                locate(value, q.root, folder_of(q.data.path))
            except ValueError as error:
                return str(error)
    return None
