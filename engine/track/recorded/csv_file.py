"""CSV from anywhere: a value a line (pool, seed, metric, value), or a run a line with a column a metric."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TextIO

from engine.base.errors import DataError
from engine.track.recorded.contract import LENGTHS, Choice, Record, Value, as_control, listed, values_of

COLUMNS = ("pool", "seed", "metric", "value")


def read(file: Path, choice: Choice) -> list[Value]:
    """The values of a CSV file. Raises: DataError, which names the line."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            return _read(file, text, choice)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); give a CSV file: {','.join(COLUMNS)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is no CSV file in UTF-8 ({error}); save it as one") from error


def _read(file: Path, text: TextIO, choice: Choice) -> list[Value]:
    reader = csv.DictReader(text, restval="")
    header = [name.strip() for name in reader.fieldnames or ()]
    wanted = (choice.pool or "pool", choice.seed or "seed", "metric", "value")
    is_long = {"metric", "value"} <= set(header)
    if (is_long or {"metric", "value"} & set(header) or len(header) < 2) and any(header.count(n) != 1 for n in wanted):
        raise DataError(
            f"{file} needs a first line that names the columns {','.join(COLUMNS)}, each once, with commas between; "
            f"it begins with {','.join(header)[:80]!r}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice and not is_long:
        raise DataError(f"{file} has two columns named {listed(twice)}; rename or remove one")
    reader.fieldnames = header
    records = []
    for fields in reader:
        if None in fields:
            raise DataError(f"{file}, line {reader.line_num}: more fields than columns; quote a field that has a comma")
        cells = {name: value.strip() for name, value in fields.items()}
        records.append(Record(f"{file}, line {reader.line_num}", cells, cells))
    if not records:
        raise DataError(f"{file} holds no results; add lines of {','.join(COLUMNS if is_long else header)}")
    return _long(file, records, choice) if is_long else values_of(records, choice, str(file))


def _long(file: Path, records: list[Record], choice: Choice) -> list[Value]:
    """A value a line."""
    pool, seed = choice.pool or "pool", choice.seed or "seed"
    values = []
    for name in choice.where:
        if name not in records[0].facts:
            raise DataError(f"--where {name}: {file} has no column {name}; it has {listed(list(records[0].facts))}")
    for record in records:
        row = record.facts
        if any(row[name] != value for name, value in choice.where.items()):
            continue
        if not row[pool] or not row["metric"]:
            raise DataError(f"{record.at}: the pool or the metric is empty; name both")
        if choice.metrics and row["metric"] not in choice.metrics:
            continue
        at = f"{record.at}: {row[pool]}, seed {row[seed]}, {row['metric']}"
        values.append(Value(at, row[pool], row[seed], row["metric"], row["value"], *(row.get(n, "") for n in LENGTHS)))
    if not values:
        raise DataError(f"{file} holds no results that --metric and --where leave")
    return as_control(values, choice.control, str(file))
