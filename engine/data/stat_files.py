"""A statistic's column on disk, written chunk by chunk, and mapped only while it is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.arrays import new_array
from engine.base.durable import QUICK, checksum, discard, flush
from engine.base.errors import OpError
from engine.data import datajuicer
from engine.data.cuts import Column, StatisticColumn
from engine.data.op_values import ChunkResult, OpRun
from engine.journal import caches
from engine.journal.caches import StatisticRun
from engine.journal.store import Store

BLOCK = 1 << 20  # rows that are compared at a time


class StoredColumn(Column):
    """A column in its file: it takes memory only while it is looked at."""

    def __init__(self, file: Path, low: int, high: int) -> None:
        """low, high: the lines of the file; the same where every row has one value."""
        vars(self).update(_file=file, _lines=(low, high))

    @property
    def low(self) -> NDArray[np.float64]:
        """(rows,) mapped anew at every call, so that nothing stays in memory."""
        return self._line(0)

    @property
    def high(self) -> NDArray[np.float64]:
        """(rows,) likewise."""
        return self._line(1)

    @property
    def single(self) -> bool:
        """True when every row has one value."""
        low, high = vars(self)["_lines"]
        return bool(low == high)

    def _line(self, which: int) -> NDArray[np.float64]:
        line: NDArray[np.float64] = np.load(vars(self)["_file"], mmap_mode="r")[vars(self)["_lines"][which]]
        return line.view(np.ndarray)


def disk(run: OpRun, rows: int) -> int:
    """Bytes that the column of a run takes on disk: one number a row and statistic, two where rows may have several."""
    return 8 * rows * _line_count(run)


def _line_count(run: OpRun) -> int:
    return len(run.listed) + sum(run.listed)


def column_file(state: Path, key: str) -> Path:
    """Where the column of a run lies."""
    return state / "cache" / "statistics" / f"{key}.npy"


def load(run: OpRun, state: Path) -> list[StatisticColumn]:
    """The columns of a run that is complete."""
    file = column_file(state, run.key)
    saved = np.load(file, mmap_mode="r")
    columns = []
    for statistic, (low, high) in zip(run.statistics, _lines(run, len(saved)), strict=True):
        same = low == high or _equal(saved[low], saved[high])
        column = StoredColumn(file, low, low if same else high)
        columns.append(StatisticColumn(run.name, statistic, run.params, column))
    return columns


def _equal(low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
    blocks = (slice(at, at + BLOCK) for at in range(0, len(low), BLOCK))
    return all(np.array_equal(low[block], high[block], equal_nan=True) for block in blocks)


def is_complete(run: OpRun, rows: int, store: Store, state: Path) -> bool:
    """True where the column of a run is there for all rows, and holds what was written."""
    file, chunks = column_file(state, run.key), caches.chunks(store, run.key)
    if sum(chunk.stop - chunk.start for chunk in chunks) != rows or _fault(file, len(run.statistics), rows):
        return False
    column = np.load(file, mmap_mode="r")
    return all(chunk.sum == _sum(column, chunk) for chunk in chunks)


def _lines(run: OpRun, lines: int) -> list[tuple[int, int]]:
    """Where the smallest and largest values of each statistic lie in a file of so many lines.

    One line holds both where a row has one value. An older djsb wrote two lines for every statistic.
    """
    if lines == 2 * len(run.listed):
        return [(2 * i, 2 * i + 1) for i in range(len(run.listed))]
    found, at = [], 0
    for listed in run.listed:
        found.append((at, at + listed))
        at += 1 + listed
    return found


def open_column(run: OpRun, dataset: str, rows: int, store: Store, state: Path) -> np.memmap[Any, Any]:
    """The column's file. A new one, or one of another size, forgets the chunks that were computed."""
    file = column_file(state, run.key)
    if _fault(file, len(run.statistics), rows) is None:
        return np.lib.format.open_memmap(file, mode="r+")
    discard(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    names = ",".join(name.replace(",", ";") for name in run.statistics)  # their number is read from it
    caches.begin_statistic(store, StatisticRun(
        run.key, dataset, run.name, names, repr(dict(run.params)), datajuicer.version(), rows,
    ))  # fmt: skip
    column = new_array(file, np.float64, (_line_count(run), rows))
    column.flush()
    flush(file)
    flush(file.parent)
    return column


def write(run: OpRun, column: NDArray[np.float64], start: int, block: NDArray[np.float64]) -> str:
    """Put a chunk's values into the column; their sum. block: two lines a statistic, smallest and largest values.

    Raises: OpError where rows have several values, and the catalogue says that they have one.
    """
    kept: list[int] = []
    for i, (low, high) in enumerate(_lines(run, len(column))):
        if low == high and not _equal(block[2 * i], block[2 * i + 1]):
            raise OpError(f"{run.name} gives several values of {run.statistics[i]} in a row; leave it out of ops")
        kept += (2 * i, 2 * i + 1)[: 1 + high - low]
    part = column[:, start : start + block.shape[1]] = block[kept]
    return checksum(part.tobytes())


def save(
    done: Sequence[ChunkResult], sums: Mapping[tuple[str, int], str], files: Mapping[str, Any], store: Store
) -> None:
    """Have what was computed on the disk, then count it."""
    for key in {key for _, _, values, _, _ in done for key in values}:
        files[key].flush()
    with store.transaction():
        for start, stop, values, unreadable, seconds in done:
            caches.add_chunk(store, start, stop, {key: sums[key, start] for key in values}, seconds, unreadable)


def _fault(file: Path, names: int, rows: int) -> str | None:
    """What is wrong with a column's file by its size and header, or None. names: statistics that it holds."""
    if not file.is_file():
        return "it is a folder" if file.is_dir() else "it is missing"
    try:
        with file.open("rb") as head:
            version = np.lib.format.read_magic(head)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            found, _, kind = read[version](head)
            if len(found) != 2 or found[1] != rows or not names <= found[0] <= 2 * names or kind != np.float64:
                return f"it holds {kind} {found} in place of float64 of {rows} rows"
            size = head.tell() + 8 * found[0] * rows
    except (ValueError, KeyError):
        return "it is no array"
    if (have := file.stat().st_size) != size:
        return f"it has {have} bytes in place of {size}"
    return None


def verify(run: StatisticRun, state: Path, store: Store, deep: bool) -> tuple[int, str | None]:
    """(bytes, what is wrong) of a stored column: its size and header, and the sums of its chunks where they are few
    bytes, or when `deep`. What is lost is forgotten, so that it is computed again.
    """
    file = column_file(state, run.id)
    chunks = caches.chunks(store, run.id)
    if not chunks:
        return 0, None
    names = len(run.statistic.split(","))
    lost, why, size = chunks, _fault(file, names, run.rows), 8 * names * run.rows
    if why is None:
        column = np.load(file, mmap_mode="r")
        size = column.nbytes
        lost = [c for c in chunks if c.sum is None or ((deep or size <= QUICK) and c.sum != _sum(column, c))]
        old = "; an older djsb wrote it" * any(c.sum is None for c in lost)
        why = f"{len(lost)} of {len(chunks)} parts do not have the sum that was noted{old}" if lost else None
    caches.forget_chunks(store, run.id, lost if why else ())
    return size, why


def _sum(column: NDArray[np.float64], chunk: caches.Chunk) -> str:
    return checksum(column[:, chunk.start : chunk.stop].tobytes())
