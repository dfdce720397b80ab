"""Rows of a dataset written to a file of their own, as they are or changed.

Rows that nobody changes are copied as they lie in the original: the bytes of lines, the columns of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.durable import PART
from engine.base.errors import DataError
from engine.data.dataset import Dataset, json_line
from engine.data.readers.contract import Lines, Tables
from engine.data.recipes import one_line

BLOCK = 4_096
FORMS = {
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl.gz",
    ".jsonl.zst": "jsonl.zst",
    ".parquet": "parquet",
    ".tar": "webdataset",
}
SUFFIXES = {form: suffix for suffix, form in FORMS.items()}
Row = dict[str, Any]
Numbers = NDArray[np.int64]

# (row numbers, their rows) → the rows to write
Change = Callable[[Numbers, list[Row]], list[Row]]


def form_of(file: Path) -> str | None:
    """The form that a file's name asks for, or None."""
    return next((form for suffix, form in FORMS.items() if file.name.endswith(suffix)), None)


def write_rows(
    rows: Dataset, kept: Numbers, target: Path, change: Change | None = None, form: str | None = None
) -> None:
    """The rows of these numbers, which ascend, as they are in the original unless they are changed.

    form: `jsonl`, `jsonl.gz`, `jsonl.zst` or `parquet`; None: as the name of `target` says.
    Raises: DataError when it cannot hold them.
    """
    form = form or form_of(target) or "jsonl"
    name = target.name.removeprefix(PART)
    if form == "parquet":
        _write_parquet(rows, kept, target, change, name)
        return
    with _opened(target, form) as file:
        for text in _lines(rows, kept, change, name):
            file.write(text)


def blocks_of(rows: Dataset, kept: Numbers, change: Change | None) -> Iterator[list[Row]]:
    """The rows of these numbers, changed, block by block."""
    for at in range(0, len(kept), BLOCK):
        block = kept[at : at + BLOCK]
        found = list(rows.take(block))
        yield change(block, found) if change else found


@contextmanager
def _opened(target: Path, form: str) -> Iterator[Any]:
    """A file that takes bytes, and packs them where the form says so."""
    packing = {"jsonl.gz": "gzip", "jsonl.zst": "zstd"}.get(form)
    with target.open("wb") as file:
        if packing is None:
            yield file
            return
        import pyarrow as pa  # it takes a fifth of a second, and plain lines do without

        with pa.CompressedOutputStream(file, packing) as packed:
            yield packed


def _lines(rows: Dataset, kept: Numbers, change: Change | None, name: str) -> Iterator[bytes]:
    raw = rows.reader.lines(kept) if change is None and isinstance(rows.reader, Lines) else None
    if raw is not None:
        yield from raw
        return
    for block in blocks_of(rows, kept, change):
        yield "".join(_json(row, name) + "\n" for row in block).encode()


def _write_parquet(rows: Dataset, kept: Numbers, target: Path, change: Change | None, name: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    reader = rows.reader
    with in_parquet(name):
        schema = _schema(blocks_of(rows, kept, None)) if reader.schema is None else reader.schema
        with pq.ParquetWriter(target, schema) as writer:
            if change is None and isinstance(reader, Tables):
                for table in reader.tables(kept):
                    writer.write_table(table)
                return
            for block in blocks_of(rows, kept, change):
                writer.write_table(pa.Table.from_pylist(block, schema))


@contextmanager
def in_parquet(name: str) -> Iterator[None]:
    """Raises: DataError where rows do not fit into the columns of the Parquet file of that name."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
        reason = one_line(str(error))[:200]
        raise DataError(f"{name} cannot hold the rows ({reason}); write a .jsonl file instead") from error


def _json(row: Row, name: str) -> str:
    try:
        return json_line(row)
    except TypeError as error:  # bytes and dates of a Parquet file
        raise DataError(
            f"{name} cannot hold the rows ({error}); write a .parquet file instead, or give --with-media"
        ) from error


def _schema(blocks: Iterator[Sequence[Row]]) -> Any:
    """One that all rows of a file without columns fit."""
    import pyarrow as pa

    schema = pa.schema([])
    for block in blocks:
        schema = pa.unify_schemas([schema, pa.schema(list(pa.array(block).type))], promote_options="permissive")
    return schema
