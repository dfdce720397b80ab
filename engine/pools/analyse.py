"""Rows with their statistics beside them, under `__dj__stats__`, as Data-Juicer's Analyzer writes them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.durable import replaced
from engine.base.errors import OpError, PoolError
from engine.base.ids import content_id
from engine.base.parallel import run_chunks
from engine.base.paths import folder_of
from engine.data.catalogue import check_params, find_op, get_op
from engine.data.dataset import Dataset, as_list, json_line
from engine.data.op_values import Job, OpRun, whole_chunk
from engine.data.ops.needs import missing_needs
from engine.data.readers.contract import BROKEN, Row
from engine.data.statistics import passes
from engine.pools.construct import STATS
from engine.pools.files import Tell, silent
from engine.settings.data import DatasetSection

QUARTILES = (0.25, 0.5, 0.75)
NO_ROWS = np.zeros(0, np.int64)
Table = dict[str, dict[str, float]]  # statistic → what is told of it → number


@dataclass(frozen=True)
class Names:
    """Fields of the rows."""

    text: str = "text"
    images: str = "images"
    videos: str = "videos"


@dataclass(frozen=True)
class _Chunk:
    """Rows that one worker looks at. whole: their other fields are written too."""

    jobs: tuple[Job, ...]
    whole: bool


def runs_of(process: Sequence[Mapping[str, Any]], root: Path, tell: Tell = silent) -> list[OpRun]:
    """The filters of a recipe with their parameters but for bounds; what gives no statistic is left out and told.

    Raises: OpError for an OP that is unknown or lacks what it needs.
    """
    found: list[OpRun] = []
    for entry in process:
        ((name, given),) = entry.items()
        if find_op(name) is None and not name.endswith("_filter"):
            tell(f"{name} gives no statistic and is not analysed")
            continue
        op = get_op(name)
        own = {k: v for k, v in (given or {}).items() if (k in op.params or k == op.model) and v is not None}
        params = check_params(name, own, root)
        if not op.statistics or op.asks:
            tell(f"{name} gives no statistic of its own and is not analysed")
        elif reason := missing_needs(name, params):
            raise OpError(f"{name} cannot run: {reason}")
        else:
            items = tuple(sorted(params.items()))
            found.append(OpRun(name, items, content_id([name, items, len(found)])))
    return found


def analyse(
    path: Path, out: Path, runs: Sequence[OpRun], names: Names, whole: bool, workers: int,
    percentiles: Sequence[float] = (), tell: Tell = silent,
) -> Table:  # fmt: skip
    """Write rows with their statistics to `out`, JSON lines; what they are like. whole: with their other fields.

    Paths of media become absolute. A row that an OP cannot read has none of its statistics, and is counted.
    Raises: PoolError, OpError, DataError.
    """
    if not runs:
        raise PoolError("the recipe has no filter that gives a statistic; add one to its process")
    data = _opened(path, runs, names)
    grouped = passes(runs)
    size = min(rows for rows, _ in grouped)
    root = folder_of(path).resolve()
    chunks = [
        _Chunk(tuple(Job(data, root, tuple(group), *span, NO_ROWS) for group in grouped.values()), whole)
        for span in data.chunks(size)
    ]
    columns: dict[str, list[float]] = {}
    bad: Counter[str] = Counter()
    with replaced(out) as part, part.open("wb") as file:
        few = len(chunks) == 1  # such rows take less time than the workers' start
        results = map(_analysed, chunks) if few else run_chunks(_analysed, chunks, workers)
        for lines, numbers, failed in _in_order(iter(results)):
            file.write(lines)
            bad.update(failed)
            for name, values in numbers.items():
                columns.setdefault(name, []).extend(values)
    for name, count in bad.items():
        tell(f"{name} could not read {count} of {len(data)} rows; they have none of its statistics")
    return {name: described(np.asarray(values), percentiles) for name, values in columns.items()}


def _opened(path: Path, runs: Sequence[OpRun], names: Names) -> Dataset:
    kinds = frozenset[str]().union(*(get_op(run.name).modalities for run in runs))
    fields = {"text": names.text if "text" in kinds else None}
    fields["images"] = names.images if "image" in kinds else None
    fields["videos"] = names.videos if "video" in kinds else None
    data = Dataset(path, DatasetSection.model_validate({"path": str(path), **fields}))
    if not len(data):
        raise PoolError(f"{path} has no rows; give a file with rows")
    head = {key for row in data.reader.read(0, min(len(data), 100)) for key in row}
    for key, name in fields.items():
        if name and name not in head:
            option = {"text": "text_keys", "images": "image_key", "videos": "video_key"}[key]
            raise PoolError(f"{path} has no field {name!r}; set {option} to one of: {', '.join(sorted(head))}")
    return data


def _in_order(results: Iterator[tuple[int, tuple[int, Any]]]) -> Iterator[Any]:
    """Results of chunks by their number, as soon as all before them are there."""
    waiting: dict[int, Any] = {}
    following = 0
    for start, result in results:
        waiting[start] = result
        while following in waiting:
            following, ready = waiting.pop(following)
            yield ready


def _analysed(chunk: _Chunk) -> tuple[int, tuple[int, tuple[bytes, dict[str, list[float]], dict[str, int]]]]:
    """(first row, (the row after the last, (lines, statistic → its numbers, OP → rows that it could not read)))."""
    first = chunk.jobs[0]
    stats: list[Row] = [{} for _ in range(first.stop - first.start)]
    failed: Counter[str] = Counter()
    for job in chunk.jobs:
        found, unreadable = whole_chunk(job)
        for own, more in zip(stats, found, strict=True):
            own |= more
        failed.update({run.name: len(unreadable.get(run.key, ())) for run in job.runs if unreadable.get(run.key)})
    rows = first.data.reader.read(first.start, first.stop) if chunk.whole else [{} for _ in stats]
    fields = {name for name in (first.data.fields.images, first.data.fields.videos) if name}
    lines = []
    for number, (row, own) in enumerate(zip(rows, stats, strict=True), first.start):
        if BROKEN in row:
            raise PoolError(f"{first.data.path}, row {number}: {row[BROKEN]}; mend it there, or take it out")
        for name in row.keys() & fields:
            row[name] = [_absolute(value, first.root) for value in as_list(row[name])]
        lines.append(json_line({**row, STATS: own}) + "\n")
    numbers: dict[str, list[float]] = {}
    for own in stats:
        for name, value in own.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, int | float) and math.isfinite(one):
                    numbers.setdefault(name, []).append(float(one))
    return first.start, (first.stop, ("".join(lines).encode(), numbers, dict(failed)))


def _absolute(value: Any, folder: Path) -> Any:
    """A path of the data's folder as one that holds anywhere."""
    if isinstance(value, str) and not Path(value).is_absolute() and (folder / value).is_file():
        return str((folder / value).resolve())
    return value


def described(values: Any, percentiles: Sequence[float] = ()) -> dict[str, float]:
    """Count, mean, standard deviation of a sample, extremes and percentiles, named as Data-Juicer names them."""
    shares = sorted({*QUARTILES, *percentiles})
    found = {"count": float(len(values)), "mean": float(values.mean())}
    found |= {"std": float(values.std(ddof=1)) if len(values) > 1 else math.nan, "min": float(values.min())}
    found |= {
        f"{share * 100:g}%": float(value) for share, value in zip(shares, np.quantile(values, shares), strict=True)
    }
    return {**found, "max": float(values.max())}
