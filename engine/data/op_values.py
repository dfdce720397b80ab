"""Statistics of one chunk of rows, in a worker process: every OP on the same batches.

What stands in an image's header is read there; for all other OPs an image is decoded once.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.errors import DjsbError
from engine.base.parallel import place
from engine.base.paths import folder_of
from engine.data import datajuicer
from engine.data.catalogue import fields_read, get_op, statistics_of
from engine.data.dataset import Dataset, as_list
from engine.data.images import Look
from engine.data.media import check_media, files_of, locate
from engine.data.ops.contract import IMAGE_TOKEN, VIDEO_TOKEN

BATCH = 1_000
PIXELS = 2**22  # of the images that are decoded at a time: 17 MB, which the memory that the last had holds again
GPU_PIXELS = 2**26  # for a model on a GPU, which wants many at once: 270 MB
TOGETHER = 128  # images that go through a model on a GPU at once
EACH = {"image_aesthetics_filter", "image_nsfw_filter", "image_watermark_filter"}  # score every image by itself
STATS, CONTEXT = "__dj__stats__", "__dj__context__"

# op → rows × statistics × (smallest, largest); and (row, reason) of what could not be read
ChunkResult = tuple[int, int, dict[str, NDArray[np.float64]], dict[str, list[tuple[int, str]]], dict[str, float]]
Row = dict[str, Any]


@dataclass(frozen=True)
class OpRun:
    """An OP with checked parameters and its cache key."""

    name: str
    params: tuple[tuple[str, Any], ...]
    key: str

    @property
    def statistics(self) -> tuple[str, ...]:
        """The stats keys that it writes."""
        return tuple(statistics_of(self.name, dict(self.params)))

    @property
    def listed(self) -> tuple[bool, ...]:
        """For each statistic whether a row may have several values."""
        return tuple(bounds.list_valued for bounds in statistics_of(self.name, dict(self.params)).values())

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row that its parameters name."""
        return fields_read(self.name, dict(self.params))


@dataclass(frozen=True)
class Job:
    """A chunk of rows. root: where media paths start from, beside the data file's folder. bad: its quarantined rows."""

    data: Dataset
    root: Path
    runs: tuple[OpRun, ...]
    start: int
    stop: int
    bad: NDArray[np.int64]


@dataclass(frozen=True)
class Media:
    """A row's images and videos. looks: what the headers of its images say; sizes: bytes of each."""

    images: tuple[bytes | Path, ...] = ()
    looks: tuple[Look, ...] = ()
    videos: tuple[bytes | Path, ...] = ()

    @property
    def pixels(self) -> int:
        """Of all images."""
        return sum(look.width * look.height for look in self.looks)


# statistics that an image's header says, with the values that Data-Juicer has after decoding
HEADERS: Mapping[str, Any] = {
    "image_aspect_ratio_filter": {"aspect_ratios": lambda _, look: look.width / look.height},
    "image_shape_filter": {"image_width": lambda _, look: look.width, "image_height": lambda _, look: look.height},
    "image_size_filter": {
        "image_sizes": lambda source, _: len(source) if isinstance(source, bytes) else source.stat().st_size
    },
}


class _Values:
    """What the OPs say of a chunk."""

    def __init__(self, job: Job) -> None:
        rows = job.stop - job.start
        self.start = job.start
        self.values = {r.key: np.full((2 * len(r.statistics), rows), np.nan) for r in job.runs}
        self.unreadable: dict[str, list[tuple[int, str]]] = {}
        self.seconds = dict.fromkeys(self.values, 0.0)

    def put(
        self, run: OpRun, rows: Sequence[int], stats: Sequence[Mapping[str, Any]], why: Sequence[str | None]
    ) -> None:
        """An OP's statistics of rows, and the reasons where it has none."""
        for i, name in enumerate(run.statistics):
            low, high = extremes(stats, name)
            self.values[run.key][2 * i, rows], self.values[run.key][2 * i + 1, rows] = low, high
            for j in np.flatnonzero(np.isnan(low)).tolist():
                self.refuse(run, rows[j], why[j] or f"no finite {name}")

    def refuse(self, run: OpRun, row: int, why: str) -> None:
        """A row that an OP could not read."""
        self.unreadable.setdefault(run.key, []).append((self.start + row, why[:300]))


class _Whole(_Values):
    """The same, and each row's statistics as they are: lists, words."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.stats: list[dict[str, Any]] = [{} for _ in range(job.stop - job.start)]

    def put(
        self, run: OpRun, rows: Sequence[int], stats: Sequence[Mapping[str, Any]], why: Sequence[str | None]
    ) -> None:
        super().put(run, rows, stats, why)
        for row, found in zip(rows, stats, strict=True):
            self.stats[row] |= {name: v.tolist() if hasattr(v, "tolist") else v for name, v in found.items()}


_built: dict[str, Any] = {}
_gpu_works = False


def compute_chunk(job: Job) -> ChunkResult:
    """One chunk in a worker process. Raises: MachineError, OpError; what a row is to blame for is a reason."""
    told = _Values(job)
    _look(job, told)
    return job.start, job.stop, told.values, told.unreadable, told.seconds


def whole_chunk(job: Job) -> tuple[list[dict[str, Any]], dict[str, list[tuple[int, str]]]]:
    """(each row's statistics as the OPs give them, OP's key → (row, reason) of what could not be read)."""
    told = _Whole(job)
    _look(job, told)
    return told.stats, told.unreadable


def _look(job: Job, told: _Values) -> None:
    global _gpu_works
    if place() and not _gpu_works:
        datajuicer.check_gpu(place())
        _gpu_works = True
    fields = job.data.fields
    needed = {name for name in (fields.text, fields.images, fields.videos) if name}
    needed |= {name for run in job.runs for name in run.fields}
    rows = job.data.reader.read(job.start, job.stop, sorted(needed))
    skip = set(job.bad.tolist())
    numbers = [i for i in range(len(rows)) if i not in skip]
    media_read = any(get_op(r.name).opens_media for r in job.runs)
    for at in range(0, len(numbers), BATCH):
        part: dict[int, Media] = {}
        for i in numbers[at : at + BATCH]:
            found = _media_of(rows[i], job.data, job.root) if media_read else Media()
            if isinstance(found, Media):
                part[i] = found
                continue
            for run in job.runs:  # gone or changed since the scan: no OP opens it
                told.refuse(run, i, found)
        headed = {i for i, media in part.items() if all(look.sure for look in media.looks)}
        for run in job.runs:
            if run.name in HEADERS and headed:
                began = time.perf_counter()
                stats = [_of_header(run.name, part[i]) for i in sorted(headed)]
                told.put(run, sorted(headed), stats, [None] * len(stats))
                told.seconds[run.key] += time.perf_counter() - began
        for group in _groups(part):
            _run_ops(job, {i: rows[i] for i in group}, group, headed, told)


def _of_header(op: str, media: Media) -> dict[str, list[Any]]:
    pairs = list(zip(media.images, media.looks, strict=True))
    return {name: [value(*pair) for pair in pairs] for name, value in HEADERS[op].items()}


def _groups(part: dict[int, Media]) -> Iterator[dict[int, Media]]:
    """The rows, as many at a time as their decoded images fit into memory."""
    group, pixels = dict[int, Media](), 0
    most = GPU_PIXELS if place() else PIXELS
    for i, media in part.items():
        if group and pixels + media.pixels > most:
            yield group
            group, pixels = {}, 0
        group[i], pixels = media, pixels + media.pixels
    if group:
        yield group


def _run_ops(job: Job, rows: dict[int, Row], group: dict[int, Media], headed: set[int], told: _Values) -> None:
    """Every OP on the rows of a group, but for what the headers have told."""
    todo = {run: [i for i in group if run.name not in HEADERS or i not in headed] for run in job.runs}
    left = {run: numbers for run, numbers in todo.items() if numbers}
    if not left:
        return
    # what OPs share, by row: a caption is split into words once, and an image is decoded once
    shared: dict[str, dict[int, dict[str, Any]]] = {kind: {i: {} for i in group} for kind in ("text", "image")}
    with _named(group, left, shared["image"]) as paths:
        for run, numbers in left.items():
            began = time.perf_counter()
            op, kind = _op_for(run), _shares(run)
            batch = _batch([rows[i] for i in numbers], [paths[i] for i in numbers], job.data, run)
            if kind:
                batch[CONTEXT] = [shared[kind][i] for i in numbers]
            stats, reasons = _stats(run, op, batch, {"context": True} if kind else {})
            told.put(run, numbers, stats, reasons)
            told.seconds[run.key] += time.perf_counter() - began


@contextmanager
def _named(
    group: dict[int, Media], left: Mapping[OpRun, list[int]], shared: dict[int, dict[str, Any]]
) -> Iterator[dict[int, list[str]]]:
    """Names of the rows' media for the OPs: paths, or what decoded images are called in the OPs' context.

    Images in memory are decoded here where all OPs take them by the context, and written to files where one does not,
    or where one of them is broken: the OP then says so of its row.
    """
    by_context = all(_shares(run) == "image" or not get_op(run.name).opens_media for run in left)
    if by_context and any(isinstance(source, bytes) for media in group.values() for source in media.images):
        names: dict[int, list[str]] = {}
        decoded: dict[int, dict[str, Any]] = {}
        try:
            for i in sorted({i for numbers in left.values() for i in numbers}):
                images = group[i].images
                names[i] = [f"{i}-{k}" if isinstance(s, bytes) else str(s) for k, s in enumerate(images)]
                named = zip(names[i], images, strict=True)
                decoded[i] = {name: datajuicer.decoded(s) for name, s in named if isinstance(s, bytes)}
        except Exception as error:  # decoders raise whatever a broken image makes them raise
            machine.refuse(error, "an image")
        else:
            for i, pixels in decoded.items():
                shared[i].update(pixels)
            yield names
            return
    with files_of([[*media.images, *media.videos] for media in group.values()]) as files:
        yield dict(zip(group, files, strict=True))


def _op_for(run: OpRun) -> Any:
    if run.key not in _built:
        _built[run.key] = datajuicer.load_op(run.name, dict(run.params))
    return _built[run.key]


def _shares(run: OpRun) -> str | None:
    """What an OP shares with others by Data-Juicer's context: words or decoded images; None where it shares nothing."""
    modalities = get_op(run.name).modalities
    kind = "image" if "image" in modalities else "text" if modalities == {"text"} else None
    return kind if kind and "video" not in modalities and "context" in _parameters(_op_for(run)) else None


def _parameters(op: Any) -> Collection[str]:
    """Names that an OP's own method takes."""
    batched = inspect.signature(op.compute_stats_batched).parameters
    own = batched if "kwargs" not in batched else inspect.signature(op.compute_stats_single).parameters
    return own.keys()


def _media_of(row: Row, data: Dataset, root: Path) -> Media | str:
    """A row's media; or why no OP may open them."""
    folder = folder_of(data.path)
    images: list[bytes | Path] = []
    videos: list[bytes | Path] = []
    looks: list[Look] = []
    for name, sources in ((data.fields.images, images), (data.fields.videos, videos)):
        for value in as_list(row.get(name)) if name else ():
            try:
                source = locate(value, root, folder)
                look = check_media(source, name == data.fields.videos)
            except (OSError, ValueError) as error:
                machine.refuse(error, str(data.path))
                return " ".join(str(error).split())
            sources.append(source)
            looks += [look] if look else []
    return Media(tuple(images), tuple(looks), tuple(videos))


def _batch(rows: list[Row], media: list[list[str]], data: Dataset, run: OpRun) -> dict[str, list[Any]]:
    """A Data-Juicer batch: lists by field, with empty statistics and context."""
    batch: dict[str, list[Any]] = {STATS: [{} for _ in rows], CONTEXT: [{} for _ in rows]}
    modalities = get_op(run.name).modalities
    batch |= {name: [row.get(name) for row in rows] for name in run.fields}
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


def _together(op: Any, statistic: str, batch: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Each row's statistic by an OP that scores every image by itself: many images at once, as if one row had them.

    Fewer at once where the GPU's memory is too small for them.
    """
    names = list(dict.fromkeys(name for row in batch["images"] for name in row))
    images = {name: image for context in batch[CONTEXT] for name, image in context.items()}
    scores: dict[str, Any] = {}
    most = TOGETHER
    while len(scores) < len(names):
        part = names[len(scores) : len(scores) + most]
        sample = {"images": [part], STATS: [{}], CONTEXT: [images]}
        try:
            said = op.compute_stats_batched(sample, context=True)[STATS][0][statistic]
        except Exception as error:  # a border, as below
            if most == 1 or not machine.lacks_memory(error):
                raise
            most //= 2
            continue
        scores |= dict(zip(part, said, strict=True))
    for row, context in zip(batch["images"], batch[CONTEXT], strict=True):
        context.update({name: images[name] for name in row})
    return [{statistic: [scores[name] for name in row]} for row in batch["images"]]


def _stats(
    run: OpRun, op: Any, batch: dict[str, list[Any]], options: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[str | None]]:
    """Each row's statistics, and the reason where the OP failed; a failed batch goes row by row."""
    rows, name = len(batch[STATS]), run.name
    try:
        if name in EACH and place():
            return _together(op, run.statistics[0], batch), [None] * rows
        return op.compute_stats_batched(batch, **options)[STATS], [None] * rows
    except DjsbError:
        raise
    except Exception as error:  # a border: any library below an OP may fail on a row; the row-by-row pass records it
        machine.refuse(error, name)
    stats: list[dict[str, Any]] = []
    reasons: list[str | None] = []
    for i in range(rows):
        single = {key: [values[i]] for key, values in batch.items()} | {STATS: [{}]}
        try:
            stats.append(op.compute_stats_batched(single, **options)[STATS][0])
            reasons.append(None)
        except DjsbError:
            raise
        except Exception as error:  # the same border, one row
            machine.refuse(error, name)
            stats.append({})
            reasons.append(f"{type(error).__name__}: {error}")
    return stats, reasons


def verdicts(run: OpRun, rows: Sequence[Row], data: Dataset, root: Path) -> list[bool | str]:
    """What a filter itself says of rows: whether each stays, or why it failed. run: with the filter's bounds.

    Raises: MachineError, OpError.
    """
    op = _op_for(run)
    found: list[bool | str] = []
    for row in rows:
        media = _media_of(row, data, root) if get_op(run.name).modality != "text" else Media()
        if isinstance(media, str):
            found.append(media)
            continue
        with files_of([[*media.images, *media.videos]]) as paths:
            batch = _batch([row], paths, data, run)
            [stats], [why] = _stats(run, op, batch, {})
            if why is None:
                batch[STATS] = [{name: _stored(value) for name, value in stats.items()}]
                try:
                    found.append(_judged(op, batch))
                    continue
                except Exception as error:  # a border: an OP may raise any exception
                    machine.refuse(error, run.name)
                    why = f"{type(error).__name__}: {error}"
        found.append(why)
    return found


def _judged(op: Any, batch: dict[str, list[Any]]) -> bool:
    """Whether the one row of a batch stays."""
    if op.is_batched_op():
        return bool(next(iter(op.process_batched(batch))))
    return bool(op.process_single({name: values[0] for name, values in batch.items()}))


def _stored(value: Any) -> Any:
    """A statistic as Data-Juicer's filters see it in a run: datasets keeps ten decimals of it."""
    from datasets.utils.json import ujson_dumps, ujson_loads  # only where rows need it

    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_stored(each) for each in value]
    return ujson_loads(ujson_dumps(value)) if isinstance(value, float) and np.isfinite(value) else value


def _numbers(value: Any) -> NDArray[np.float64]:
    """A row's values; none where it is no number, as a field of the rows may hold anything."""
    try:
        return np.asarray([] if value is None else value, np.float64).ravel()
    except (TypeError, ValueError):
        return np.empty(0)


def extremes(stats: Sequence[Mapping[str, Any]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each row's smallest and largest value of a statistic; NaN where it has none or one is not finite.

    Rounded to ten decimals, the precision that Data-Juicer itself keeps when it runs a recipe, so
    that no bound separates values that it cannot tell apart.
    """
    values = [stat.get(name) for stat in stats]
    try:
        table = np.asarray(values, np.float64)  # one number each, or as many in every row
    except (TypeError, ValueError):
        rows = [_numbers(value) for value in values]
        low = np.array([r.min() if r.size else np.nan for r in rows])
        high = np.array([r.max() if r.size else np.nan for r in rows])
    else:
        table = table.reshape(len(values), -1)
        empty = np.full(len(values), np.nan)
        low, high = (table.min(1), table.max(1)) if table.shape[1] else (empty, empty)
    broken = ~(np.isfinite(low) & np.isfinite(high))
    return np.where(broken, np.nan, np.round(low, 10)), np.where(broken, np.nan, np.round(high, 10))
