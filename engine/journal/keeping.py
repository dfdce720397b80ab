"""The database at rest is sealed, and has a copy; a damaged one is found before anybody writes, and the copy put there.

Every writer holds `study.db.writers` shared. The last one that closes the database seals it; the first one that opens
it compares it with the seal and takes the seal away. While an engine runs the database has no seal, but its copy is
renewed as trials finish.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from engine.base import durable
from engine.base.errors import StoreError

SHARE = 50  # a copy is made at most once in so many times what the last one took
PAUSE = 60.0  # seconds after a copy that failed
LOG = ("-wal", "-shm")


class Keeping:
    """One writer's part in it. restored: what was damaged and what was done, when the copy took its place."""

    def __init__(self, file: Path) -> None:
        """Compare, and put the copy in the place of a damaged database. Raises: StoreError when there is no copy."""
        self.file, self.copy = file, copy_of(file)
        self.restored = ""
        self._due = 0.0
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lock: IO[str] = file.with_name(file.name + ".writers").open("a", encoding="utf-8")
        while True:
            if self._alone():
                self._compare()
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            if not self._seal.exists():  # else another writer has closed it meanwhile
                return

    @property
    def _seal(self) -> Path:
        return self.file.with_name(self.file.name + durable.SEAL)

    def _alone(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _compare(self) -> None:
        """With no other writer: the database is as its seal says, or, without one, as SQLite can tell."""
        try:
            if self._seal.exists() and not self._was_written():
                durable.check(self.file, deep=True)
            elif self.file.exists() and self.file.stat().st_size:
                _quick_check(self.file)
            elif self.copy.exists():
                raise durable.Damaged("it is gone" if not self.file.exists() else "it is empty")
        except durable.Damaged as error:
            self._restore(str(error))
        self._seal.unlink(missing_ok=True)

    def _was_written(self) -> bool:
        """True when another program has changed the database since it was sealed: a bit that flips leaves the time."""
        return self.file.exists() and self.file.stat().st_mtime_ns > self._seal.stat().st_mtime_ns

    def _restore(self, why: str) -> None:
        try:
            durable.check(self.copy, deep=True)
        except durable.Damaged:
            raise StoreError(
                f"{self.file} is damaged ({why}) and has no sound copy; restore a backup, or move it away and save "
                f"what can be read: sqlite3 MOVED .recover | sqlite3 {self.file.name}"
            ) from None
        made = datetime.fromtimestamp(self.copy.stat().st_mtime, UTC).isoformat(timespec="seconds")
        aside = self.file.with_name(f"{self.file.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}")
        for end in ("", *LOG):
            if (part := self.file.with_name(self.file.name + end)).exists():
                part.replace(aside.with_name(aside.name + end))
        with durable.written_whole(self.file) as scratch:
            shutil.copyfile(self.copy, scratch)
        self.restored = (
            f"{self.file.name} was damaged ({why}): its copy of {made} took its place, and the damaged file is kept as "
            f"{aside.name}; what has finished since the copy is run again"
        )

    def renew(self, connection: sqlite3.Connection) -> None:
        """Copy the open database, unless that was done a moment ago. Not within a transaction."""
        if time.monotonic() < self._due:
            return
        began = time.monotonic()
        self._due = began + PAUSE
        with durable.written_whole(self.copy) as scratch, closing(sqlite3.connect(scratch)) as target:
            connection.backup(target)
        now = time.monotonic()
        self._due = now + SHARE * (now - began)

    def close(self, changed: bool) -> None:
        """After the connection is closed: seal the database, and copy it if it changed, if no writer is left."""
        with self._lock:
            if not self._alone() or not _is_whole_without_log(self.file):
                return
            durable.seal_file(self.file)
            if changed or not durable.is_whole(self.copy):
                with durable.written_whole(self.copy) as scratch:
                    shutil.copyfile(self.file, scratch)


def copy_of(file: Path) -> Path:
    """Where the copy of a database lies."""
    return file.with_name(f"{file.stem}.copy{file.suffix}")


def _is_whole_without_log(file: Path) -> bool:
    """True when no transaction stands in the log alone; a reader may keep an empty log open."""
    log = file.with_name(file.name + "-wal")
    if log.exists() and log.stat().st_size:
        with closing(sqlite3.connect(file)) as db:
            try:
                busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.OperationalError:  # no space to write the log back: the next writer does
                return False
            return not busy
    return file.exists()


def _quick_check(file: Path) -> None:
    """Raises: Damaged as far as SQLite can tell."""
    try:
        with closing(sqlite3.connect(file, timeout=0.2)) as db:
            (first,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        return  # locked, or not readable: whoever opens it says so
    except sqlite3.DatabaseError as error:
        raise durable.Damaged(str(error)) from error
    if first != "ok":
        raise durable.Damaged(" ".join(str(first).split()))
