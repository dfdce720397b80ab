"""What every manipulation of pools shares: a pool opened, written, named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.base.durable import replaced
from engine.base.errors import PoolError
from engine.data.dataset import Dataset, json_line
from engine.data.readers.contract import BROKEN, Lines, Row, Rows
from engine.data.readers.pool_rows import ROWS, PoolReader, read_rows_file, rows_file, write_rows_file
from engine.data.readers.splits import files_of
from engine.settings.data import DatasetSection

Numbers = NDArray[np.int64]
Form = Literal["rows", "jsonl"]  # which rows of the source a pool has, or the rows themselves
Tell = Callable[[str], None]  # takes a note for people
BLOCK = 4_096
NO_PREFIX = "default_prefix"
DOCUMENT = ".jsonl"


def silent(_note: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Pool:
    """A pool's file. base: the file that its rows are in; numbers: which, in order."""

    path: Path
    base: Path
    numbers: Numbers

    @property
    def stem(self) -> str:
        """What files made of it are named after."""
        name = self.path.name.removesuffix(ROWS)
        return name.rpartition(".")[0] or name

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def rows(self) -> Dataset:
        """Its rows."""
        return _dataset(self.path)

    @property
    def every(self) -> Numbers:
        """The places of all its rows."""
        return np.arange(len(self), dtype=np.int64)

    def blocks(self) -> list[tuple[int, int]]:
        """Ranges that cover its rows."""
        return list(self.rows.chunks(BLOCK))

    def read(self, start: int, stop: int) -> Rows:
        """Rows start … stop-1. Raises: PoolError that names one that cannot be read."""
        found = self.rows.reader.read(start, stop)
        refuse_broken(self, found, range(start, stop))
        return found


def _dataset(path: Path) -> Dataset:
    return Dataset(path, DatasetSection(path=str(path), text=None))


def open_pool(path: Path | str) -> Pool:
    """A pool, or any file of rows. Raises: PoolError where there is none; DataError."""
    path = Path(path)
    if not path.exists() and not rows_file(path).is_file():
        raise PoolError(f"no such pool: {path}; check the path, or the job that was to make it")
    rows = _dataset(path)
    if isinstance(rows.reader, PoolReader):
        (file,) = files_of(path, None)
        base, numbers = read_rows_file(file)
        return Pool(path, base, numbers)
    return Pool(path, path, np.arange(len(rows), dtype=np.int64))


def open_pools(paths: str | Path | Sequence[str | Path], apart: bool = False) -> list[Pool]:
    """One pool or several. apart: each has a name of its own. Raises: PoolError."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise PoolError("no pool is given; name one file at least")
    pools = [open_pool(path) for path in given]
    stems = [pool.stem for pool in pools]
    if apart and (twice := next((pool for pool in pools if stems.count(pool.stem) > 1), None)):
        raise PoolError(f"several pools are called {twice.stem}, as {twice.path}; rename all but one, or give it once")
    return pools


def put(target: Path, source: Pool, at: Numbers, form: Form) -> Path:
    """Write a pool of the rows of another, by their places in it; the file that was written. What was there goes.

    Raises: DataError, OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if form == "rows" and source.base.is_file():
        write_rows_file(target, source.base, source.numbers[at])
        target.unlink(missing_ok=True)
        return rows_file(target)
    return put_lines(target, lines_of(source, at))


def put_lines(target: Path, lines: Iterable[bytes]) -> Path:
    """Write a pool of these bytes, which are whole lines."""
    with replaced(target) as part, part.open("wb") as file:
        file.writelines(lines)
    rows_file(target).unlink(missing_ok=True)
    return target


def lines_of(source: Pool, at: Numbers) -> Iterator[bytes]:
    """The rows at these places of a pool as lines of JSON, as they stand in their file where it has lines."""
    reader = source.rows.reader
    some = reader.lines(at) if isinstance(reader, Lines) else None
    if some is not None:
        yield from some
        return
    picked = PoolReader(source.path, reader, at)
    for start in range(0, len(at), BLOCK):
        rows = picked.read(start, start + BLOCK)
        refuse_broken(source, rows, at[start : start + BLOCK])
        yield as_lines(source, rows)


def as_lines(source: Pool, rows: Rows) -> bytes:
    """Rows as lines of JSON. Raises: PoolError where one holds what JSON cannot."""
    try:
        return "".join(json_line(row) + "\n" for row in rows).encode()
    except TypeError as error:  # bytes and dates of a Parquet file
        raise PoolError(f"{source.path} has rows that JSON cannot hold ({error}); leave such columns out") from error


def refuse_broken(source: Pool, rows: Rows, at: Iterable[int]) -> None:
    """Raises: PoolError that names a row that cannot be read."""
    for number, row in zip(at, rows, strict=True):
        if BROKEN in row:
            raise PoolError(f"{source.path}, row {number}: {row[BROKEN]}; mend it there, or take it out")


def as_file(path: Path | str) -> Path:
    """A pool as the file of rows that other programs open: it is written where only its row numbers are kept."""
    pool = open_pool(path)
    kept, target = rows_file(pool.path), pool.path.with_name(pool.path.name.removesuffix(ROWS))
    if pool.path == target and target.exists():
        return target
    if not target.exists() or target.stat().st_mtime_ns < kept.stat().st_mtime_ns:
        with replaced(target) as part, part.open("wb") as file:
            file.writelines(lines_of(pool, pool.every))
    return target


def prefix(pools: Sequence[Pool]) -> str:
    """What the names of these pools have in common at their beginning; may be empty."""
    letters = takewhile(lambda some: len(set(some)) == 1, zip(*(pool.stem for pool in pools), strict=False))
    return "".join(some[0] for some in letters)


def folder_for(out: Path | str) -> Path:
    """The folder that pools go to, made if need be. Raises: PoolError where it cannot be one."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PoolError(f"{folder} cannot be a folder ({os.strerror(error.errno or 0)}); give another one") from error
    return folder


def value_at(row: Row, key: str) -> object:
    """What stands under a dotted key, None where there is nothing. A number is a place in a list."""
    found: object = row
    if key in row:
        return row[key]
    for part in key.split("."):
        if isinstance(found, dict):
            found = found.get(part)
        elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found
