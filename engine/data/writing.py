"""The writer of an output: rows come in ascending order, and every full shard is put into its place at once."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.durable import checksum, flush
from engine.base.ids import content_id
from engine.data.dataset import Dataset
from engine.data.output import Log, Output, working
from engine.data.placement import Placement, sources
from engine.data.rows_file import Change, Numbers, blocks_of, write_rows
from engine.data.samples import add_sample


@dataclass
class Told:
    """What mappers did to rows. rewritten: how many they changed. kept: reason → rows that stay as they were."""

    rewritten: int = 0
    kept: Counter[str] = field(default_factory=Counter)


# (row numbers) → (how the rows are changed, what was done to them)
Prepare = Callable[[Numbers], tuple[Change | None, Told]]


class Writer:
    """Writes rows of a dataset. rows: how many so far, shards that were there included."""

    def __init__(self, output: Output, data: Dataset, root: Path, log: Log, prepare: Prepare) -> None:
        """root: folder of what was unpacked of tars beside the data, or the data file's own."""
        self.rows, self.told = 0, Told()
        self._output, self._data, self._root, self._log, self._prepare = output, data, root, log, prepare
        self._pending: list[Numbers] = []
        self._waiting, self._shard = 0, 0

    def add(self, numbers: Numbers) -> None:
        """Rows that come after those before."""
        self._pending.append(numbers)
        self._waiting += len(numbers)
        size = self._output.shard_rows
        while size and self._waiting >= size:
            self._put(size)

    def close(self) -> None:
        """Write what is left; of no rows at all an empty file."""
        if self._waiting or not self._shard:
            self._put(self._waiting)

    def _put(self, rows: int) -> None:
        ready, at = np.empty(self._waiting, np.int64), 0
        self._pending.reverse()
        while self._pending:  # part by part, so that the numbers are never held twice
            part = self._pending.pop()
            ready[at : at + len(part)] = part
            at += len(part)
        numbers, rest = ready[:rows], ready[rows:]
        self._pending, self._waiting = [rest], len(rest)
        file = self._output.file(self._shard)
        done = self._log.shards.get(self._shard)
        if done is None or done["rows"] != rows or not file.is_file() or file.stat().st_size != done["bytes"]:
            done = self._write(numbers, file)
        self.told.rewritten += int(done["rewritten"])
        self.told.kept.update(done["kept"])
        self.rows, self._shard = self.rows + rows, self._shard + 1

    def _write(self, numbers: Numbers, file: Path) -> dict[str, Any]:
        change, told = self._prepare(numbers)
        draft = self._output.work / file.name
        try:
            if self._output.form == "webdataset":
                self._samples(numbers, draft, change)
            else:
                write_rows(self._data, numbers, draft, change, self._output.form)
            flush(draft)
        except OSError as error:
            draft.unlink(missing_ok=True)
            if error.errno is not None and error.filename in (None, str(draft)):
                raise OSError(error.errno, error.strerror, str(file)) from error
            raise
        if self._output.shard_rows is None:
            self._output.check(self._data)  # somebody may have put a file there meanwhile
        done = {"rows": len(numbers), "bytes": draft.stat().st_size, "rewritten": told.rewritten, "kept": told.kept}
        self._log.finish(self._shard, done)  # before it is in its place: what is there is known, and not written again
        draft.replace(file)
        flush(file.parent)
        return done

    def _samples(self, numbers: Numbers, draft: Path, change: Change | None) -> None:
        fields = self._data.fields
        media = sources(self._data, self._root, [n for n in (fields.images, fields.videos) if n])
        place = self.rows
        with tarfile.open(draft, "w") as tar:
            for rows in blocks_of(self._data, numbers, change):
                for row in rows:
                    number = int(numbers[place - self.rows])
                    add_sample(tar, f"{place:09d}", row, fields.text, media(number, row))
                    place += 1


def export_rows(data: Dataset, rows: Numbers, root: Path, output: Output, with_media: bool) -> int:
    """Write these rows of a dataset, which ascend; how many. root: what was unpacked of tars beside the data."""
    placement = None if output.form == "webdataset" else placed(data, root, output, with_media)
    identity = content_id(
        [data.fingerprint, data.key, checksum(rows.tobytes()), output.form, output.shard_rows, with_media]
    )
    change = placement.change if placement and placement.changes else None
    with working(output, data, identity) as log:
        writer = Writer(output, data, root, log, lambda _: (change, Told()))
        writer.add(rows)
        writer.close()
    return writer.rows


def placed(data: Dataset, root: Path, output: Output, with_media: bool, but: frozenset[str] = frozenset()) -> Placement:
    """How media are named where the rows will lie. but: fields that are written otherwise. Raises: DataError."""
    fields = tuple(name for name in (data.fields.images, data.fields.videos) if name and name not in but)
    place = output.media if with_media else None
    placement = Placement(data, root, output.folder, place, output.form == "parquet", fields)
    placement.refuse_tars()
    return placement
