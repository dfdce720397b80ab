"""Parquet: one file, or several of one schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.errors import DataError
from engine.base.remote import is_remote
from engine.data.readers.contract import (
    BROKEN,
    Numbers,
    Options,
    Rows,
    as_schema,
    first_line,
    picked,
    refuse_twins,
    rows_of,
)

Floats = NDArray[np.float64]
THREADS = 8  # that look at files


class ParquetReader:
    """One or more Parquet files, in the order of their names."""

    left_out: tuple[tuple[str, int], ...] = ()
    unnamed = ()

    def __init__(self, files: Sequence[Path], options: Options) -> None:
        """Raises: DataError when more of the files are unreadable than may be."""
        self.split, self.files, self._bad = options.split, list[Path](), list[str]()
        self._schemas: list[Any] = []
        self._groups: list[tuple[int, int, int]] = []  # number of the file, row group, rows
        with ThreadPoolExecutor(THREADS) as pool:
            for file, (schema, rows, broken) in zip(files, pool.map(_footer, files), strict=True):
                if broken:
                    self._bad.append(broken)
                    continue
                first = self._schemas[0] if self._schemas else schema
                refuse_twins(file, schema.names)
                self._schemas.append(first if schema.equals(first, check_metadata=True) else schema)
                self._groups += [(len(self.files), group, n) for group, n in enumerate(rows)]
                self.files.append(file)
        if self._bad and (len(self._bad) > options.max_bad * len(files) or not self.files):
            raise DataError(
                f"{files[0].parent}: {self._bad[0]}; {len(self._bad)} of {len(files)} files are so, check them"
            )
        self._last: tuple[Any, Any, str] | None = None
        self._ends = np.cumsum([rows for _, _, rows in self._groups])
        self._paths = self.files
        self.schema = self._unified()

    def _unified(self) -> Any:
        """The schema that all files fit. Raises: DataError that names a file which fits no other."""
        import pyarrow as pa

        schema = self._schemas[0]
        for file, other in zip(self.files[1:], self._schemas[1:], strict=True):
            if other is self._schemas[0]:
                continue
            try:
                schema = pa.unify_schemas([schema, other], promote_options="permissive")
            except pa.ArrowException as error:
                raise DataError(
                    f"{file} has other columns than the files before it ({first_line(error)}); give files of one schema"
                ) from None
        return schema

    @cached_property
    def note(self) -> str:
        """The split, the number of files, and columns that only some of them have."""
        lacking = Counter(name for schema in self._schemas for name in set(self.schema.names) - set(schema.names))
        told = [f"split {self.split}"] if self.split else []
        told += [f"{len(self.files)} files"] if len(self.files) > 1 else []
        told += [f"{n} of them without {name}" for name, n in sorted(lacking.items())]
        told += [f"{len(self._bad)} files left out: {self._bad[0]}"] if self._bad else []
        return ", ".join(told)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        rows: Rows = []
        for table, broken, a, b in self._parts(start, stop, fields):
            lost: Rows = [{BROKEN: broken}] * (b - a)
            rows += lost if table is None else rows_of(table, a, b, "a Parquet file")
        return rows

    def _parts(self, start: int, stop: int, fields: Collection[str] | None) -> Iterator[tuple[Any, str, int, int]]:
        """(table of a row group, or None and why, its first row that counts, the row after its last)."""
        first = int(np.searchsorted(self._ends, start, side="right"))
        for (number, group, n), end in zip(self._groups[first:], self._ends[first:].tolist(), strict=True):
            begin = end - n
            if begin >= stop:
                break
            asked = (self._paths[number], group, n, None if fields is None else frozenset(fields))
            if self._last is None or self._last[0] != asked:  # chunks are smaller than groups
                self._last = (asked, *_group(*asked))
            _, table, broken = self._last
            yield table, broken, max(start, begin) - begin, min(stop, end) - begin

    def numbers(self, start: int, stop: int, fields: Collection[str]) -> dict[str, Floats]:
        """As `Columnar` says."""
        names = [name for name in fields if name in self.schema.names and is_number(self.schema.field(name).type)]
        found: dict[str, list[Floats]] = {name: [] for name in names}
        for table, _, a, b in self._parts(start, stop, names) if names else ():
            for name, parts in found.items():
                there = table is not None and name in table.schema.names
                parts.append(as_floats(table[name].slice(a, b - a)) if there else np.full(b - a, np.nan))
        return {name: np.concatenate(parts) for name, parts in found.items() if parts}

    def tables(self, numbers: Numbers) -> Iterator[Any]:
        """These rows, which ascend, one table a row group. Raises: DataError for a group that cannot be read."""
        first = 0
        for (number, group, n), end in zip(self._groups, self._ends.tolist(), strict=True):
            last = int(np.searchsorted(numbers, end))
            if last > first:
                table, broken = _group(self._paths[number], group, n, None)
                if table is None:
                    raise DataError(f"{self.files[number]}: {broken}; check the file")
                yield as_schema(picked(table, numbers[first:last] - (end - table.num_rows)), self.schema)
            first = last


def is_number(kind: Any) -> bool:
    """True for a type of numbers, or of true and false."""
    import pyarrow as pa

    return any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))


def as_floats(column: Any) -> Floats:
    """A column of numbers; whole ones that 53 bits do not hold are rounded, as Python does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column
    floats: Floats = pc.cast(column, pa.float64(), safe=False).to_numpy()
    return floats


def _footer(file: Path) -> tuple[Any, list[int], str]:
    """(schema, rows of each row group, empty), or why the file cannot be read. No file stays open: they may be many."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_source(file)) as opened:
            meta = opened.metadata
            return opened.schema_arrow, [meta.row_group(g).num_rows for g in range(meta.num_row_groups)], ""
    except (OSError, ValueError) as error:
        machine.refuse(error, str(file))
        return None, [], f"{file.name} cannot be read ({first_line(error)})"


def _source(file: Path) -> Any:
    """What pyarrow opens: of a file at an address it reads the parts that it needs."""
    return file.open("rb") if is_remote(file) else file


def _group(file: Path, group: int, rows: int, fields: Collection[str] | None) -> tuple[Any, str]:
    """(the table of a row group, empty), or (None, why its rows cannot be read). rows: that it should have."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_source(file)) as opened:
            names = None if fields is None else [n for n in opened.schema_arrow.names if n in fields]
            table = opened.read_row_group(group, names)
        table.validate(full=True)
        if table.num_rows != rows:
            raise ValueError(f"it has {table.num_rows} rows in place of {rows}")
        return table, ""
    except (OSError, ValueError) as error:
        machine.refuse(error, "a Parquet file")
        return None, f"unreadable part of a Parquet file: {first_line(error)}"
