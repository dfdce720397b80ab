"""The study's memory: one SQLite file in WAL mode. docs/reference/store.md describes the tables.

Only the engine process writes trials and costs. Every write is one transaction, so that a kill
at any moment leaves either all of it or nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engine.base.errors import StoreError
from engine.base.secrets import redact
from engine.journal.keeping import Keeping
from engine.journal.patience import TURN, Patience, holders, is_locked
from engine.journal.schema import STEPS, schema, sqlite_utils

if TYPE_CHECKING:
    from sqlite_utils import Database

Row = dict[str, Any]
Result = TypeVar("Result")


def now() -> str:
    """The time, UTC, ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextmanager
def _readable_errors(file: Path) -> Iterator[None]:
    """SQLite's errors in one line, with a remedy."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
        text = str(error)
        if is_locked(error):
            raise StoreError(f"{file}: {text}; {holders(file)} holds it: wait for it, or stop it") from error
        remedy = "check the disk and the permissions; copy the file before any repair"
        for part, hint in (
            ("full", "the disk is full: free some space and run the same command again; nothing is lost"),
            ("readonly", "the folder is read-only: make it writable, or copy the study elsewhere"),
            ("unable to open", "the folder cannot be written: make it writable, or copy the study elsewhere"),
            ("disk I/O", "the disk refuses to write: free some space, then run the same command again"),
            ("not a database", "the file is damaged: restore a copy, or move it away to start anew"),
            ("malformed", "the file is damaged: restore a copy, or move it away to start anew"),
        ):
            if part in text:
                remedy = hint
                break
        raise StoreError(f"{file}: {text}; {remedy}") from error


class Outdated(StoreError):
    """The database lacks steps of the schema, and a reader takes none."""


class Store:
    """The database of one study, one connection. Not shared between threads.

    readonly: open without creating or migrating (`djsb status` while the engine writes). patience: how long a database
    that another process has locked is waited for.
    """

    # of all stores of this process: seconds that they wait for a lock, and where they say so
    wait: float = 30.0
    tell: Callable[[str], None] = staticmethod(lambda _: None)

    def __init__(self, file: Path, readonly: bool = False, patience: Patience | None = None) -> None:
        self.file, self.patience = file, patience or Patience(file, self.wait, tell=self.tell)
        self.keeping: Keeping | None = None
        with _readable_errors(file):
            if readonly:
                if not file.exists():
                    raise StoreError(f"{file} does not exist yet; run djsb auto or djsb pools first")
                # a reader must be able to recover the log of an engine that was killed, so it may write
            else:
                self.keeping = Keeping(file)
            self.connection = sqlite3.connect(file, isolation_level=None, timeout=TURN / 1000)
            self.db: Database = sqlite_utils().Database(self.connection)
            self._patiently(self._refuse_newer)
            if not readonly:
                self._patiently(lambda: self.connection.execute("PRAGMA journal_mode=WAL"))
                # a commit is on the disk when it returns: 4 ms, about one a second while trials run
                self.connection.execute("PRAGMA synchronous=FULL")
                if self._patiently(lambda: schema().pending(self.db)):
                    with self.transaction():
                        schema().apply(self.db)
                if self.keeping and self.keeping.restored:
                    self.tell(self.keeping.restored)
                    self.event("database", self.keeping.restored, level="warning")
            elif self._patiently(lambda: schema().pending(self.db)):
                raise Outdated(
                    f"{file} is from an older djsb; end its engine, and the same command brings it up to date"
                )

    def _patiently(self, work: Callable[[], Result]) -> Result:
        return self.patience.wait(self.connection, work)

    def _refuse_newer(self) -> None:
        known = {step.__name__ for step in STEPS}
        newer = [m.name for m in schema().applied(self.db) if m.name not in known]
        if newer:
            raise StoreError(
                f"{self.file} is from a newer djsb (it has {newer[-1]}); upgrade djsb, or open another study"
            )

    def close(self) -> None:
        """Close the connection; what was committed stays. The last writer seals the file and copies it."""
        changed = self.keeping is not None and self.connection.total_changes > 0
        self.connection.close()
        if self.keeping:
            try:
                self.keeping.close(changed)
            except OSError as error:
                self.tell(f"{self.file} has no new copy: {error.strerror or error}; all that was written is in it")

    def renew_copy(self) -> None:
        """Copy the database, unless that was done a moment ago: what has finished survives a damaged file."""
        if self.keeping:
            self.keeping.renew(self.connection)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside happen together or not at all."""
        with _readable_errors(self.file):
            if self.connection.in_transaction:
                with self.db.atomic():
                    yield
                return
            self._patiently(lambda: self.connection.execute("BEGIN IMMEDIATE"))  # no other process writes from here on
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def query(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        """Rows as dicts."""
        with _readable_errors(self.file):
            return self._patiently(lambda: self._rows(sql, parameters))

    def _rows(self, sql: str, parameters: Sequence[Any] | dict[str, Any]) -> list[Row]:
        cursor = self.connection.execute(sql, parameters)
        names = [d[0] for d in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def one(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Row | None:
        """The first row, or None."""
        rows = self.query(sql, parameters)
        return rows[0] if rows else None

    def put(self, table: str, rows: Row | Iterable[Row]) -> None:
        """Insert or replace by primary key."""
        many = [rows] if isinstance(rows, dict) else list(rows)
        if not many:
            return
        names = list(many[0])
        sql = f"INSERT OR REPLACE INTO {table}({', '.join(names)}) VALUES({', '.join('?' * len(names))})"
        with self.transaction():
            self.connection.executemany(sql, [[row[n] for n in names] for row in many])

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; the number of rows that it changed."""
        with _readable_errors(self.file):
            return self._patiently(lambda: self.connection.execute(sql, parameters).rowcount)

    def version(self) -> int:
        """A number that changes when another process commits."""
        (row,) = self.query("PRAGMA data_version")
        return int(row["data_version"])

    def event(self, kind: str, text: str, subject: str | None = None, level: str = "info") -> None:
        """Record what happened. level: info, warning or error."""
        row = {"level": level, "kind": kind, "subject": subject, "text": redact(text), "at": now()}
        self.put("events", row)
