"""JSON files of rows: one object a line, or one list of objects. Every reader of such files reads them here."""

from __future__ import annotations

import json
import mmap
import re
from array import array
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import DataError
from engine.base.remote import RemoteFile, is_remote, pread, size_of
from engine.base.text import BOM, decode, refuse_wide
from engine.data.readers.contract import BROKEN, PLAIN, BrokenFile, Options, Row
from engine.data.readers.kept import kept

BLOCK = 4096  # rows that `entries` reads at once
LINES = 16_384  # rows whose bytes are copied at once
WINDOW = 1 << 22  # bytes of a list that are looked at together, at least
LARGEST = 1 << 26  # bytes of a row
PLACES = 1 << 16  # entries of a list whose places are written together
KEPT = 1 << 23  # bytes of a file from which on it is kept where its rows stand
BLANK = b" \t\r\n"
SPACE = re.compile(r"[ \t\r\n]*")
SOLID = re.compile(rb"[^ \t\r\n]")
DECODE = json.JSONDecoder().raw_decode
Offsets = NDArray[np.int64]
NONE: Offsets = np.zeros(0, np.int64)
Piece = tuple[Offsets, Offsets]  # (k, 2) bytes from and to of rows; numbers of blank lines, from 0


@dataclass(frozen=True)
class Spans:
    """Where rows stand in a file.

    places: (rows, 2) bytes from and to. blank: numbers of the blank lines, from 0. listed: the file is one list.
    """

    places: Offsets
    blank: Offsets
    listed: bool


class JsonReader:
    """Rows by number. A blank line is no row; a row that is no JSON object is {BROKEN: reason}."""

    note, schema, unnamed = "", None, ()

    def __init__(self, file: Path, options: Options = PLAIN) -> None:
        self.file, self.files, self._options = file, [file], options

    @cached_property
    def _spans(self) -> Spans:
        start, listed = _form(self.file)
        look = _list_places if listed else _line_places
        if self.file.stat().st_size < KEPT:
            places, blank = zip((NONE.reshape(0, 2), NONE), *look(self.file, start), strict=True)
            return Spans(np.concatenate(places), np.concatenate(blank), listed)

        def make(folder: Path) -> None:
            with (folder / "places").open("wb") as places, (folder / "blank").open("wb") as blank:
                for rows, empty in look(self.file, start):
                    places.write(rows.tobytes())
                    blank.write(empty.tobytes())

        folder = kept([self.file], "rows", self._options, make)
        return Spans(_mapped(folder / "places").reshape(-1, 2), _mapped(folder / "blank"), listed)

    @property
    def left_out(self) -> tuple[tuple[str, int], ...]:
        """What of the file is no row, and how often."""
        return (("blank lines", len(self._spans.blank)),) if len(self._spans.blank) else ()

    def __len__(self) -> int:
        return len(self._spans.places)

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        if self._spans.listed:
            return f"{self.file}, entry {row}"
        before = np.searchsorted(self._spans.blank - np.arange(len(self._spans.blank)), row, side="right")
        return f"{self.file}, line {row + int(before) + 1}"

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> list[Row]:
        """Rows start … stop-1, with all their fields."""
        places = self._spans.places[start:stop].tolist()
        rows: list[Row] = []
        with self.file.open("rb", buffering=1 << 18) as f:
            for begin, end in places:
                if end - begin > LARGEST:
                    rows.append({BROKEN: f"not JSON: it has {end - begin} bytes, more than {LARGEST}"})
                    continue
                f.seek(begin)
                rows.append(parsed(f.read(end - begin)))
        return rows

    def lines(self, numbers: Offsets) -> Iterator[bytes] | None:
        """The bytes of these rows, which ascend, a line each, block by block; None where rows are entries of a list."""
        return None if self._spans.listed else self._lines(numbers)

    def _lines(self, numbers: Offsets) -> Iterator[bytes]:
        with self.file.open("rb") as f:
            for at in range(0, len(numbers), LINES):
                places = self._spans.places[numbers[at : at + LINES]]
                breaks = np.flatnonzero(places[1:, 0] != places[:-1, 1]) + 1  # lines that follow are copied at once
                firsts, lasts = places[np.append([0], breaks), 0], places[np.append(breaks - 1, [-1]), 1]
                parts = []
                for begin, end in zip(firsts.tolist(), lasts.tolist(), strict=True):
                    f.seek(begin)
                    part = f.read(end - begin)
                    parts.append(part if part.endswith(b"\n") else part + b"\n")  # the last line of the file
                yield b"".join(parts)


def parsed(content: bytes) -> Row:
    """The row that a line holds; {BROKEN: reason} where it is no JSON object."""
    try:
        row = json.loads(content.removeprefix(BOM).decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        return {BROKEN: f"not JSON: {error}"}
    return row if isinstance(row, dict) else {BROKEN: "not a JSON object"}


def _mapped(file: Path) -> Offsets:
    """The numbers in a file, which are read when they are needed."""
    return np.memmap(file, np.int64, "r") if file.stat().st_size else NONE


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


def _form(file: Path) -> tuple[int, bool]:
    """(where the first row or the list begins, whether the file is one list)."""
    with file.open("rb") as f:
        head = f.read(1 << 16)
        refuse_wide(head[:4], str(file))
        start = len(BOM) if head.startswith(BOM) else 0
        if not head[start:].lstrip(BLANK).startswith(b"["):
            return start, False
        with _content(f) as content:
            return start, not _begins_with_a_list_a_line(content, start)


@contextmanager
def _content(file: IO[bytes]) -> Iterator[Any]:
    """The bytes of a file, mapped; of one at an address as many as tell its form."""
    if isinstance(file, RemoteFile):
        yield file.pread(2 * WINDOW, 0)
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _begins_with_a_list_a_line(content: Any, start: int) -> bool:
    """True where the file has a row a line and the first of them is a list: a broken row, not a list of rows."""
    solid = SOLID.search(content, start)
    start = solid.start() if solid else start
    end = content.find(b"\n", start, start + WINDOW)
    if end < 0 or not content[start:end].rstrip().endswith(b"]") or not SOLID.search(content, end):
        return False
    try:
        json.loads(content[start:end])
    except (ValueError, RecursionError):
        return False
    return True


class _Window:
    """A part of a list of rows, a letter a byte: JSON's own signs are ASCII, and only places are looked for."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        file.seek(start)
        self._file, self.begin, self.text, self.at, self.ended = file, start, "", 0, False
        self.more()

    def more(self) -> None:
        """Leave out what is read, and take at least as much again as is left."""
        self.begin += self.at
        self.text, self.at = self.text[self.at :], 0
        new = self._file.read(max(WINDOW, len(self.text)))
        self.text, self.ended = self.text + new.decode("latin-1"), not new

    def sign(self) -> str:
        """The next sign that is not blank; empty at the file's end."""
        while True:
            blank = SPACE.match(self.text, self.at)
            self.at = blank.end() if blank else self.at
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def value(self) -> tuple[int, int]:
        """Bytes from and to of the value that begins here. Raises: ValueError, RecursionError."""
        while True:
            try:
                _, stop = DECODE(self.text, self.at)
                if stop < len(self.text) or self.ended:
                    break
            except json.JSONDecodeError:
                if self.ended:
                    raise
                if len(self.text) - self.at > LARGEST:
                    raise ValueError(f"it does not end within {LARGEST} bytes") from None
            self.more()
        found = self.begin + self.at, self.begin + stop
        self.at = stop
        return found


def _list_places(file: Path, start: int) -> Iterator[Piece]:
    """The entries of a list. Raises: DataError that names the entry from which on it is no JSON."""
    entries, places = 0, array("q")
    with file.open("rb") as f:
        window = _Window(f, start)
        try:
            window.sign()
            window.at += 1
            closed = window.sign() == "]"
            while not closed:
                places.extend(window.value())
                entries += 1
                closed = window.sign() == "]"
                if not closed:
                    if window.sign() != ",":
                        raise ValueError("a comma or ] is missing" if window.sign() else "the file ends before its ]")
                    window.at += 1
                    window.sign()
                if len(places) > 2 * PLACES:
                    yield np.array(places, np.int64).reshape(-1, 2), NONE
                    places = array("q")
        except (ValueError, RecursionError) as error:
            said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise BrokenFile(
                f"{file}, entry {entries} is not JSON ({said}, byte {window.begin + window.at}); mend it there"
            ) from None
        window.at += 1
        if window.sign():
            raise BrokenFile(
                f"{file} goes on after the end of its list (byte {window.begin + window.at}); make it one list"
            )
    yield np.array(places, np.int64).reshape(-1, 2), NONE


def _line_places(file: Path, begin: int) -> Iterator[Piece]:
    """The lines that are not blank. begin: where the first starts."""
    at, lines = 0, 0
    with file.open("rb") as f:
        size = size_of(f)
        whole = None if is_remote(file) or not size else mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        while block := f.read(1 << 24):
            stops = np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + (at + 1)
            at += len(block)
            if at == size and (not len(stops) or stops[-1] < at):
                stops = np.append(stops, at)
            if not len(stops):
                continue
            places = np.stack([np.append([begin], stops[:-1]), stops], axis=1)
            begin = int(stops[-1])
            keep = np.ones(len(places), bool)
            # only short lines can be blank; longer ones of blanks are broken rows
            for short in np.flatnonzero(places[:, 1] - places[:, 0] <= 2).tolist():
                start, stop = places[short].tolist()
                keep[short] = bool((pread(f, stop - start, start) if whole is None else whole[start:stop]).strip())
            yield places[keep], np.flatnonzero(~keep) + lines
            lines += len(places)
