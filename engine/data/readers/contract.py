"""What every reader of a dataset's files offers: rows by number, and what of the files is no row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

BROKEN = "__broken__"  # the one field of a row that cannot be read: why
Row = dict[str, Any]
Rows = list[Row]
Numbers = NDArray[np.int64]  # of rows
HEAD = 1_000  # rows that the kinds of fields are told by, where the file does not tell them
Kind = Literal["text", "number", "flag", "list", "media", "other"]


@dataclass(frozen=True)
class Options:
    """How a dataset is opened.

    split: which of several is read. max_bad: share of its files that may be unreadable. index: folder in which a reader
    keeps what it has looked up once in large files, as where rows begin; None: each process looks it up. head: only the
    first rows are looked at, so nothing is made of a whole file for them. text: the field that the text is read from;
    rows that are conversations get it where they have none.
    """

    split: str | None = None
    max_bad: float = 0.0
    index: Path | None = None
    head: bool = False
    text: str | None = None


PLAIN = Options()


class BrokenFile(DataError):
    """A file does not open as what it is. It may be left out where there are others."""


class Reader(Protocol):
    """Rows of one file format, by number.

    files: what the rows come from, in order. left_out: what of the files is no row, and how often. note: which split is
    read, how shards differ; or empty. schema: of the rows, where the files have one. unnamed: the splits, where there
    are several and none is named.
    """

    @property
    def files(self) -> Sequence[Path]: ...

    @property
    def left_out(self) -> tuple[tuple[str, int], ...]: ...

    @property
    def note(self) -> str: ...

    @property
    def schema(self) -> pa.Schema | None: ...

    @property
    def unnamed(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        """Rows start … stop-1; a row that cannot be parsed is {BROKEN: reason}.

        fields: those that are needed; a reader that would have to read the others too may give them. Media are given as
        the file holds them, undecoded: a path, bytes, {bytes, path}, or what `engine.data.media.locate` knows beside.
        """
        ...


@runtime_checkable
class Lines(Protocol):
    """A reader whose rows can be copied as lines of JSON."""

    def lines(self, numbers: Numbers) -> Iterator[bytes] | None:
        """The bytes of these rows, which ascend, a line each, block by block; None where rows are no lines here."""
        ...


@runtime_checkable
class Columnar(Protocol):
    """A reader that gives columns of numbers as such."""

    def numbers(self, start: int, stop: int, fields: Collection[str]) -> dict[str, NDArray[np.float64]]:
        """Those of these fields that hold numbers alone, of rows start … stop-1; NaN where there is none."""
        ...


@runtime_checkable
class Tables(Protocol):
    """A reader whose rows can be copied as columns."""

    def tables(self, numbers: Numbers) -> Iterator[pa.Table]:
        """These rows, which ascend, as tables of the reader's schema. Raises: DataError."""
        ...


@dataclass(frozen=True)
class FileReader:
    """What a plug-in of group djsb.readers gives.

    open: (file, options) → its reader. It raises BrokenFile for a file that is none of its format. version: raised when
    the same file gives other rows.
    """

    open: Callable[[Path, Options], Reader]
    version: int = 1


def as_list(value: Any) -> list[Any]:
    """One path, a list of them or nothing, as a list."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def first_line(error: Exception) -> str:
    """What an error of a library says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def as_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The same rows with the columns of a schema; those that the table lacks are null."""
    import pyarrow as pa

    if table.schema.equals(schema, check_metadata=True):
        return table
    for field in schema:
        if field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


def picked(table: pa.Table, rows: Numbers) -> pa.Table:
    """These rows of a table, which ascend; a row may be repeated.

    From NumPy's own arrays pyarrow would import pandas, a second that every command would pay.
    """
    import pyarrow as pa

    if len(rows) == table.num_rows and (np.diff(rows) == 1).all():
        return table
    if (np.diff(rows) > 0).all():
        bits = np.zeros(table.num_rows, bool)
        bits[rows] = True
        packed = pa.py_buffer(np.packbits(bits, bitorder="little"))
        return table.filter(pa.Array.from_buffers(pa.bool_(), len(bits), [None, packed]))
    numbers = np.ascontiguousarray(rows, np.int64)
    return table.take(pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(numbers)]))


def refuse_twins(file: Path, names: Sequence[str]) -> None:
    """Raises: DataError where several columns have one name, as a row can hold only one of them."""
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"{file} has several columns of the name {min(twice)!r}; rename one of them")


def rows_of(table: pa.Table, start: int, stop: int, what: str) -> Rows:
    """Rows start … stop-1 of a table; one with a value that Python cannot hold is broken. what: it is a part of."""
    part = table.slice(start, stop - start)
    try:
        part.validate(full=True)  # offsets that lead out of the file would end the process
        rows: Rows = part.to_pylist()
        return rows
    except (ValueError, OverflowError) as error:
        if stop - start <= 1:
            return [{BROKEN: f"unreadable row of {what}: {first_line(error)}"}] * (stop - start)
        middle = (start + stop) // 2
        return rows_of(table, start, middle, what) + rows_of(table, middle, stop, what)
