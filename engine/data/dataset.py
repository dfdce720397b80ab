"""A dataset on disk: JSONL, Parquet or a Hugging Face folder, read by row number.

Rows are never held in memory together; workers read their own ranges.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import DataError
from engine.settings.data import DatasetSection

SURROGATE = re.compile("[\ud800-\udfff]")
Rows = list[dict[str, Any]]


class Reader(Protocol):
    """Rows of one file format, by number."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Rows:
        """Rows start … stop-1; a row that cannot be parsed is {BROKEN: reason}."""
        ...


BROKEN = "__broken__"


class JsonlReader:
    """One JSON object a line; blank lines are no rows."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        """(rows + 1,) byte offsets of the lines that are not blank, and the end of the file."""
        starts: list[NDArray[np.int64]] = []
        with self.file.open("rb") as f:
            at, line_start = 0, True
            while block := f.read(1 << 24):
                data = np.frombuffer(block, np.uint8)
                ends = np.flatnonzero(data == 10) + 1
                here = ends + at
                starts.append(np.concatenate(([at] if line_start else [], here[ends < len(data)])).astype(np.int64))
                line_start = bool(len(ends)) and int(ends[-1]) == len(data)
                at += len(block)
        offsets = np.concatenate([*starts, np.array([at], np.int64)])
        widths = np.diff(offsets)
        keep = np.ones(len(widths), bool)
        if (widths <= 2).any():  # only short lines can be blank; longer ones of blanks are broken rows
            text = self._map()
            for i in np.flatnonzero(widths <= 2):
                keep[i] = bool(text[offsets[i] : offsets[i + 1]].strip())
        self._stops = offsets[1:][keep]
        return offsets[:-1][keep]

    def _map(self) -> mmap.mmap | bytes:
        with self.file.open("rb") as f:
            return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if self.file.stat().st_size else b""

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, start: int, stop: int) -> Rows:
        starts, stops = self._offsets[start:stop], self._stops[start:stop]
        rows: Rows = []
        if not len(starts):
            return rows
        with self.file.open("rb") as f:
            base = int(starts[0])
            f.seek(base)
            block = f.read(int(stops[-1]) - base)
        for a, b in zip((starts - base).tolist(), (stops - base).tolist(), strict=True):
            try:
                row = json.loads(block[a:b])
            except (ValueError, RecursionError) as error:
                row = {BROKEN: f"not JSON: {error}"}
            rows.append(row if isinstance(row, dict) else {BROKEN: "not a JSON object"})
        return rows


class ParquetReader:
    """One or more Parquet files, in the order of their names."""

    def __init__(self, files: Sequence[Path]) -> None:
        import pyarrow.parquet as pq

        self._files = [pq.ParquetFile(f) for f in files]
        groups = [(f, g) for f in self._files for g in range(f.num_row_groups)]
        self._groups = groups
        self._last: tuple[Any, Any] | None = None
        self._ends = np.cumsum([f.metadata.row_group(g).num_rows for f, g in groups])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, stop: int) -> Rows:
        rows: Rows = []
        first = int(np.searchsorted(self._ends, start, side="right"))
        for (file, group), end in zip(self._groups[first:], self._ends[first:].tolist(), strict=True):
            begin = end - file.metadata.row_group(group).num_rows
            if begin >= stop:
                break
            if self._last is None or self._last[0] != (file, group):  # chunks are smaller than groups
                self._last = ((file, group), file.read_row_group(group))
            table = self._last[1]
            a, b = max(start, begin) - begin, min(stop, end) - begin
            rows += table.slice(a, b - a).to_pylist()
        return rows


class FolderReader:
    """A folder written by `datasets.save_to_disk`; a DatasetDict counts as its train split."""

    def __init__(self, folder: Path) -> None:
        import datasets

        datasets.disable_progress_bars()
        loaded = datasets.load_from_disk(str(folder))
        if isinstance(loaded, datasets.DatasetDict):
            if "train" not in loaded:
                raise DataError(f"{folder} has the splits {', '.join(loaded)}; give the path of one of them")
            loaded = loaded["train"]
        for name, feature in loaded.features.items():  # undecoded: paths and bytes, not PIL images
            inner = getattr(feature, "feature", None)
            if isinstance(feature, datasets.Image):
                loaded = loaded.cast_column(name, datasets.Image(decode=False))
            elif isinstance(inner, datasets.Image):
                loaded = loaded.cast_column(name, datasets.List(datasets.Image(decode=False)))
        self._data = loaded

    def __len__(self) -> int:
        return len(self._data)

    def read(self, start: int, stop: int) -> Rows:
        block = self._data[start:stop]
        names = list(block)
        return [dict(zip(names, values, strict=True)) for values in zip(*block.values(), strict=True)]


def open_reader(path: Path) -> Reader:
    """The reader for a path, chosen by what it is.

    Raises: DataError when there is no such file, or it is of no known kind.
    """
    if not path.exists():
        raise DataError(f"no such file: {path}; check dataset.path and evaluation.path in the study")
    try:
        if path.is_dir():
            if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
                return FolderReader(path)
            if parts := sorted(path.glob("*.parquet")):
                return ParquetReader(parts)
            raise DataError(f"{path} holds no Hugging Face dataset and no Parquet files; give a JSONL or Parquet file")
        if path.suffix == ".parquet":
            return ParquetReader([path])
        if path.suffix in (".jsonl", ".json", ".ndjson"):
            reader = JsonlReader(path)
            _first_row(reader, path)
            return reader
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}); check the file") from error
    raise DataError(f"{path}: unknown kind of file; JSONL, Parquet and Hugging Face dataset folders are read")


def _first_row(reader: Reader, path: Path) -> None:
    head = reader.read(0, 20)
    if not head:
        raise DataError(f"{path} has no rows; give a file with one JSON object a line")
    if all(BROKEN in row for row in head):
        raise DataError(f"{path} is not JSONL ({head[0][BROKEN]}); it needs one JSON object a line")


@lru_cache(maxsize=8)
def _shared_reader(path: Path, _changed: int) -> Reader:
    return open_reader(path)


@dataclass(frozen=True)
class Dataset:
    """One dataset file and the names of its fields."""

    path: Path
    fields: DatasetSection

    @cached_property
    def reader(self) -> Reader:
        """Opened when first used, once in a process, so that a Dataset can be sent to a worker with every chunk."""
        return _shared_reader(self.path, self.path.stat().st_mtime_ns if self.path.exists() else 0)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "fields": self.fields}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __len__(self) -> int:
        return len(self.reader)

    def chunks(self, size: int) -> Iterator[tuple[int, int]]:
        """Ranges that cover all rows."""
        for start in range(0, len(self), size):
            yield start, min(start + size, len(self))

    def take(self, rows: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """The rows of these numbers, which must ascend; read block by block."""
        block = 4096
        for first in np.unique(rows // block).tolist():
            start = first * block
            read = self.reader.read(start, min(start + block, len(self)))
            a, b = np.searchsorted(rows, (start, start + block))
            yield from (read[row - start] for row in rows[a:b].tolist())

    @property
    def modalities(self) -> frozenset[str]:
        """Which of text, image and video the rows have."""
        named = {"text": self.fields.text, "image": self.fields.images, "video": self.fields.videos}
        return frozenset(kind for kind, name in named.items() if name)

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of the data file(s); media files count by their paths in the rows."""
        return content_hash(self.path)


def content_hash(path: Path) -> str:
    """Hash of what a file, or all files of a folder, hold.

    Raises: DataError when there is no such file.
    """
    parts = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    total = hashlib.blake2b(digest_size=8)
    for part in parts:
        try:
            with part.open("rb") as f:
                total.update(hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).digest())
        except OSError as error:
            raise DataError(f"{part} cannot be read ({error.strerror}); check the path in the study") from error
    return total.hexdigest()


def utf8(text: str) -> str:
    """Half of a surrogate pair, which JSON can hold and UTF-8 cannot, counts as one unknown character."""
    return SURROGATE.sub("\ufffd", text)


def json_line(row: dict[str, Any], default: Callable[[Any], Any] | None = None) -> str:
    """A row as JSON, letters as they are but for half surrogate pairs. Raises: TypeError, as json.dumps does."""
    text = json.dumps(row, ensure_ascii=False, default=default)
    return json.dumps(row, default=default) if not text.isascii() and SURROGATE.search(text) else text


def as_list(value: Any) -> list[Any]:
    """One path, a list of them or nothing, as a list."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
