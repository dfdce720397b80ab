"""One tar shard, seen member by member: where its samples stand, and what is wrong with them.

As WebDataset has it, a member's key is its path up to the first dot of its base name, the rest is its extension, and
members of one key that follow each other are a sample.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tarfile import BLOCKSIZE, TarInfo
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engine.base.remote import pread, size_of
from engine.data.readers.contract import first_line
from engine.data.readers.tar_members import BROKEN, GZIP, LARGEST, members, opened

NAME = 1_000  # letters of a member's name at most
PIECE = 1 << 20
MAGIC, MAGIC_AT = b"ustar", 257
TEXTS = frozenset({"txt", "text", "caption", "cls", "cls2", "class", "count", "index", "inx", "id", "transcript"})
JSON = "json"
NAMELESS = "members without a key or an extension"
UNENDED = "without an end mark, perhaps cut off"
Numbers = NDArray[Any]


@dataclass(frozen=True)
class Part:
    """The index of a shard.

    keys: UTF-8, one behind the other; ends: where each row's ends. firsts: each row's first member, and the end.
    extensions: each member's, as a number of `names`. offsets, sizes: its bytes in the shard. problems: row → why it is
    broken. hashes: of the keys. left: what is no row. notes: oddities. content: hash of all names, sizes and texts.
    """

    keys: Numbers
    ends: Numbers
    firsts: Numbers
    extensions: Numbers
    offsets: Numbers
    sizes: Numbers
    names: list[str]
    problems: dict[int, str]
    hashes: Numbers
    left: Counter[str]
    notes: Counter[str]
    content: bytes


class _Look:
    """A shard, of which one member after the other is seen."""

    def __init__(self, shard: Path, file: IO[bytes]) -> None:
        self.shard, self.file, self.size = shard, file, size_of(file)
        self.keys, self.ends, self.firsts, self.hashes = bytearray(), array("q"), array("q"), array("Q")
        self.extensions, self.offsets, self.sizes = array("i"), array("q"), array("q")
        self.names: dict[str, int] = {}
        self.problems: dict[int, str] = {}
        self.left, self.notes, self.content = Counter[str](), Counter[str](), hashlib.blake2b(digest_size=16)
        self._key: str | None = None
        self._here: set[int] = set()  # extensions of the current sample

    def add(self, member: TarInfo) -> None:
        """One more member."""
        name = member.name
        while name.startswith("./"):
            name = name[2:]
        folder, slash, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        if member.isdir():
            return
        if not stem or not extension:
            self.left[NAMELESS] += 1
            return
        if (key := folder + slash + stem) != self._key:
            self._begin(key)
        extension = extension.lower()[:NAME]
        number = self.names.setdefault(extension, len(self.names))
        if problem := self._problem(member, name, number):
            self.problems.setdefault(len(self.ends) - 1, f"{problem}: {self.shard.name}, {name[:NAME]}")
        self._here.add(number)
        self.extensions.append(number)
        self.offsets.append(member.offset_data)
        self.sizes.append(member.size)
        self.content.update(f"{name}\0{member.size}\0".encode("utf-8", "surrogateescape"))
        if extension in TEXTS or extension.endswith(JSON):
            self.content.update(pread(self.file, min(max(0, member.size), PIECE), member.offset_data))

    def broken(self, reason: str) -> None:
        """A row for what belongs to no sample."""
        self._begin(None)
        self.problems[len(self.ends) - 1] = f"{reason}: {self.shard.name}"

    def _begin(self, key: str | None) -> None:
        content = (key or f"\0{len(self.ends)}")[:NAME].encode("utf-8", "backslashreplace")
        self.keys += content
        self.ends.append(len(self.keys))
        self.firsts.append(len(self.offsets))
        self.hashes.append(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little"))
        self._key, self._here = key, set()

    def _problem(self, member: TarInfo, name: str, number: int) -> str | None:
        """Why the sample of this member is broken, or None."""
        if len(name) > NAME:
            return "a member's name is too long"
        if name.startswith("/") or ".." in name.split("/"):
            return "a member's name leads out of the shard"
        if not member.isfile() or member.issparse():
            return "a member is no regular file"
        if not 0 <= member.size <= LARGEST:
            return f"a member has more than {LARGEST} bytes"
        if member.offset_data + member.size > self.size:
            return "truncated shard"
        return "two members of one name" if number in self._here else None

    def part(self) -> Part:
        """What was seen. A key that comes again after others breaks the later row."""
        hashes = np.array(self.hashes, np.uint64)
        _, firsts = np.unique(hashes, return_index=True)
        for row in np.setdiff1d(np.arange(len(hashes)), firsts).tolist():
            key = self.keys[self.ends[row - 1] : self.ends[row]].decode()
            self.problems.setdefault(row, f"a key comes again after others: {self.shard.name}, {key}")
        self.firsts.append(len(self.offsets))
        whole = (np.array(values, np.int64) for values in (self.ends, self.firsts, self.offsets, self.sizes))
        ends, first, offsets, sizes = whole
        return Part(
            np.array(self.keys, np.uint8), ends, first, np.array(self.extensions, np.int32), offsets, sizes,
            list(self.names), self.problems, hashes, self.left, self.notes, self.content.digest(),
        )  # fmt: skip


def _walk(seen: _Look, start: int) -> int | None:
    """See the members from a byte on; the byte to go on from, None at the shard's end. Raises: BROKEN."""
    at = start
    try:
        with opened(seen.shard, start) as (archive, plain):
            for member in members(archive, plain, lambda _byte: seen.broken("bad header")):
                at = max(at, archive.offset)
                seen.add(member)
            return _behind(seen, plain, archive.offset)
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if at >= seen.size:  # its last member is longer than the shard
            seen.notes[UNENDED] += 1
            return None
        begin = at + BLOCKSIZE if at else _first_header(seen.file)
        if begin is None:
            raise
        seen.broken("bad header")
        return begin


def _behind(seen: _Look, plain: IO[bytes], at: int) -> int | None:
    """Where something stands behind the end mark: tars are joined by `cat`."""
    plain.seek(at)
    if at >= seen.size:
        seen.notes[UNENDED] += 1
    while piece := plain.read(PIECE):
        if any(piece):
            return at + (len(piece) - len(piece.lstrip(b"\0"))) // BLOCKSIZE * BLOCKSIZE
        at += len(piece)
    return None


def _first_header(file: IO[bytes]) -> int | None:
    """The first byte, but the file's, where a header seems to begin; None where there is none near the beginning."""
    file.seek(0)
    head = file.read(PIECE)
    return next((at for at in range(BLOCKSIZE, len(head), BLOCKSIZE) if head.startswith(MAGIC, at + MAGIC_AT)), None)


def look(job: tuple[int, Path]) -> tuple[int, Part | str]:
    """(number, the index of a shard, or why it cannot be read); runs in a worker process."""
    number, shard = job
    try:
        with shard.open("rb", buffering=0) as file:
            if file.read(2) == GZIP:
                return number, f"{shard.name} is compressed, so that no member can be read by itself; unpack it: gunzip"
            seen, start = _Look(shard, file), 0
            while (begin := _walk(seen, start)) is not None:
                start = begin
            return number, seen.part()
    except BROKEN as error:
        return number, f"{shard.name} cannot be read ({first_line(error)})"
