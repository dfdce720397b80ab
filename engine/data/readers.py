"""Readers of a dataset's files: rows by number, whatever the format, and which of several splits is read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine.base.errors import DataError
from engine.data.json_rows import BROKEN, JsonReader

Rows = list[dict[str, Any]]
GLOB = re.compile(r"[*?\[]")
# as Hugging Face names the files of a split
SPLIT = re.compile(
    r"(?:^|[-._ /\d])(?:(?P<train>train(?:ing)?)|(?P<validation>validation|valid|val|dev)|(?P<test>test(?:ing)?|eval))"
    r"(?=$|[-._ /\d])",
    re.IGNORECASE,
)
OTHER = "without a split in their names"


class Reader(Protocol):
    """Rows of one file format, by number.

    left_out: what of the files is no row, and how often. note: which split is read, how shards differ; or empty.
    """

    @property
    def left_out(self) -> tuple[tuple[str, int], ...]: ...

    @property
    def note(self) -> str: ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Rows:
        """Rows start … stop-1; a row that cannot be parsed is {BROKEN: reason}."""
        ...


class ParquetReader:
    """One or more Parquet files, in the order of their names."""

    left_out = ()

    def __init__(self, files: Sequence[Path], split: str | None = None, max_bad: float = 0.0) -> None:
        """max_bad: share of several files that may be unreadable, and are left out. Raises: DataError above it."""
        import pyarrow.parquet as pq

        self.split, self.files, self._open, self._bad = split, list[Path](), list[Any](), list[str]()
        for file in files:
            try:
                self._open.append(pq.ParquetFile(file))
                self.files.append(file)
            except (OSError, ValueError) as error:
                self._bad.append(f"{file.name} cannot be read ({_first_line(error)})")
        if self._bad and (len(self._bad) > max_bad * len(files) or not self.files):
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
                    f"{file} has other columns than the files before it ({_first_line(error)}); give files of "
                    "one schema"
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

    def read(self, start: int, stop: int) -> Rows:
        rows: Rows = []
        first = int(np.searchsorted(self._ends, start, side="right"))
        for (file, group), end in zip(self._groups[first:], self._ends[first:].tolist(), strict=True):
            begin = end - file.metadata.row_group(group).num_rows
            if begin >= stop:
                break
            if self._last is None or self._last[0] != (file, group):  # chunks are smaller than groups
                self._last = ((file, group), *_group(file, group))
            _, table, broken = self._last
            a, b = max(start, begin) - begin, min(stop, end) - begin
            rows += _rows(table, a, b) if table is not None else [{BROKEN: broken} for _ in range(a, b)]
        return rows


def _group(file: Any, group: int) -> tuple[Any, str]:
    """(the table of a row group, empty), or (None, why its rows cannot be read)."""
    try:
        table = file.read_row_group(group)
        table.validate(full=True)
        if table.num_rows != (told := file.metadata.row_group(group).num_rows):
            raise ValueError(f"it has {table.num_rows} rows in place of {told}")
        return table, ""
    except (OSError, ValueError) as error:
        return None, f"unreadable part of a Parquet file: {_first_line(error)}"


def _rows(table: Any, start: int, stop: int) -> Rows:
    """Rows of a table; one with a value that Python cannot hold is broken."""
    try:
        rows: Rows = table.slice(start, stop - start).to_pylist()
        return rows
    except (ValueError, OverflowError) as error:
        if stop - start == 1:
            return [{BROKEN: f"unreadable row of a Parquet file: {_first_line(error)}"}]
        return [row for at in range(start, stop) for row in _rows(table, at, at + 1)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class FolderReader:
    """A folder written by `datasets.save_to_disk`; of several splits the named one, or train where none is named."""

    left_out = ()
    unnamed: tuple[str, ...]  # the splits, where there are several and none is named

    def __init__(self, folder: Path, split: str | None = None) -> None:
        import datasets

        datasets.disable_progress_bars()
        loaded = datasets.load_from_disk(str(folder))
        self.note, self.unnamed = "", ()
        if isinstance(loaded, datasets.DatasetDict):
            chosen = split or "train"
            if chosen not in loaded:
                raise DataError(f"{folder} has the splits {', '.join(loaded)}; name one of them as dataset.split")
            self.unnamed = tuple(loaded) if len(loaded) > 1 and split is None else ()
            others = ", ".join(sorted(set(loaded) - {chosen}))
            self.note = f"split {chosen}" + (f", not {others}" if others else "")
            loaded = loaded[chosen]
        elif split is not None:
            raise DataError(f"{folder} holds one split; leave dataset.split out")
        self._data = loaded.with_format("arrow")  # nothing is decoded: media as {bytes, path}

    @property
    def schema(self) -> Any:
        """Of the rows, as Arrow has it."""
        return self._data.features.arrow_schema

    def __len__(self) -> int:
        return len(self._data)

    def read(self, start: int, stop: int) -> Rows:
        rows: Rows = self._data[start:stop].to_pylist()
        return rows


def is_saved(folder: Path) -> bool:
    """True for a folder written by `datasets.save_to_disk`."""
    return (folder / "state.json").exists() or (folder / "dataset_dict.json").exists()


def files_of(path: Path, split: str | None) -> list[Path]:
    """The files that a path means: itself, those of a folder, or those that fit a pattern like `train-*.parquet`.

    split: which of them are read. Raises: DataError when there is none, or they belong to several splits and none is
    named.
    """
    if path.is_dir():
        found = sorted(path.glob("*.parquet"))
        if not found:
            raise DataError(f"{path} holds no Hugging Face dataset and no Parquet files; give a JSONL or Parquet file")
    elif path.exists():
        found = [path]
    else:
        found = sorted(path.parent.glob(path.name)) if GLOB.search(path.name) else []
        if not found:
            raise DataError(f"no such file: {path}; check dataset.path and evaluation.path in the study")
    splits: dict[str, list[Path]] = {}
    for file in found:
        splits.setdefault(_split_of(file), []).append(file)
    if split is not None:
        if split not in splits:
            raise DataError(f"{path} has no file of the split {split}, but of {_told(splits)}; name one of them")
        return splits[split]
    if len(splits) > 1:
        folder, first = path if path.is_dir() else path.parent, splits[min(splits, key=_order)][0]
        raise DataError(
            f"{path} holds files of several splits: {_told(splits)}; set dataset.split to one of them, or give their "
            f"files as the path, as {folder / _pattern(first)}"
        )
    return found


def _split_of(file: Path) -> str:
    found = SPLIT.search(file.stem)
    return str(found.lastgroup) if found else OTHER


def _pattern(file: Path) -> str:
    """What the files of this one's split are called."""
    found = SPLIT.search(file.stem)
    assert found is not None
    word = found[str(found.lastgroup)]
    return f"{'' if file.stem.startswith(word) else '*'}{word}*{file.suffix}"


def _order(split: str) -> int:
    return ("train", "validation", "test", OTHER).index(split)


def _told(splits: dict[str, list[Path]]) -> str:
    return ", ".join(f"{name} ({len(files)})" for name, files in sorted(splits.items()))


def open_reader(path: Path, split: str | None = None, max_bad: float = 0.0) -> Reader:
    """The reader for a path, chosen by what it is. max_bad: share of its files that may be unreadable.

    Raises: DataError when there is no such file, it is of no known kind, or a split must be named.
    """
    try:
        if path.is_dir() and is_saved(path):
            return FolderReader(path, split)
        files = files_of(path, split)
        kinds = {file.suffix for file in files}
        if kinds == {".parquet"}:
            return ParquetReader(files, split, max_bad)
        if len(files) > 1:
            raise DataError(f"{path}: several files are read where all are Parquet; give one file")
        if kinds <= {".jsonl", ".json", ".ndjson"}:
            reader = JsonReader(files[0])
            _first_row(reader, files[0])
            return reader
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({_first_line(error)}); check the file") from error
    raise DataError(f"{path}: unknown kind of file; JSONL, Parquet and Hugging Face dataset folders are read")


def _first_row(reader: Reader, path: Path) -> None:
    head = reader.read(0, 20)
    if not head:
        raise DataError(f"{path} has no rows; give a file with one JSON object a line")
    if all(BROKEN in row for row in head):
        raise DataError(f"{path} is not JSONL ({head[0][BROKEN]}); it needs one JSON object a line, or a list of them")
