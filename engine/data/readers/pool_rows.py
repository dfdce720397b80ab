"""A pool that says which rows of another file it has, in place of the rows: `NAME.jsonl.rows`, read as `NAME.jsonl`.

It takes a few bits a row. Rows may be repeated and stand in any order. A pool of a pool names the first file.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from engine.base.durable import replaced
from engine.base.errors import DataError
from engine.base.ids import json_text
from engine.data.fingerprints import hash_of
from engine.data.readers.contract import Lines, Numbers, Reader, Rows, first_line
from engine.data.readers.json_rows import parsed

ROWS = ".rows"  # stands behind the name of the pool
BLOCK = 4_096  # rows of the other file that are read at once where lines cannot be
LINES = 4_096  # rows that are parsed together


def rows_file(pool: Path) -> Path:
    """Where it is kept which rows a pool has, if it is kept."""
    return pool if pool.name.endswith(ROWS) else pool.with_name(pool.name + ROWS)


def write_rows_file(pool: Path, source: Path, numbers: Numbers) -> None:
    """Keep which rows of `source` a pool has, in order. Raises: OSError, DataError."""
    told = {"source": os.path.relpath(source.absolute(), pool.parent.absolute()), "rows": len(numbers)}
    told |= {"hash": hash_of([source]), **_stamp(source)}
    steps = np.diff(numbers.astype(np.int64), prepend=0)
    small = np.abs(steps).max(initial=0) < 1 << 31
    with replaced(rows_file(pool)) as part, part.open("wb") as file:
        text = np.frombuffer(json_text(told).encode(), np.uint8)
        np.savez_compressed(file, told=text, steps=steps.astype(np.int32 if small else np.int64))


def read_rows_file(file: Path) -> tuple[Path, Numbers]:
    """(the file that a pool's rows are in, their numbers). Raises: DataError where either is not as it was."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            told = json.loads(kept["told"].tobytes())
            numbers = np.cumsum(kept["steps"].astype(np.int64))
        source = Path(os.path.normpath(file.absolute().parent / str(told["source"])))
        size, changed, digest = int(told["size"]), int(told["changed"]), str(told["hash"])
        sound = numbers.ndim == 1 and len(numbers) == told["rows"] and (not len(numbers) or numbers.min() >= 0)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(
            f"{file} does not say which rows a pool has ({first_line(error)}); make the pool again"
        ) from error
    if not sound:
        raise DataError(f"{file} is damaged; make the pool again")
    if not source.is_file():
        raise DataError(f"{file} has rows of {source}, which is not there; put it back, or make the pool again")
    if _stamp(source) != {"size": size, "changed": changed} and hash_of([source]) != digest:
        raise DataError(f"{source} has changed since {file} was made of its rows; make the pool again")
    return source, numbers


def _stamp(source: Path) -> dict[str, int]:
    status = source.stat()
    return {"size": status.st_size, "changed": status.st_mtime_ns}


class PoolReader:
    """The rows of a pool, read from the file that they are in."""

    left_out: tuple[tuple[str, int], ...] = ()
    note, unnamed = "", ()

    def __init__(self, file: Path, source: Reader, numbers: Numbers) -> None:
        """Raises: DataError where the source has fewer rows."""
        if len(numbers) and int(numbers.max()) >= len(source):
            raise DataError(f"{file} has row {int(numbers.max())} of a file of {len(source)} rows; make the pool again")
        self.files: Sequence[Path] = [file]
        self._source, self._numbers = source, numbers

    @property
    def schema(self) -> Any:
        """That of the source."""
        return self._source.schema

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        rows: Rows = []
        for at in range(start, min(stop, len(self)), LINES):
            rows += self._some(self._numbers[at : min(at + LINES, stop)], fields)
        return rows

    def _some(self, numbers: Numbers, fields: Collection[str] | None) -> Rows:
        lines = self._source.lines(numbers) if isinstance(self._source, Lines) else None
        if lines is not None:
            return [parsed(line) for line in b"".join(lines).split(b"\n")[:-1]]
        distinct, where = np.unique(numbers, return_inverse=True)
        there: Rows = []
        for block in np.unique(distinct // BLOCK).tolist():
            asked = distinct[distinct // BLOCK == block]
            first = int(asked[0])
            some = self._source.read(first, int(asked[-1]) + 1, fields)
            there += [some[n - first] for n in asked.tolist()]
        return [dict(there[n]) for n in where.tolist()]

    def lines(self, numbers: Numbers) -> Iterator[bytes] | None:
        """As `Lines` says."""
        return self._source.lines(self._numbers[numbers]) if isinstance(self._source, Lines) else None

    @cached_property
    def numbers(self) -> Numbers:
        """Which rows of the source they are."""
        return self._numbers
