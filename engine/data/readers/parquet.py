"""Parquet: one file, or several of one schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine.base import machine
from engine.base.errors import DataError
from engine.data.readers.contract import BROKEN, Numbers, Options, Rows, as_schema, first_line


class ParquetReader:
    """One or more Parquet files, in the order of their names."""

    left_out: tuple[tuple[str, int], ...] = ()
    unnamed = ()

    def __init__(self, files: Sequence[Path], options: Options) -> None:
        """Raises: DataError when more of the files are unreadable than may be."""
        import pyarrow.parquet as pq

        self.split, self.files, self._open, self._bad = options.split, list[Path](), list[Any](), list[str]()
        for file in files:
            try:
                self._open.append(pq.ParquetFile(file))
                self.files.append(file)
            except (OSError, ValueError) as error:
                machine.refuse(error, str(file))
                self._bad.append(f"{file.name} cannot be read ({first_line(error)})")
        if self._bad and (len(self._bad) > options.max_bad * len(files) or not self.files):
            raise DataError(
                f"{files[0].parent}: {self._bad[0]}; {len(self._bad)} of {len(files)} files are so, check them"
            )
        self._groups = [(f, g) for f in self._open for g in range(f.num_row_groups)]
        self._last: tuple[Any, Any, str] | None = None
        self._ends = np.cumsum([f.metadata.row_group(g).num_rows for f, g in self._groups])
        self.schema = self._unified()

    def _unified(self) -> Any:
        """The schema that all files fit. Raises: DataError that names a file which fits no other."""
        import pyarrow as pa

        schema = self._open[0].schema_arrow
        for file, other in zip(self.files[1:], self._open[1:], strict=True):
            try:
                schema = pa.unify_schemas([schema, other.schema_arrow], promote_options="permissive")
            except pa.ArrowException as error:
                raise DataError(
                    f"{file} has other columns than the files before it ({first_line(error)}); give files of one schema"
                ) from None
        return schema

    @cached_property
    def note(self) -> str:
        """The split, the number of files, and columns that only some of them have."""
        lacking = Counter(name for f in self._open for name in set(self.schema.names) - set(f.schema_arrow.names))
        told = [f"split {self.split}"] if self.split else []
        told += [f"{len(self.files)} files"] if len(self.files) > 1 else []
        told += [f"{n} of them without {name}" for name, n in sorted(lacking.items())]
        told += [f"{len(self._bad)} files left out: {self._bad[0]}"] if self._bad else []
        return ", ".join(told)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        rows: Rows = []
        first = int(np.searchsorted(self._ends, start, side="right"))
        for (file, group), end in zip(self._groups[first:], self._ends[first:].tolist(), strict=True):
            begin = end - file.metadata.row_group(group).num_rows
            if begin >= stop:
                break
            asked = (file, group, None if fields is None else frozenset(fields))
            if self._last is None or self._last[0] != asked:  # chunks are smaller than groups
                self._last = (asked, *_group(*asked))
            _, table, broken = self._last
            a, b = max(start, begin) - begin, min(stop, end) - begin
            rows += _rows(table, a, b) if table is not None else [{BROKEN: broken} for _ in range(a, b)]
        return rows

    def tables(self, numbers: Numbers) -> Iterator[Any]:
        """These rows, which ascend, one table a row group. Raises: DataError for a group that cannot be read."""
        first = 0
        for (file, group), end in zip(self._groups, self._ends.tolist(), strict=True):
            last = int(np.searchsorted(numbers, end))
            if last > first:
                table, broken = _group(file, group, None)
                if table is None:
                    raise DataError(f"{self.files[self._open.index(file)]}: {broken}; check the file")
                here = numbers[first:last] - (end - table.num_rows)
                mask = np.bincount(here, minlength=table.num_rows)
                rows = table.filter(mask.astype(bool)) if mask.max() == 1 else table.take(here)  # a row may be repeated
                yield as_schema(rows, self.schema)
            first = last


def _group(file: Any, group: int, fields: Collection[str] | None) -> tuple[Any, str]:
    """(the table of a row group, empty), or (None, why its rows cannot be read)."""
    try:
        names = None if fields is None else [n for n in file.schema_arrow.names if n in fields]
        table = file.read_row_group(group, names)
        table.validate(full=True)
        if table.num_rows != (told := file.metadata.row_group(group).num_rows):
            raise ValueError(f"it has {table.num_rows} rows in place of {told}")
        return table, ""
    except (OSError, ValueError) as error:
        machine.refuse(error, "a Parquet file")
        return None, f"unreadable part of a Parquet file: {first_line(error)}"


def _rows(table: Any, start: int, stop: int) -> Rows:
    """Rows of a table; one with a value that Python cannot hold is broken."""
    try:
        rows: Rows = table.slice(start, stop - start).to_pylist()
        return rows
    except (ValueError, OverflowError) as error:
        if stop - start == 1:
            return [{BROKEN: f"unreadable row of a Parquet file: {first_line(error)}"}]
        return [row for at in range(start, stop) for row in _rows(table, at, at + 1)]
