"""How a file of scores fits the data: rows without a score, and scores of no row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from engine.base.errors import DataError
from engine.base.ids import content_id, json_text
from engine.base.parallel import run_chunks
from engine.data.dataset import Dataset
from engine.data.readers.contract import Numbers, Options
from engine.data.readers.kept import kept
from engine.data.readers.scored import EXAMPLES, ScoreTable
from engine.records.accounting import Accounting

CHUNK = 100_000
IN_PROCESS = 200_000  # rows whose keys are looked up without workers


def accounting_of(data: Dataset, table: ScoreTable, workers: int) -> Accounting:
    """A file of scores as `djsb check` prints it. Raises: DataError where it has no score of any row."""
    used, without = _match(data, table, workers)
    if not used:
        raise strangers(data, table)
    strange = len(table) - table.without - used
    left = [(f"rows without {table.key}", table.without), (f"{table.key} that the data lack", strange)]
    kinds = ", ".join(f"{name} ({'number' if c == 'number' else 'words'})" for name, c in table.columns.items())
    note = f"joined by {table.key}; {without} of {len(data)} rows of the data have no score; {kinds}"
    return Accounting(f"scores {table.path}", len(table), used, tuple((why, n) for why, n in left if n), note)


def refuse_strangers(data: Dataset, table: ScoreTable) -> None:
    """Raises: DataError where it has no score of any row of the data."""
    if not _match(data, table, 1)[0]:
        raise strangers(data, table)


def strangers(data: Dataset, table: ScoreTable) -> DataError:
    """What is said where no key of the file is one of the data."""
    ours = [row.get(table.key) for row in data.reader.read(0, min(EXAMPLES, len(data)), [table.key])]
    here, there = (", ".join(str(key)[:60] for key in keys) for keys in (ours, table.examples()))
    return DataError(
        f"dataset.scores: {table.path} has no score of any row: {table.key} is {here} in the data, and {there} there; "
        "set key to a field that both share (file_key, where it has another name there)"
    )


def _match(data: Dataset, table: ScoreTable, workers: int) -> tuple[int, int]:
    """(rows of the file that a row of the data has, rows of the data without a score); looked up once."""
    number = data.scores.index(table)
    asked = [data.fields.path, data.fields.split, data.fields.model_dump(include={"sources", "text"}), table.key]
    asked.append(data.fields.scores[number].model_dump())
    kind = "match" + content_id(asked)

    def make(folder: Path) -> None:
        used, without = np.zeros(len(table), bool), 0
        jobs = [(data, number, *chunk) for chunk in data.chunks(CHUNK)]
        for places in run_chunks(_places, jobs, workers) if len(data) > IN_PROCESS else map(_places, jobs):
            used[places[places >= 0]] = True
            without += int((places < 0).sum())
        told = {"used": int(used.sum()), "without": without}
        (folder / "told.json").write_text(json_text(told), encoding="utf-8")

    folder = kept([*data.reader.files, *table.files], kind, Options(index=data.index), make)
    told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    return int(told["used"]), int(told["without"])


def _places(job: tuple[Dataset, int, int, int]) -> Numbers:
    """The row of the file that belongs to each row of a chunk, -1 for none."""
    data, number, start, stop = job
    table = data.scores[number]
    return table.places(data.reader.read(start, stop, [table.key]))
