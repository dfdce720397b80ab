"""Fields of the data as statistics: numbers, values that are words, and tags of a list.

They are read as the file holds them. A number is what Data-Juicer takes for one, texts such as "0.31" among them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import OpError
from engine.base.ids import content_id, json_text
from engine.data.dataset import Dataset
from engine.data.fingerprints import hash_of
from engine.data.op_values import ChunkResult, Job, OpRun
from engine.data.readers.contract import BROKEN, Columnar, Row
from engine.data.score_match import refuse_strangers
from engine.journal import caches
from engine.journal.store import Store
from engine.records.pool import BY_NUMBER, BY_VALUE, SCORES
from engine.settings.data import ColumnSection, DatasetSection

PART = 100_000  # rows that are read at a time
WHOLE = 1e6  # from which on a number has no more than ten decimals
Kind = Literal["number", "values", "tags"]
Line = NDArray[np.float64]


@dataclass(frozen=True)
class ColumnRun(OpRun):
    """A field that is a statistic. options: the values or tags that are told apart.

    scores: number of the file of scores beside the data that holds it; None: the data's own rows do.
    """

    kind: Kind = "number"
    options: tuple[Any, ...] = ()
    scores: int | None = None

    @property
    def section(self) -> str:
        """Where the study names it."""
        return "dataset.columns" if self.scores is None else "dataset.scores"

    @property
    def field(self) -> str:
        """Its name; dots lead into mappings, as Data-Juicer reads them."""
        return str(dict(self.params)["field_key"])

    @property
    def statistics(self) -> tuple[str, ...]:
        return tuple(f"{self.field}={tag}" for tag in self.options) if self.kind == "tags" else (self.field,)

    @property
    def listed(self) -> tuple[bool, ...]:
        return (False,) * len(self.statistics)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.field, self.field.partition(".")[0])))


def column_runs(section: DatasetSection, data: Dataset) -> list[ColumnRun]:
    """The fields that a study makes statistics, those of files of scores last."""
    found = [_run(name, column, data) for name, column in section.columns.items()]
    for number, table in enumerate(data.scores if section.scores else ()):
        content = ((SCORES, hash_of(table.files)),)
        found += [_run(name, column, data, number, content) for name, column in table.columns.items()]
    return found


def _run(
    name: str,
    column: Literal["number"] | ColumnSection,
    data: Dataset,
    scores: int | None = None,
    content: tuple[tuple[str, Any], ...] = (),
) -> ColumnRun:
    """content: what else the values hang on."""
    kind: Kind = "number"
    options: tuple[Any, ...] = ()
    params: tuple[tuple[str, Any], ...] = (("field_key", name),)
    if isinstance(column, ColumnSection):
        kind, options = ("values", column.values) if column.values else ("tags", column.tags or ())
        params += (("target_value", json_text(options, ensure_ascii=False)),)
    params += content
    key = content_id([data.fingerprint, data.key, "column", kind, params])
    return ColumnRun(BY_NUMBER if kind == "number" else BY_VALUE, params, key, kind, options, scores)


def read_columns(job: Job) -> ChunkResult:
    """One chunk in a worker process. Raises: OpError for a name with a dot."""
    runs = [run for run in job.runs if isinstance(run, ColumnRun)]
    values: dict[str, NDArray[np.float64]] = {}
    bad: dict[str, list[tuple[int, str]]] = {}
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    numbers, cells = _read(job, [run for run in runs if run.scores is None])
    for number in sorted({run.scores for run in runs if run.scores is not None}):
        more, others = _scored(job, [run for run in runs if run.scores == number], number)
        numbers, cells = numbers | more, cells | others
    shared = (time.perf_counter() - began) / len(runs)
    for run in runs:
        began, wrong = time.perf_counter(), list[tuple[int, str]]()
        if run.field in numbers:
            lines = _finished(numbers[run.field])[None]
        else:
            lines, wrong = _lines(run, cells[run.field])
        lines[:, job.bad] = np.nan
        values[run.key] = np.repeat(lines, 2, axis=0)
        skip = set(job.bad.tolist())
        bad[run.key] = [(job.start + i, why) for i, why in wrong if i not in skip]
        seconds[run.key] = shared + time.perf_counter() - began
    return job.start, job.stop, values, bad, seconds


_Read = tuple[dict[str, Line], dict[str, list[Any]]]  # the fields that hold numbers alone, and all others


def _read(job: Job, runs: Sequence[ColumnRun]) -> _Read:
    """Fields of the data's own rows."""
    plain = [run.field for run in runs if run.kind == "number"]
    reader = job.data.reader
    numbers = reader.numbers(job.start, job.stop, plain) if isinstance(reader, Columnar) and plain else {}
    slow = [run for run in runs if run.field not in numbers]
    rows = reader.read(job.start, job.stop, sorted({f for run in slow for f in run.fields})) if slow else []
    return numbers, {run.field: [_cell(row, run.field) for row in rows] for run in slow}


def _scored(job: Job, runs: Sequence[ColumnRun], number: int) -> _Read:
    """Columns of one file of scores, each at the row that it belongs to."""
    table = job.data.scores[number]
    places = table.places(job.data.reader.read(job.start, job.stop, [table.key]))
    floats = {run.field: table.floats(run.field, places) for run in runs if run.kind == "number"}
    numbers = {name: line for name, line in floats.items() if line is not None}
    return numbers, {run.field: table.cells(run.field, places) for run in runs if run.field not in numbers}


def _cell(row: Row, name: str) -> Any:
    if "." not in name:
        return row.get(name)
    if name in row:
        raise OpError(f"dataset.columns: Data-Juicer takes {name} for a field within another; rename it in the data")
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _lines(run: ColumnRun, cells: Sequence[Any]) -> tuple[NDArray[np.float64], list[tuple[int, str]]]:
    """((statistics, rows), which rows hold something else and why)."""
    wrong: list[tuple[int, str]] = []
    lines = np.full((len(run.statistics), len(cells)), np.nan)
    places = {option: i for i, option in enumerate(run.options)}
    for i, cell in enumerate(cells):
        if cell is None or cell != cell:
            continue
        try:
            if run.kind == "number":
                lines[0, i] = as_number(cell)
            elif run.kind == "values":
                lines[0, i] = places.get(cell, len(places))
            else:
                lines[:, i] = 0
                for tag in cell if isinstance(cell, list | tuple) else [cell]:
                    if (place := places.get(tag)) is not None:
                        lines[place, i] = 1
        except (TypeError, ValueError, OverflowError):
            lines[:, i] = np.nan
            wrong.append((i, _told(run, cell)))
    return (_finished(lines) if run.kind == "number" else lines), wrong


def as_number(cell: Any) -> float:
    """What Data-Juicer takes a cell for. Raises: TypeError, ValueError, OverflowError where it is no number."""
    if isinstance(cell, list | dict | bytes):
        raise TypeError("no number")
    return float(cell)


def _finished(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ten decimals, as Data-Juicer keeps; what is not finite is no value."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.where(np.abs(line) < WHOLE, np.round(line, 10), line)
    return np.where(np.isfinite(rounded), rounded, np.nan)


def _told(run: ColumnRun, cell: Any) -> str:
    what = {"number": "no number", "values": "several values; name them as tags", "tags": "no tag"}[run.kind]
    return f"{run.field} is {what}: {json_text(cell, default=repr)[:80]}"


def refuse_unfit(runs: Sequence[ColumnRun], data: Dataset, good: NDArray[np.bool_], store: Store, lines: Any) -> None:
    """Raises: OpError for a field that no row has, and one that more rows hold something else in than may.

    lines: run → its first column.
    """
    for run in runs:
        first = lines(run)
        held = int((good & ~np.isnan(first)).sum())
        bad = caches.unreadable_of(store, run.key)
        if bad.rows > data.fields.max_bad * (held + bad.rows):
            raise OpError(
                f"{run.section}: {bad.rows} of {held + bad.rows} rows with {run.field} are unfit: row {bad.row}: "
                f"{bad.reason}; mend the data, take {run.field} out, or raise dataset.max_bad"
            )
        if not held and run.scores is not None:
            refuse_strangers(data, data.scores[run.scores])
            raise OpError(f"dataset.scores: no row has a {run.field}; leave it out of columns")
        if not held:
            there = sorted({name for row in data.reader.read(0, min(len(data), 100)) for name in row} - {BROKEN})
            raise OpError(
                f"dataset.columns: no row has a {run.field}; take it out, or name one of: "
                f"{', '.join(name[:40] for name in there[:40])}"
            )
        if run.kind == "values" and not (good & (first < len(run.options))).any():
            raise OpError(
                f"{run.section}: no row of {held} has one of the values of {run.field}; is a number written as "
                "text, or a text as a number?"
            )
