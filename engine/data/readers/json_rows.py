"""JSON files of rows: one object a line, or one list of objects. Every reader of such files reads them here."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import DataError
from engine.base.text import BOM, decode, refuse_wide
from engine.data.readers.contract import BROKEN, Row

BLOCK = 4096  # rows that `entries` reads at once
LINES = 16_384  # rows whose bytes are copied at once
BLANK = b" \t\r\n"
SPACE = re.compile(r"[ \t\r\n]*")
Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """Where rows stand in a file: bytes from `starts` to `stops`.

    numbers: of the line, from 1, or of the list's entry, from 0. listed: the file is one list. blank: blank lines.
    """

    starts: Offsets
    stops: Offsets
    numbers: Offsets
    listed: bool = False
    blank: int = 0


class JsonReader:
    """Rows by number. A blank line is no row; a row that is no JSON object is {BROKEN: reason}."""

    note, schema, unnamed = "", None, ()

    def __init__(self, file: Path) -> None:
        self.file, self.files = file, [file]

    @cached_property
    def _spans(self) -> Spans:
        with self.file.open("rb") as f:
            head = f.read(1 << 16)
            refuse_wide(head[:4], str(self.file))
            start = len(BOM) if head.startswith(BOM) else 0
            if head[start:].lstrip(BLANK).startswith(b"["):
                content = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
                if not _begins_with_a_list_a_line(content, start):
                    return _list_spans(content, start, self.file)
        return _line_spans(self.file, start)

    @property
    def left_out(self) -> tuple[tuple[str, int], ...]:
        """What of the file is no row, and how often."""
        return (("blank lines", self._spans.blank),) if self._spans.blank else ()

    def __len__(self) -> int:
        return len(self._spans.starts)

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        number = int(self._spans.numbers[row])
        return f"{self.file}, {'entry' if self._spans.listed else 'line'} {number}"

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> list[Row]:
        """Rows start … stop-1, with all their fields."""
        starts, stops = self._spans.starts[start:stop], self._spans.stops[start:stop]
        rows: list[Row] = []
        if not len(starts):
            return rows
        with self.file.open("rb") as f:
            base = int(starts[0])
            f.seek(base)
            block = f.read(int(stops[-1]) - base)
        for a, b in zip((starts - base).tolist(), (stops - base).tolist(), strict=True):
            try:
                row = json.loads(block[a:b].removeprefix(BOM).decode("utf-8", "surrogatepass"))
            except (ValueError, RecursionError) as error:
                row = {BROKEN: f"not JSON: {error}"}
            rows.append(row if isinstance(row, dict) else {BROKEN: "not a JSON object"})
        return rows

    def lines(self, numbers: Offsets) -> Iterator[bytes] | None:
        """The bytes of these rows, which ascend, a line each, block by block; None where rows are entries of a list."""
        return None if self._spans.listed else self._lines(numbers)

    def _lines(self, numbers: Offsets) -> Iterator[bytes]:
        with self.file.open("rb") as f:
            for at in range(0, len(numbers), LINES):
                block = numbers[at : at + LINES]
                starts, stops = self._spans.starts[block], self._spans.stops[block]
                base = int(starts[0])
                f.seek(base)
                content = f.read(int(stops[-1]) - base)
                breaks = np.flatnonzero(starts[1:] != stops[:-1]) + 1  # lines that follow each other are copied at once
                firsts = (starts[np.concatenate(([0], breaks))] - base).tolist()
                lasts = (stops[np.concatenate((breaks - 1, [len(block) - 1]))] - base).tolist()
                parts = [content[a:b] for a, b in zip(firsts, lasts, strict=True)]
                if not content.endswith(b"\n"):  # the last line of the file, which may stand there more than once
                    parts = [part if part.endswith(b"\n") else part + b"\n" for part in parts]
                yield b"".join(parts)


def entries(file: Path, key: str | None = None) -> Iterator[tuple[str, Row]]:
    """(place for messages, row) of a file that is read whole. Raises: DataError when it cannot be read.

    key: the file may be one object instead, that holds the list under this name.
    """
    try:
        inner = _list_under(file, key) if key else None
        if inner is not None:
            for number, row in enumerate(inner):
                yield f"{file}, {key}[{number}]", row if isinstance(row, dict) else {BROKEN: "not a JSON object"}
            return
        reader = JsonReader(file)
        for start in range(0, len(reader), BLOCK):
            for number, row in enumerate(reader.read(start, start + BLOCK), start):
                yield reader.place(number), row
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); check the path and its permissions") from error


def _list_under(file: Path, key: str) -> list[Any] | None:
    """The list that one object holds; None where the file is no such object."""
    try:
        content = json.loads(decode(file.read_bytes(), str(file)))
    except (ValueError, RecursionError):
        return None
    inner = content.get(key) if isinstance(content, dict) else None
    return inner if isinstance(inner, list) else None


def _begins_with_a_list_a_line(content: mmap.mmap, start: int) -> bool:
    """True where the file has a row a line and the first of them is a list: a broken row, not a list of rows."""
    while (end := content.find(b"\n", start)) >= 0 and not content[start:end].strip():
        start = end + 1
    if end < 0 or not content[start:end].rstrip().endswith(b"]") or not content[end:].strip():
        return False
    try:
        json.loads(content[start:end])
    except (ValueError, RecursionError):
        return False
    return True


def _list_spans(content: mmap.mmap, start: int, file: Path) -> Spans:
    """Where the entries of a list stand. Raises: DataError that names the entry from which on it is no JSON."""
    text = content[:].decode("latin-1")  # a letter a byte: JSON's own signs are ASCII, and only places are asked for
    scan = json.JSONDecoder().raw_decode
    starts: list[int] = []
    stops: list[int] = []
    at = _next(text, text.index("[", start) + 1)
    closed = text.startswith("]", at)
    try:
        while not closed:
            _, stop = scan(text, at)
            starts.append(at)
            stops.append(stop)
            at = _next(text, stop)
            closed = text.startswith("]", at)
            if not closed:
                if not text.startswith(",", at):
                    raise ValueError("a comma or ] is missing" if at < len(text) else "the file ends before its ]")
                at = _next(text, at + 1)
    except (ValueError, RecursionError) as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{file}, entry {len(starts)} is not JSON ({said}, byte {at}); mend it there") from None
    if _next(text, at + 1) < len(text):
        raise DataError(f"{file} goes on after the end of its list (byte {at + 1}); make it one list")
    ends = np.array(stops, np.int64)
    return Spans(np.array(starts, np.int64), ends, np.arange(len(ends)), listed=True)


def _next(text: str, at: int) -> int:
    """The place of the next sign that is not blank."""
    found = SPACE.match(text, at)
    return found.end() if found else at


def _line_spans(file: Path, begin: int) -> Spans:
    """The lines that are not blank. begin: where the first starts."""
    starts: list[Offsets] = []
    with file.open("rb") as f:
        at, line_start = 0, True
        while block := f.read(1 << 24):
            data = np.frombuffer(block, np.uint8)
            ends = np.flatnonzero(data == 10) + 1
            here = ends + at
            starts.append(np.concatenate(([at] if line_start else [], here[ends < len(data)])).astype(np.int64))
            line_start = bool(len(ends)) and int(ends[-1]) == len(data)
            at += len(block)
        offsets = np.concatenate([*starts, np.array([at], np.int64)])
        if len(offsets) > 1:
            offsets[0] = begin
        widths = np.diff(offsets)
        keep = np.ones(len(widths), bool)
        if (widths <= 2).any():  # only short lines can be blank; longer ones of blanks are broken rows
            text = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
            for i in np.flatnonzero(widths <= 2):
                keep[i] = bool(text[offsets[i] : offsets[i + 1]].strip())
    return Spans(
        offsets[:-1][keep], offsets[1:][keep], np.flatnonzero(keep) + 1, blank=int((~keep).sum())
    )  # fmt: skip
