"""Rows of a dataset written to a file of their own, as they are or changed."""

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
from engine.data.recipes import one_line

BLOCK = 4_096
Row = dict[str, Any]

# (row numbers, their rows) → the rows to write
Change = Callable[[NDArray[np.int64], list[Row]], list[Row]]


def write_rows(
    rows: Dataset, kept: NDArray[np.int64], target: Path, change: Change | None = None, form: str | None = None
) -> None:
    """The rows of these numbers, which ascend, as they are in the original unless they are changed.

    form: `jsonl` or `parquet`; None: as the suffix of `target` says. Raises: DataError when it cannot hold them.
    """
    name = target.name.removeprefix(PART)
    blocks = [kept[at : at + BLOCK] for at in range(0, len(kept), BLOCK)]

    def read(block: NDArray[np.int64]) -> list[Row]:
        found = list(rows.take(block))
        return change(block, found) if change else found

    if form == "jsonl" or (form is None and target.suffix == ".jsonl"):
        with target.open("w", encoding="utf-8") as file:
            for block in blocks:
                file.writelines(_json(row, name) + "\n" for row in read(block))
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    with in_parquet(name):
        schema = _schema(rows, map(read, blocks))
        with pq.ParquetWriter(target, schema) as writer:
            for block in blocks:
                writer.write_table(pa.Table.from_pylist(read(block), schema))


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
        raise DataError(f"{name} cannot hold the rows ({error}); write a .parquet file instead") from error


def _schema(rows: Dataset, blocks: Iterator[Sequence[Row]]) -> Any:
    """The original's schema; for JSONL, one that all rows fit."""
    import pyarrow as pa

    if rows.reader.schema is not None:
        return rows.reader.schema
    found = [pa.schema(list(pa.array(list(block)).type)) for block in blocks]
    return pa.unify_schemas([pa.schema([]), *found], promote_options="permissive")
