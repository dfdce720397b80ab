"""Statistics: one number per row and OP, by real Data-Juicer OP objects on batches in worker processes.

Each column is cached under (dataset fingerprint, OP, parameters, Data-Juicer version), chunk by
chunk, so that adding an OP computes that OP only and a killed run goes on where it was.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.arrays import new_array
from engine.base.durable import QUICK, checksum, discard, flush
from engine.base.errors import OpError
from engine.base.ids import content_id
from engine.base.parallel import run_chunks
from engine.data import datajuicer
from engine.data.catalogue import IMAGE_TOKEN, VIDEO_TOKEN, check_params, get_op, missing_needs
from engine.data.cuts import Column, StatisticColumn
from engine.data.dataset import Dataset, as_list
from engine.data.media import check_media, files_of, locate
from engine.data.tars import media_root
from engine.journal import caches
from engine.journal.caches import StatisticRun
from engine.journal.store import Store

BATCH = 1_000
CHUNK = 10_000
MEDIA_CHUNK = 250
EVERY = 1.0  # seconds between two times that what is computed is flushed and counted
Progress = Callable[[int, int], None]

# op → rows × statistics × (smallest, largest); and (row, reason) of what could not be read
ChunkResult = tuple[int, int, dict[str, NDArray[np.float64]], dict[str, list[tuple[int, str]]], dict[str, float]]


@dataclass(frozen=True)
class OpRun:
    """An OP with checked parameters and its cache key."""

    name: str
    params: tuple[tuple[str, Any], ...]
    key: str

    @property
    def statistics(self) -> tuple[str, ...]:
        """The stats keys that it writes."""
        return tuple(get_op(self.name).statistics)


@dataclass(frozen=True)
class LeftOut:
    """An OP that the study names and that cannot run here."""

    op: str
    reason: str


def plan_ops(ops: Mapping[str, Mapping[str, Any]], data: Dataset, root: Path) -> tuple[list[OpRun], list[LeftOut]]:
    """Which of a study's OPs run, and which are left out and why.

    root: the study's folder. Raises: OpError for an unknown OP or parameter.
    """
    runs, left = [], []
    for name, given in ops.items():
        params = check_params(name, given, root)
        missing = get_op(name).modalities - data.modalities
        reason = f"the data has no {', '.join(sorted(missing))}" if missing else missing_needs(name, params)
        if reason:
            left.append(LeftOut(name, reason))
            continue
        items = tuple(sorted(params.items()))
        key = content_id([data.fingerprint, data.key, name, items, datajuicer.version()])
        runs.append(OpRun(name, items, key))
    return runs, left


def _column_file(state: Path, run: OpRun) -> Path:
    return state / "cache" / "statistics" / f"{run.key}.npy"


def _chunk_size(runs: Sequence[OpRun]) -> int:
    text_only = all(get_op(r.name).modality == "text" for r in runs)
    return CHUNK if text_only else MEDIA_CHUNK


def compute(
    runs: Sequence[OpRun],
    data: Dataset,
    good: NDArray[np.bool_],
    store: Store,
    state: Path,
    workers: int,
    progress: Progress | None = None,
) -> list[StatisticColumn]:
    """All columns of the given OPs, from the cache where they are there.

    good: (rows,) rows to compute; the others stay NaN. Text OPs and media OPs go in passes of
    their own, since their chunks differ in size.
    """
    text = [r for r in runs if get_op(r.name).modality == "text"]
    media = [r for r in runs if r not in text]
    total, done = len(data) * (bool(text) + bool(media)), 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if progress:
            progress(done, total)

    for group in (text, media):
        if group:
            _compute_group(group, data, good, store, state, workers, advance)
    return [column for run in runs for column in _load(run, state)]


def _load(run: OpRun, state: Path) -> list[StatisticColumn]:
    saved = np.load(_column_file(state, run), mmap_mode="r")
    columns = []
    for i, statistic in enumerate(run.statistics):
        low, high = np.array(saved[2 * i]), np.array(saved[2 * i + 1])
        if np.array_equal(low, high, equal_nan=True):
            high = low
        columns.append(StatisticColumn(run.name, statistic, run.params, Column(low, high)))
    return columns


def _compute_group(
    runs: Sequence[OpRun],
    data: Dataset,
    good: NDArray[np.bool_],
    store: Store,
    state: Path,
    workers: int,
    advance: Callable[[int], None],
) -> None:
    """Compute the chunks that are missing. A chunk counts once its values are on disk and its row is committed."""
    files: dict[str, np.memmap[Any, Any]] = {}
    missing: dict[tuple[int, int], list[OpRun]] = {c: [] for c in data.chunks(_chunk_size(runs))}
    for run in runs:
        files[run.key] = _open_column(run, data, store, state)
        starts = {chunk.start for chunk in caches.chunks(store, run.key)}
        for chunk, ops in missing.items():
            if chunk[0] not in starts:
                ops.append(run)
    advance(sum(b - a for (a, b), ops in missing.items() if not ops))
    root = media_root(data.path, state) if data.fields.images or data.fields.videos else data.path.parent
    jobs = [
        (data, root, tuple(ops), chunk, np.flatnonzero(~good[slice(*chunk)])) for chunk, ops in missing.items() if ops
    ]
    done: list[ChunkResult] = []
    saved = time.monotonic()
    try:
        for result in run_chunks(_compute_chunk, jobs, workers):
            start, stop, values, *_ = result
            for key, block in values.items():
                files[key][:, start:stop] = block
            done.append(result)
            if time.monotonic() - saved > EVERY:
                _save(done, files, store)
                done, saved = [], time.monotonic()
            advance(stop - start)
    finally:
        _save(done, files, store)


def _save(done: Sequence[ChunkResult], files: Mapping[str, np.memmap[Any, Any]], store: Store) -> None:
    """Have what was computed on the disk, then count it."""
    for key in {key for _, _, values, _, _ in done for key in values}:
        files[key].flush()
    with store.transaction():
        for start, stop, values, unreadable, seconds in done:
            sums = {key: checksum(block.tobytes()) for key, block in values.items()}
            caches.add_chunk(store, start, stop, sums, seconds, unreadable)


def _open_column(run: OpRun, data: Dataset, store: Store, state: Path) -> np.memmap[Any, Any]:
    """The column's file. A new one, or one of another size, forgets the chunks that were computed."""
    file = _column_file(state, run)
    shape = (2 * len(run.statistics), len(data))
    if _fault(file, shape) is None:
        return np.lib.format.open_memmap(file, mode="r+")
    discard(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    caches.begin_statistic(store, StatisticRun(
        run.key, data.fingerprint, run.name, ",".join(run.statistics), repr(dict(run.params)), datajuicer.version(),
        len(data),
    ))  # fmt: skip
    column = new_array(file, np.float64, shape)
    column.flush()
    flush(file)
    flush(file.parent)
    return column


def _fault(file: Path, shape: tuple[int, int]) -> str | None:
    """What is wrong with a column's file by its size and header, or None."""
    if not file.is_file():
        return "it is a folder" if file.is_dir() else "it is missing"
    try:
        with file.open("rb") as head:
            version = np.lib.format.read_magic(head)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            found, _, kind = read[version](head)
            size = head.tell() + 8 * shape[0] * shape[1]
    except (ValueError, KeyError):
        return "it is no array"
    if found != shape or kind != np.float64:
        return f"it holds {kind} {found} in place of float64 {shape}"
    if (have := file.stat().st_size) != size:
        return f"it has {have} bytes in place of {size}"
    return None


def verify(run: StatisticRun, state: Path, store: Store, deep: bool) -> tuple[int, str | None]:
    """(bytes, what is wrong) of a stored column: its size and header, and the sums of its chunks where they are few
    bytes, or when `deep`. What is lost is forgotten, so that it is computed again.
    """
    file = state / "cache" / "statistics" / f"{run.id}.npy"
    chunks = caches.chunks(store, run.id)
    if not chunks:
        return 0, None
    shape = (2 * len(run.statistic.split(",")), run.rows)
    size = 8 * shape[0] * shape[1]
    lost, why = chunks, _fault(file, shape)
    if why is None:
        column = np.load(file, mmap_mode="r")
        lost = [c for c in chunks if c.sum is None or ((deep or size <= QUICK) and c.sum != _sum(column, c))]
        old = "; an older djsb wrote it" * any(c.sum is None for c in lost)
        why = f"{len(lost)} of {len(chunks)} parts do not have the sum that was noted{old}" if lost else None
    caches.forget_chunks(store, run.id, lost if why else ())
    return size, why


def _sum(column: NDArray[np.float64], chunk: caches.Chunk) -> str:
    return checksum(column[:, chunk.start : chunk.stop].tobytes())


_built: dict[str, Any] = {}


def _compute_chunk(
    job: tuple[Dataset, Path, tuple[OpRun, ...], tuple[int, int], NDArray[np.int64]],
) -> ChunkResult:
    """One chunk in a worker process: every OP on the same batches."""
    data, root, runs, (start, stop), bad = job
    values = {r.key: np.full((2 * len(r.statistics), stop - start), np.nan) for r in runs}
    unreadable: dict[str, list[tuple[int, str]]] = {}
    seconds = dict.fromkeys(values, 0.0)
    skip = set(bad.tolist())
    numbers = [i for i in range(stop - start) if i not in skip]
    rows = data.reader.read(start, stop)
    media_read = any(get_op(r.name).modality != "text" for r in runs)
    for at in range(0, len(numbers), BATCH):
        part = numbers[at : at + BATCH]
        sources = _sources([rows[i] for i in part], data, root) if media_read else [[] for _ in part]
        for i, refused in zip(part, sources, strict=True):
            if isinstance(refused, str):  # gone or changed since the scan: no OP opens it
                for run in runs:
                    unreadable.setdefault(run.key, []).append((start + i, refused[:300]))
        part = [i for i, source in zip(part, sources, strict=True) if not isinstance(source, str)]
        if not part:
            continue
        words: list[dict[str, Any]] = [{} for _ in part]  # what text OPs share: a caption is split once for all
        with files_of([source for source in sources if not isinstance(source, str)]) as paths:
            for run in runs:
                began = time.perf_counter()
                op = _op_for(run)
                batch = _batch([rows[i] for i in part], paths, data, run)
                shares = get_op(run.name).modality == "text" and "context" in _signature(run)
                if shares:
                    batch["__dj__context__"] = words
                stats, reasons = _stats(op, batch, {"context": True} if shares else {})
                for i, name in enumerate(run.statistics):
                    low, high = _extremes(stats, name)
                    values[run.key][2 * i, part], values[run.key][2 * i + 1, part] = low, high
                    for j in np.flatnonzero(np.isnan(low)).tolist():
                        why = reasons[j] or f"no finite {name}"
                        unreadable.setdefault(run.key, []).append((start + part[j], why[:300]))
                seconds[run.key] += time.perf_counter() - began
    return start, stop, values, unreadable, seconds


def _op_for(run: OpRun) -> Any:
    if run.key not in _built:
        _built[run.key] = datajuicer.load_op(run.name, dict(run.params))
    return _built[run.key]


def _sources(rows: list[dict[str, Any]], data: Dataset, root: Path) -> list[list[bytes | Path] | str]:
    """Each row's media, images first; or why no OP may open them."""
    folder = data.path if data.path.is_dir() else data.path.parent

    def of_row(row: dict[str, Any]) -> list[bytes | Path] | str:
        sources = []
        for name in (data.fields.images, data.fields.videos):
            for value in as_list(row.get(name)) if name else ():
                try:
                    sources.append(locate(value, root, folder))
                    check_media(sources[-1], name == data.fields.videos)
                except (OSError, ValueError) as error:
                    return " ".join(str(error).split())
        return sources

    return [of_row(row) for row in rows]


def _batch(rows: list[dict[str, Any]], media: list[list[str]], data: Dataset, run: OpRun) -> dict[str, list[Any]]:
    """A Data-Juicer batch: lists by field, with empty statistics and context."""
    batch: dict[str, list[Any]] = {"__dj__stats__": [{} for _ in rows], "__dj__context__": [{} for _ in rows]}
    modalities = get_op(run.name).modalities
    if data.fields.text is not None:
        batch["text"] = [row[data.fields.text] for row in rows]
    images = [len(as_list(row.get(data.fields.images))) if data.fields.images else 0 for row in rows]
    if "image" in modalities:
        batch["images"] = [paths[:n] for paths, n in zip(media, images, strict=True)]
        if "text" in modalities:  # such OPs score only text that names its images
            batch["text"] = [IMAGE_TOKEN * n + " " + t for t, n in zip(batch["text"], images, strict=True)]
    if "video" in modalities:
        batch["videos"] = [paths[n:] for paths, n in zip(media, images, strict=True)]
        if "text" in modalities:
            batch["text"] = [
                VIDEO_TOKEN * len(v) + " " + t for t, v in zip(batch["text"], batch["videos"], strict=True)
            ]
    return batch


def _signature(run: OpRun) -> Collection[str]:
    return inspect.signature(_op_for(run).compute_stats_batched).parameters


def _stats(
    op: Any, batch: dict[str, list[Any]], options: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[str | None]]:
    """Each row's statistics, and the reason where the OP failed; a failed batch goes row by row."""
    rows = len(batch["__dj__stats__"])
    try:
        return op.compute_stats_batched(batch, **options)["__dj__stats__"], [None] * rows
    except OpError:
        raise
    except Exception:  # a border: any library below an OP may fail on a row; the row-by-row pass records it
        stats: list[dict[str, Any]] = []
        reasons: list[str | None] = []
        for i in range(rows):
            single = {key: [values[i]] for key, values in batch.items()} | {
                "__dj__stats__": [{}],
                "__dj__context__": [{}],
            }
            try:
                stats.append(op.compute_stats_batched(single)["__dj__stats__"][0])
                reasons.append(None)
            except Exception as error:  # the same border, one row
                stats.append({})
                reasons.append(f"{type(error).__name__}: {error}")
        return stats, reasons


def _extremes(stats: Sequence[Mapping[str, Any]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each row's smallest and largest value of a statistic; NaN where it has none or one is not finite.

    Rounded to ten decimals, the precision that Data-Juicer itself keeps when it runs a recipe, so
    that no bound separates values that it cannot tell apart.
    """
    values = [stat.get(name) for stat in stats]
    try:
        table = np.asarray(values, np.float64)  # one number each, or as many in every row
    except (TypeError, ValueError):
        rows = [np.asarray([] if v is None else v, np.float64).ravel() for v in values]
        low = np.array([r.min() if r.size else np.nan for r in rows])
        high = np.array([r.max() if r.size else np.nan for r in rows])
    else:
        table = table.reshape(len(values), -1)
        empty = np.full(len(values), np.nan)
        low, high = (table.min(1), table.max(1)) if table.shape[1] else (empty, empty)
    broken = ~(np.isfinite(low) & np.isfinite(high))
    return np.where(broken, np.nan, np.round(low, 10)), np.where(broken, np.nan, np.round(high, 10))
