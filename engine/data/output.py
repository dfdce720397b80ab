"""Where rows go: one file, or shards in a folder, with what a killed command has left to go on from."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.base.durable import discard
from engine.base.errors import DataError, OpError, StudyError
from engine.data.dataset import Dataset
from engine.data.rows_file import FORMS, SUFFIXES, Numbers, form_of

SHARD_ROWS = 100_000
OWN = ".djsb-apply"  # what lies there is not finished
SHARD = re.compile(r"part-\d{6}(" + "|".join(map(re.escape, FORMS)) + ")")
MEDIA = "media"


@dataclass(frozen=True)
class Output:
    """One file, or a folder of shards.

    shard_rows: rows of a shard; None where it is one file. replace: what is there may be replaced. has_media: media are
    written beside the rows.
    """

    out: Path
    form: str
    shard_rows: int | None = None
    replace: bool = False
    has_media: bool = False

    @property
    def folder(self) -> Path:
        """Where the rows' files lie."""
        return self.out.parent if self.shard_rows is None else self.out

    @property
    def media(self) -> Path:
        """Where media of the rows are written to."""
        stem = self.out.name.removesuffix(SUFFIXES[self.form]) if form_of(self.out) == self.form else self.out.stem
        return self.out / MEDIA if self.shard_rows else self.out.with_name(f"{stem}-media")

    @property
    def work(self) -> Path:
        """Where the work in progress lies."""
        return self.folder / (OWN if self.shard_rows else f"{OWN}-{self.out.name}")

    def file(self, shard: int) -> Path:
        """A shard's file, or the only one."""
        return self.out / f"part-{shard:06d}{SUFFIXES[self.form]}" if self.shard_rows else self.out

    def check(self, data: Dataset) -> None:
        """Raises: DataError where the output is the data or lies among them, or is there and may not be replaced."""
        out, source = self.out.resolve(), data.path.resolve()
        if out == source or source in out.parents or out in [file.resolve() for file in data.reader.files]:
            raise DataError(f"{self.out} is the data itself, or inside it; give another file")
        if self.shard_rows is None:
            if self.out.is_dir() or (self.out.exists() and not self.replace):
                raise DataError(f"{self.out} exists already; give another file, or overwrite it explicitly")
            return
        if self.out.exists() and not self.out.is_dir():
            raise DataError(f"{self.out} is a file; shards need a folder")
        others = [f.name for f in self.out.iterdir()] if self.out.exists() else []
        if foreign := [n for n in others if n not in (OWN, MEDIA) and not SHARD.fullmatch(n)]:
            raise DataError(f"{self.out} holds other files ({foreign[0]}); give an empty folder")
        if others and not self.replace and OWN not in others:
            raise DataError(f"{self.out} holds rows already; give another folder, or overwrite it explicitly")

    def there(self) -> list[Path]:
        """What is there and would be written anew; a single file stays until it is replaced."""
        shards = self.out.iterdir() if self.shard_rows and self.out.is_dir() else ()
        found = sorted(file for file in shards if SHARD.fullmatch(file.name))
        return [*found, *([self.media] if self.has_media and os.path.lexists(self.media) else [])]


def planned(
    out: Path, form: str | None, shard_rows: int | None, replace: bool, has_media: bool, default: str | None = None
) -> Output:
    """The output that a command asks for: shards where it says so or `out` is a folder.

    default: the form of one file where neither its name nor the command says it; None: it must be said.
    Raises: DataError.
    """
    named = form_of(out)
    if shard_rows is None and not out.is_dir():
        form = form or named or default
        if form is None:
            raise DataError(f"{out} must end in {' or '.join(FORMS)}, or be a folder that is there; or give --format")
        return Output(out, form, None, replace, has_media)
    if named is not None:
        raise DataError(f"{out} is the name of one file, and shards lie in a folder; give a folder's name")
    return Output(out, form or "jsonl", shard_rows or SHARD_ROWS, replace, has_media)


@dataclass(frozen=True)
class Chunk:
    """Which rows of a chunk stay. kept: ascending row numbers. bad: (row, reason) of what was never judged."""

    start: int
    stop: int
    kept: Numbers
    bad: tuple[tuple[int, str], ...] = ()

    def line(self) -> dict[str, Any]:
        """As a line of the log: a bit a row."""
        bits = np.zeros(self.stop - self.start, bool)
        bits[self.kept - self.start] = True
        kept = base64.b64encode(np.packbits(bits).tobytes()).decode()
        return {"start": self.start, "stop": self.stop, "kept": kept, "bad": self.bad}

    @classmethod
    def read(cls, line: dict[str, Any]) -> Chunk:
        """Back from the log."""
        start, stop = int(line["start"]), int(line["stop"])
        packed = np.frombuffer(base64.b64decode(line["kept"], validate=True), np.uint8)
        bits = np.unpackbits(packed, count=stop - start)
        return cls(start, stop, np.flatnonzero(bits) + start, tuple((int(n), str(why)) for n, why in line["bad"]))


class Log:
    """What of an output is done: a line a chunk that was judged and a shard that was written.

    A line that is not whole, and what follows it, counts as not written.
    """

    def __init__(self, file: Path, identity: str) -> None:
        """Read a log of the same identity. fresh: there is none."""
        self._identity = identity
        self.chunks: dict[tuple[int, int], Chunk] = {}
        self.shards: dict[int, dict[str, Any]] = {}
        whole = 0
        with suppress(FileNotFoundError), file.open("rb") as lines:
            for number, line in enumerate(lines):
                try:
                    self._read(json.loads(line), identity if number == 0 else None)
                except (ValueError, KeyError, TypeError):
                    break
                whole += len(line)
        self.fresh = whole == 0
        self._file: IO[str] = file.open("a", encoding="utf-8")
        self._whole = whole

    def begin(self) -> None:
        """Go on behind the last whole line."""
        self._file.truncate(self._whole)
        if self.fresh:
            self._write({"of": self._identity})

    def _read(self, line: dict[str, Any], identity: str | None) -> None:
        if identity is not None:
            if line["of"] != identity:
                raise ValueError("another output")
        elif "shard" in line:
            self.shards[int(line["shard"])] = line
        else:
            chunk = Chunk.read(line)
            self.chunks[chunk.start, chunk.stop] = chunk

    def add(self, chunk: Chunk) -> None:
        """A chunk was judged."""
        self._write(chunk.line())

    def finish(self, shard: int, told: dict[str, Any]) -> None:
        """A shard is whole, and comes to its place now."""
        self._write({"shard": shard, **told})
        os.fsync(self._file.fileno())

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Nothing more is written."""
        self._file.close()


class Gone(DataError):
    """Media that were there when their row was judged. Once they are put back, the same command goes on."""


@contextmanager
def working(output: Output, data: Dataset, identity: str) -> Iterator[Log]:
    """The output's log, for one command at a time. The folder of the work goes when the block succeeds.

    It stays when the command was interrupted or the machine failed, so that the same command goes on.
    identity: of what is written; work of another one is thrown away. Raises: DataError.
    """
    output.check(data)
    made = [folder for folder in (output.folder, *output.folder.parents) if not folder.exists()]
    output.folder.mkdir(parents=True, exist_ok=True)
    work = output.work
    if work.is_symlink():
        raise DataError(f"{work} is a link; remove it")
    new = not work.exists()
    work.mkdir(exist_ok=True)
    with (work / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another command writes {output.out} now; wait for its end") from None
        log = Log(work / "log.jsonl", identity)
        try:
            _begin(output, log, new)
            try:
                yield log
            except (DataError, OpError, StudyError) as error:
                if not log.shards and not isinstance(error, Gone):
                    _undo(output, made)
                raise
        finally:
            log.close()
        discard(work)


def _begin(output: Output, log: Log, new: bool) -> None:
    """Make room for an output that is not gone on with. Raises: DataError where something would be lost."""
    there = output.there() if log.fresh else []
    if there and not output.replace:
        if new:
            discard(output.work)
        raise DataError(f"{there[0]} exists already; give another place, or overwrite it explicitly")
    for left in (*there, *output.work.iterdir()) if log.fresh else ():
        if left.name not in ("lock", "log.jsonl"):
            discard(left)
    log.begin()


def _undo(output: Output, made: list[Path]) -> None:
    """Leave nothing of an output that cannot be written."""
    discard(output.work)
    if output.has_media:
        discard(output.media)
    for folder in made:
        with suppress(OSError):  # somebody has put something there
            folder.rmdir()
