"""How a study's database is opened: to work on it, or to look at it where it may only be read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import StoreError
from engine.journal.keeping import copy_of
from engine.journal.patience import TURN, is_locked

LONGEST = 60.0  # seconds that somebody else's database may be read
LARGEST = 64 << 20  # bytes of one of its values
COPIED = 1 << 30  # bytes of it that are copied
UNWRITABLE = ("readonly", "unable to open")  # in SQLite's message where a file beside the database cannot be made


@dataclass
class Look:
    """A connection that reads. still: it shows the database as it was when it was opened, and writes nothing."""

    connection: sqlite3.Connection
    still: bool = False


def writer(file: Path) -> sqlite3.Connection:
    """A connection that may write; the database is made where there is none."""
    if file.exists() and (file.parent / "cache").exists():
        _refuse_empty(file)  # without caches it is one whose engine was killed as it began
    return sqlite3.connect(file, isolation_level=None, timeout=TURN / 1000)


def reader(file: Path, untouched: bool = False) -> Look:
    """A connection that reads, by the first way that works.

    untouched: the database is somebody else's: nothing beside it is made or changed, and it may hold anything.
    """
    if not file.is_file():
        raise StoreError(f"{file} does not exist yet; run djsb auto or djsb pools first")
    _refuse_empty(file)
    ways: list[Callable[[Path], Look]] = [_as_owner, _beside_a_writer, _alone, _copied]
    if untouched:
        ways = [_untouched, _untouched, _alone, _copied]
    for way in ways[untouched or not may_write(file) :]:
        try:
            look = way(file)
            if untouched:
                _bound(look.connection)
            look.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return look
        except sqlite3.OperationalError as error:
            if is_locked(error):
                return look  # whoever reads waits
            if way is _copied or not any(part in str(error) for part in UNWRITABLE):
                raise
    raise AssertionError("unreachable")


def may_write(file: Path) -> bool:
    """True when the database and files beside it may be written."""
    return os.access(file.parent, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))


def stamp(file: Path) -> tuple[tuple[int, int], ...]:
    """Changes when the database does."""
    found = []
    for part in (file, log_of(file)):
        with suppress(FileNotFoundError):
            at = part.stat()
            found.append((at.st_mtime_ns, at.st_size))
    return tuple(found)


def log_of(file: Path) -> Path:
    """The write-ahead log of a database."""
    return file.with_name(file.name + "-wal")


def in_memory(connection: sqlite3.Connection) -> sqlite3.Connection:
    """A copy of a database that may be changed; the connection to the database itself is closed."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    connection.backup(copy)
    connection.close()
    return copy


def _refuse_empty(file: Path) -> None:
    if not file.stat().st_size:
        sound = "djsb auto puts its copy there" if copy_of(file).exists() else "restore a copy of it"
        raise StoreError(f"{file} is empty (0 bytes), so something has emptied it: {sound}, or remove it to start anew")


def _as_owner(file: Path) -> Look:
    """A reader must be able to recover the log of an engine that was killed, so it may write."""
    return Look(sqlite3.connect(file, isolation_level=None, timeout=TURN / 1000))


def _beside_a_writer(file: Path) -> Look:
    """Where there is a log, an engine may be writing it."""
    if not log_of(file).exists():
        raise sqlite3.OperationalError(UNWRITABLE[1])
    return Look(_connect(file, "mode=ro"))


def _untouched(file: Path) -> Look:
    """Where there is a log with its index: both are read, and the index, too, is opened read-only."""
    if not log_of(file).exists():
        raise sqlite3.OperationalError(UNWRITABLE[1])
    return Look(_connect(file, "mode=ro&readonly_shm=1"))


def _bound(connection: sqlite3.Connection) -> None:
    """A query that takes too long ends, a value that is too large is none, and a schema runs nothing of its own."""
    end = time.monotonic() + LONGEST
    connection.set_progress_handler(lambda: int(time.monotonic() > end), 10_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA query_only=ON")


def _alone(file: Path) -> Look:
    """Without a log, nobody has the database open to write."""
    if log_of(file).exists():
        raise sqlite3.OperationalError(UNWRITABLE[1])
    return Look(_connect(file, "mode=ro&immutable=1"), still=True)


def _copied(file: Path) -> Look:
    """A killed engine's log without its index can be read of a copy only, which goes with the connection."""
    if sum(part.stat().st_size for part in (file, log_of(file)) if part.exists()) > COPIED:
        raise StoreError(f"{file} has a killed engine's log and is too large to be copied; djsb auto puts it in order")
    with tempfile.TemporaryDirectory(prefix="djsb-look-") as scratch:
        copy = Path(scratch) / file.name
        for part in (file, log_of(file)):
            if part.exists():
                shutil.copyfile(part, copy.with_name(part.name))
        return Look(in_memory(sqlite3.connect(copy, isolation_level=None)), still=True)


def _connect(file: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.resolve().as_uri()}?{how}", uri=True, isolation_level=None, timeout=TURN / 1000)
