"""WebDataset: samples in tar shards. Members are read at their places; nothing is unpacked, and no pickle is loaded.

A row has `__key__` and each member under its extension: texts as text, a `.json` member's own fields, and all others as
{path, offset, size}, which `engine.data.media.locate` reads. `0.jpg`, `1.jpg`, … are the list `jpg`. Where pictures (or
videos) have several extensions, `image` (or `video`) is the one that the sample has. A field of a `.json` member whose
name is taken stands as `json.NAME`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.base.errors import DataError
from engine.base.remote import as_path, is_remote, pread
from engine.data.readers.contract import BROKEN, Options, Row, Rows
from engine.data.readers.kept import WHOLE, kept
from engine.data.readers.shard import JSON, TEXTS
from engine.data.readers.shards import make_index, open_index
from engine.data.readers.tar_members import PACKED

KEY = "__key__"
TEXT_MOST = 1 << 23  # bytes of a text
KINDS = {
    "image": ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pbm"),
    "video": ("mp4", "mov", "mkv", "webm", "avi", "mpeg", "mpg", "flv", "ogv", "wmv", "m4v", "ts"),
}
LABELS = TEXTS - {"txt", "text", "caption", "transcript"}  # blanks around them do not count
NUMBERED = re.compile(r"(\d{1,6})\.(.+)")


class WebDatasetReader:
    """Rows of tar shards, in the order of their names. See the module."""

    schema, unnamed = None, ()

    def __init__(self, files: Sequence[Path], options: Options, folder: Path) -> None:
        """folder: what the paths in rows are relative to. Raises: DataError where shards are compressed."""
        if packed := next((f for f in files if f.name.endswith(PACKED)), None):
            raise DataError(f"{packed} is compressed, so that no member can be read by itself; gunzip the shards")
        self._shards, self._options, self._folder = files, options, folder

    @cached_property
    def _index(self) -> Any:
        folder = kept(self._shards, WHOLE, self._options, lambda part: make_index(self._shards, part))
        facts, arrays = open_index(folder)
        bad, count = facts.bad, len(self._shards)
        if bad and (len(bad) > self._options.max_bad * count or not facts.files):
            raise DataError(f"{self._shards[0].parent}: {bad[0]}; {len(bad)} of {count} shards are so, check them")
        self._several = {
            kind: [n for n in facts.names if n in names]
            for kind, names in KINDS.items()
            if len(set(facts.names) & set(names)) > 1
        }
        return facts, arrays

    @property
    def files(self) -> list[Path]:
        """The shards that can be read."""
        return [as_path(file) for file in self._index[0].files]

    @property
    def left_out(self) -> tuple[tuple[str, int], ...]:
        """Members that belong to no sample, and how many."""
        return tuple(self._index[0].left.items())

    @property
    def fingerprint(self) -> str:
        """Hash of the names and sizes of all members, and of all texts."""
        return str(self._index[0].content)

    @property
    def note(self) -> str:
        """The split, the number of shards, and what is odd about them."""
        facts = self._index[0]
        told = [f"split {self._options.split}"] if self._options.split else []
        told += [f"{len(facts.files)} shards"]
        told += [f"{n} of them {what}" for what, n in facts.notes.items()]
        told += [f"keys come again in other shards, so {KEY} is SHARD/KEY"] if facts.shared else []
        told += [f"{len(facts.bad)} shards left out: {facts.bad[0]}"] if facts.bad else []
        return ", ".join(told)

    def __len__(self) -> int:
        rows = self._index[0].rows
        return rows[-1] if rows else 0

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        """Rows start … stop-1. fields: members of other names are not read."""
        facts, _ = self._index
        rows: Rows = []
        stop = min(stop, len(self))
        while start < stop:
            number = int(np.searchsorted(facts.rows, start, side="right"))
            end = min(stop, facts.rows[number])
            rows += self._of_shard(number, start, end, None if fields is None else frozenset(fields))
            start = end
        return rows

    def _of_shard(self, number: int, start: int, stop: int, fields: frozenset[str] | None) -> Rows:
        facts, arrays = self._index
        shard = as_path(facts.files[number])
        ends, firsts = arrays["ends"][max(0, start - 1) : stop].tolist(), arrays["firsts"][start : stop + 1].tolist()
        ends = ends if start else [0, *ends]
        keys = arrays["keys"][ends[0] : ends[-1]].tobytes()
        place = slice(firsts[0], firsts[-1])
        members = list(zip(*(arrays[n][place].tolist() for n in ("extensions", "offsets", "sizes")), strict=True))
        prefix = f"{shard.stem}/" if facts.shared else ""
        near = shard.parent == self._folder or is_remote(shard)
        path = str(shard.relative_to(self._folder)) if near else str(shard)
        rows: Rows = []
        with shard.open("rb", buffering=0) as file:
            for at, row in enumerate(range(start, stop)):
                if row in facts.problems:
                    rows.append({BROKEN: facts.problems[row]})
                    continue
                key = prefix + keys[ends[at] - ends[0] : ends[at + 1] - ends[0]].decode()
                here = members[firsts[at] - firsts[0] : firsts[at + 1] - firsts[0]]
                try:
                    named = [(facts.names[e], offset, size) for e, offset, size in here]
                    rows.append(_row(file, path, key, named, fields, self._several))
                except (ValueError, RecursionError) as error:
                    rows.append({BROKEN: f"{' '.join(str(error).split())}: {shard.name}, {key}"})
        return rows


def _row(
    file: IO[bytes], path: str, key: str, members: list[tuple[str, int, int]], fields: frozenset[str] | None,
    several: dict[str, list[str]],
) -> Row:  # fmt: skip
    """A sample as a row. Raises: ValueError with the reason, RecursionError."""
    row: Row = {KEY: key}
    listed: dict[str, list[tuple[int, Any]]] = {}
    flat: dict[str, Any] = {}
    whole = {name for name, _, _ in members}
    for name, offset, size in members:
        if name == JSON or name.endswith(f".{JSON}"):
            if fields is None or not fields <= whole | {KEY, *several}:
                content = _json(_text(file, name, offset, size))
                if name == JSON and isinstance(content, dict):
                    flat = content
                else:
                    row[name] = content
        elif name in TEXTS:
            if fields is None or name in fields:
                row[name] = _text(file, name, offset, size)
        else:
            value = {"path": path, "offset": offset, "size": size}
            numbered = NUMBERED.fullmatch(name)
            if numbered and numbered[2] not in whole:
                listed.setdefault(numbered[2], []).append((int(numbered[1]), value))
            else:
                row[name] = value
    row |= {name: [value for _, value in sorted(values, key=lambda v: v[0])] for name, values in listed.items()}
    for kind, names in several.items():
        if one := next((row[n] for n in names if n in row), None):
            row[kind] = one
    return row | {f"json.{name}" if name in row else name: value for name, value in flat.items()}


def _text(file: IO[bytes], name: str, offset: int, size: int) -> str:
    """A member's text. Raises: ValueError."""
    if size > TEXT_MOST:
        raise ValueError(f"too large a text of {size} bytes, where {TEXT_MOST} are read")
    content = pread(file, size, offset)
    if len(content) < size:
        raise ValueError("truncated shard")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"a text that is no UTF-8 ({name}, {error.reason})") from None
    return text.strip() if name in LABELS else text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
