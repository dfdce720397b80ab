"""The study's memory: one SQLite file in WAL mode. docs/reference/store.md describes the tables.

Only the engine process writes trials and costs. Every write is one transaction, so that a kill
at any moment leaves either all of it or nothing.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engine.base.errors import StoreError, damaged
from engine.base.ids import ID
from engine.base.lines import storable
from engine.base.secrets import redact
from engine.journal import connect
from engine.journal.keeping import Keeping
from engine.journal.patience import Patience, holders, is_locked
from engine.journal.schema import STEPS, schema, sqlite_utils

if TYPE_CHECKING:
    from sqlite_utils import Database

Row = dict[str, Any]
MEMORY = ":memory:"  # SQLite's name for a database without a file: there is nothing to seal or to copy
LOG = 64 << 20  # bytes of the log beyond which it is told that readers keep it so long
TYPES: dict[str, tuple[type, ...]] = {"TEXT": (str,), "INTEGER": (int,), "REAL": (int, float)}
# what a text in a column of this name may be, in whatever table: ids become parts of paths
FORMS = {
    **dict.fromkeys(("trial", "pool", "proposal", "setup", "root", "parent", "init"), ID),
    "id": re.compile(rf"{ID.pattern}(:\d+)?|[a-z_]+(:[0-9a-z_]+)+"),  # a charge has its trial's, or names its kind
    "path": re.compile(rf"\.djsb/checkpoints/{ID.pattern}"),
    "file": re.compile(rf"[a-z]+-{ID.pattern}\.npy"),
}
Result = TypeVar("Result")


def now() -> str:
    """The time, UTC, ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _has_form(value: Any, types: tuple[type, ...], form: re.Pattern[str] | None) -> bool:
    if value is None:
        return True
    return isinstance(value, types) and (
        form is None or not isinstance(value, str) or form.fullmatch(value) is not None
    )


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
    that another process has locked is waited for. untouched: the database is somebody else's: it is read as it lies
    there, and an older one is brought up to date in memory. still: the study may not be written, and what is read stays
    as it was when the database was opened.
    """

    # of all stores of this process: seconds that they wait for a lock, and where they say so
    wait: float = 30.0
    tell: Callable[[str], None] = staticmethod(lambda _: None)

    def __init__(
        self, file: Path, readonly: bool = False, patience: Patience | None = None, untouched: bool = False
    ) -> None:
        self.file, self.patience, self.still = file, patience or Patience(file, self.wait, tell=self.tell), False
        self.closed = False
        self.keeping: Keeping | None = None
        with _readable_errors(file):
            if readonly:
                look = connect.reader(file, untouched)
                self.connection, self.still = look.connection, look.still
            else:
                if file.parent.exists() and not connect.may_write(file):
                    raise StoreError(
                        f"{file.parent} may only be read, and this command writes there: make it writable, or copy the "
                        "study elsewhere"
                    )
                if file.name != MEMORY:
                    self.keeping = Keeping(file)
                self.connection = connect.writer(file)
            self.db: Database = sqlite_utils().Database(self.connection)
            self._patiently(lambda: self._refuse_others(readonly))
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
                self._bring_up_to_date(untouched)
            if self.still:
                self.connection.execute("PRAGMA query_only=ON")

    def _patiently(self, work: Callable[[], Result]) -> Result:
        return self.patience.wait(self.connection, work)

    @cached_property
    def _types(self) -> dict[str, tuple[type, ...]]:
        """Column, of whatever table → the types of its values."""
        rows = self.connection.execute(
            "SELECT p.name, p.type FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table'"
        )
        types: dict[str, tuple[type, ...]] = {}
        for name, kind in rows:
            types[name] = types.get(name, ()) + TYPES[kind]
        return types

    def _known(self, name: str) -> bool:
        return name in self._types or name in FORMS

    def _refuse_others(self, readonly: bool) -> None:
        tables = self.db.table_names()
        if "_sqlite_migrations" not in tables:
            if tables:
                raise StoreError(
                    f"{self.file} is a database of another program (it has a table {tables[0][:40]!r}); move it away"
                )
            if readonly:
                raise StoreError(f"{self.file} holds nothing yet; run djsb auto or djsb pools first")
        known = {step.__name__ for step in STEPS}
        newer = [m.name for m in schema().applied(self.db) if m.name not in known]
        if newer:
            raise StoreError(
                f"{self.file} is from a newer djsb (it has {newer[-1]}); upgrade djsb, or open another study"
            )

    def _bring_up_to_date(self, untouched: bool) -> None:
        """Take the steps that a reader's database lacks, in a copy, where the study may not be written.

        Raises: Outdated where it may.
        """
        if connect.may_write(self.file) and not untouched:
            raise Outdated(
                f"{self.file} is from an older djsb; end its engine, and the same command brings it up to date"
            )
        self.connection, self.still = connect.in_memory(self.connection), True
        self.db = sqlite_utils().Database(self.connection)
        schema().apply(self.db)

    def close(self) -> None:
        """Close the connection; what was committed stays. The last writer seals the file and copies it."""
        self.closed = True
        keeping, self.keeping = self.keeping, None  # it may be closed again
        changed = keeping is not None and self.connection.total_changes > 0
        self.connection.close()
        if keeping:
            try:
                keeping.close(changed)
            except OSError as error:
                self.tell(f"{self.file} has no new copy: {error.strerror or error}; all that was written is in it")

    def renew_copy(self) -> None:
        """Copy the database, unless that was done a moment ago: what has finished survives a damaged file."""
        try:
            if self.keeping:
                self.keeping.renew(self.connection)
        except (OSError, sqlite3.OperationalError) as error:
            self.event("database", f"{self.file.name} has no new copy: {error}; it goes on without", level="warning")

    def fold(self, most: int = LOG) -> None:
        """Write the log back into the database, and tell of a log beyond `most` bytes that readers keep from that."""
        done = self.one("PRAGMA wal_checkpoint(PASSIVE)")
        page = self.one("PRAGMA page_size")
        if not done or not page or (left := (done["log"] - done["checkpointed"]) * page["page_size"]) <= most:
            return
        readers = holders(self.file, "READ")
        text = f"{left >> 20} MB of the log wait to be written back, as {readers} reads since long; end that"
        self.event("database", text, level="warning")

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
        checks = [(i, n, self._types.get(n, (str,)), FORMS.get(n)) for i, n in enumerate(names) if self._known(n)]
        rows = []
        for row in cursor:
            for i, name, types, form in checks:
                if not _has_form(row[i], types, form):
                    raise damaged(f"a row with {name} {str(row[i])[:80]!r}", "djsb writes no such value")
            rows.append(dict(zip(names, row, strict=True)))
        return rows

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
        if self.still:
            return hash(connect.stamp(self.file))
        (row,) = self.query("PRAGMA data_version")
        return int(row["data_version"])

    def event(self, kind: str, text: str, subject: str | None = None, level: str = "info") -> None:
        """Record what happened. level: info, warning or error."""
        row = {"level": level, "kind": kind, "subject": subject, "text": storable(redact(text)), "at": now()}
        self.put("events", row)
