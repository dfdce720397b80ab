"""The study's memory: one SQLite file in WAL mode. docs/store.md describes the tables.

Only the engine process writes trials and costs. Every write is one transaction, so that a kill
at any moment leaves either all of it or nothing.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import StoreError
from engine.paths import DATABASE as DATABASE
from engine.secrets import redact

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

Row = dict[str, Any]
_steps: list[Callable[[Database], None]] = []


@cache
def sqlite_utils() -> Any:
    """The library, imported when a database is first opened: the terminal UI starts without it and NumPy.

    It would import pandas where that is installed, half a second that every command would pay.
    """
    pandas = sys.modules.get("pandas")
    sys.modules["pandas"] = pandas  # type: ignore[assignment]
    import numpy as np
    import sqlite_utils

    if pandas is None:
        del sys.modules["pandas"]
    for kind in (
        np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.float16, np.float32
    ):  # fmt: skip
        sqlite3.register_adapter(kind, kind.item)  # SQLite would keep their bytes
    return sqlite_utils


def migrations() -> Callable[[Callable[[Database], None]], Callable[[Database], None]]:
    """Marks a step of the schema; steps apply in the order of the file."""

    def mark(step: Callable[[Database], None]) -> Callable[[Database], None]:
        _steps.append(step)
        return step

    return mark


@cache
def schema() -> Migrations:
    """All steps of the schema."""
    found: Migrations = sqlite_utils().Migrations("djsb")
    for step in _steps:
        found()(step)
    return found


@migrations()
def m001_first(db: Database) -> None:
    """The tables of version 0.1."""
    db.executescript("""
    CREATE TABLE studies(context TEXT PRIMARY KEY, name TEXT, dataset TEXT, evaluation TEXT, config TEXT NOT NULL,
        version TEXT NOT NULL, at TEXT NOT NULL);
    CREATE TABLE quarantine(dataset TEXT NOT NULL, row INTEGER NOT NULL, id TEXT, reason TEXT NOT NULL,
        PRIMARY KEY(dataset, row));
    CREATE TABLE statistics(id TEXT PRIMARY KEY, dataset TEXT NOT NULL, op TEXT NOT NULL, statistic TEXT NOT NULL,
        params TEXT NOT NULL, version TEXT NOT NULL, rows INTEGER NOT NULL, unreadable INTEGER, seconds REAL, at TEXT);
    CREATE TABLE statistic_chunks(statistic TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
        PRIMARY KEY(statistic, start));
    CREATE TABLE unreadable(statistic TEXT NOT NULL, row INTEGER NOT NULL, reason TEXT NOT NULL,
        PRIMARY KEY(statistic, row));
    CREATE TABLE pools(id TEXT PRIMARY KEY, content TEXT NOT NULL, label TEXT NOT NULL, kind TEXT NOT NULL, op TEXT,
        statistic TEXT, bucket TEXT, at TEXT NOT NULL);
    CREATE TABLE pool_cuts(context TEXT NOT NULL, op TEXT NOT NULL, statistic TEXT NOT NULL, bucket TEXT NOT NULL,
        pool TEXT NOT NULL, kept INTEGER NOT NULL, entropy REAL, verdict TEXT NOT NULL, reason TEXT,
        PRIMARY KEY(context, statistic, bucket));
    CREATE TABLE proposals(id TEXT PRIMARY KEY, context TEXT NOT NULL, origin TEXT NOT NULL, kind TEXT NOT NULL,
        stage TEXT NOT NULL, content TEXT NOT NULL, status TEXT NOT NULL, cost REAL, at TEXT NOT NULL);
    CREATE TABLE decisions(id INTEGER PRIMARY KEY, proposal TEXT NOT NULL, verdict TEXT NOT NULL, who TEXT NOT NULL,
        why TEXT NOT NULL, at TEXT NOT NULL);
    CREATE TABLE trials(id TEXT PRIMARY KEY, context TEXT NOT NULL, pool TEXT NOT NULL, seed INTEGER NOT NULL,
        init TEXT, samples INTEGER NOT NULL, stage TEXT NOT NULL, proposal TEXT NOT NULL, state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, estimate REAL, seconds REAL, device TEXT, started TEXT, finished TEXT,
        error TEXT);
    CREATE INDEX trials_by_pool ON trials(context, pool, seed);
    CREATE TABLE proposal_trials(proposal TEXT NOT NULL, trial TEXT NOT NULL, PRIMARY KEY(proposal, trial));
    CREATE TABLE metrics(trial TEXT NOT NULL, name TEXT NOT NULL, value REAL, PRIMARY KEY(trial, name));
    CREATE TABLE curve_points(trial TEXT NOT NULL, name TEXT NOT NULL, step INTEGER NOT NULL, value REAL,
        PRIMARY KEY(trial, name, step));
    CREATE TABLE costs(id TEXT PRIMARY KEY, kind TEXT NOT NULL, trial TEXT, stage TEXT, device TEXT,
        samples INTEGER, seconds REAL NOT NULL, at TEXT NOT NULL);
    CREATE TABLE checkpoints(trial TEXT PRIMARY KEY, path TEXT NOT NULL, bytes INTEGER NOT NULL, kept INTEGER NOT NULL,
        at TEXT NOT NULL);
    CREATE TABLE results(context TEXT NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL, at TEXT NOT NULL,
        PRIMARY KEY(context, name));
    CREATE TABLE events(id INTEGER PRIMARY KEY, level TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT,
        text TEXT NOT NULL, at TEXT NOT NULL);
    """)


@migrations()
def m002_race(db: Database) -> None:
    """Trials that stop before the end of their schedule, and pools that the race drops."""
    db.executescript("""
    ALTER TABLE trials ADD COLUMN horizon INTEGER;
    ALTER TABLE trials ADD COLUMN resumed INTEGER NOT NULL DEFAULT 0;
    UPDATE trials SET horizon = samples;
    CREATE TABLE drops(context TEXT NOT NULL, stage TEXT NOT NULL, pool TEXT NOT NULL, share REAL NOT NULL,
        seeds INTEGER NOT NULL, chance REAL, reason TEXT NOT NULL, at TEXT NOT NULL, undone TEXT,
        PRIMARY KEY(context, stage, pool));
    """)


@migrations()
def m003_agent(db: Database) -> None:
    """What the language model was asked, and what that took."""
    db.executescript("""
    CREATE TABLE model_calls(id INTEGER PRIMARY KEY, context TEXT NOT NULL, purpose TEXT NOT NULL, model TEXT,
        read INTEGER NOT NULL, written INTEGER NOT NULL, estimated INTEGER NOT NULL, seconds REAL NOT NULL, cost REAL,
        outcome TEXT NOT NULL, at TEXT NOT NULL);
    """)


@migrations()
def m004_requests(db: Database) -> None:
    """What a UI asks of the running engine."""
    db.executescript("""
    CREATE TABLE requests(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, argument TEXT, who TEXT NOT NULL,
        at TEXT NOT NULL, taken TEXT, outcome TEXT);
    """)


@migrations()
def m005_cycles(db: Database) -> None:
    """Cycles after the first, each with the checkpoint that it starts from."""
    db.executescript("""
    CREATE TABLE cycles(context TEXT PRIMARY KEY, root TEXT NOT NULL, cycle INTEGER NOT NULL, parent TEXT NOT NULL,
        init TEXT NOT NULL, proposal TEXT, spent REAL NOT NULL, at TEXT NOT NULL);
    """)


@migrations()
def m006_duplicates(db: Database) -> None:
    """Rows that are like an earlier one."""
    db.executescript("""
    CREATE TABLE duplicates(dataset TEXT NOT NULL, row INTEGER NOT NULL, original INTEGER NOT NULL, op TEXT NOT NULL,
        PRIMARY KEY(dataset, row));
    """)


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
        remedy = "check the disk and the permissions; copy the file before any repair"
        for part, hint in (
            ("full", "the disk is full: free some space and run the same command again; nothing is lost"),
            ("readonly", "the folder is read-only: make it writable, or copy the study elsewhere"),
            ("unable to open", "the folder cannot be written: make it writable, or copy the study elsewhere"),
            ("disk I/O", "the disk refuses to write: free some space, then run the same command again"),
            ("not a database", "the file is damaged: restore a copy, or move it away to start anew"),
            ("malformed", "the file is damaged: restore a copy, or move it away to start anew"),
            ("locked", "another process holds it: wait for it, or stop it"),
        ):
            if part in text:
                remedy = hint
                break
        raise StoreError(f"{file}: {text}; {remedy}") from error


class Store:
    """The database of one study, one connection. Not shared between threads.

    readonly: open without creating or migrating (`djsb status` while the engine writes).
    """

    def __init__(self, file: Path, readonly: bool = False) -> None:
        self.file = file
        with _readable_errors(file):
            if readonly:
                if not file.exists():
                    raise StoreError(f"{file} does not exist yet; run djsb auto or djsb pools first")
                # a reader must be able to recover the log of an engine that was killed, so it may write
                self.connection = sqlite3.connect(file, isolation_level=None, timeout=10)
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                self.connection = sqlite3.connect(file, isolation_level=None, timeout=30)
            self.db: Database = sqlite_utils().Database(self.connection)
            self._refuse_newer()
            if not readonly:
                self.connection.execute("PRAGMA journal_mode=WAL")
                self.connection.execute("PRAGMA synchronous=NORMAL")
                schema().apply(self.db)
            elif schema().pending(self.db):
                raise StoreError(
                    f"{file} is from an older djsb; run djsb auto or djsb pools once to bring it up to date"
                )

    def _refuse_newer(self) -> None:
        known = {step.__name__ for step in _steps}
        newer = [m.name for m in schema().applied(self.db) if m.name not in known]
        if newer:
            raise StoreError(
                f"{self.file} is from a newer djsb (it has {newer[-1]}); upgrade djsb, or open another study"
            )

    def close(self) -> None:
        """Close the connection; what was committed stays."""
        self.connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside happen together or not at all."""
        with _readable_errors(self.file), self.db.atomic():
            yield

    def query(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        """Rows as dicts."""
        with _readable_errors(self.file):
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
        with _readable_errors(self.file):
            self.connection.executemany(sql, [[row[n] for n in names] for row in many])

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; the number of rows that it changed."""
        with _readable_errors(self.file):
            return self.connection.execute(sql, parameters).rowcount

    def event(self, kind: str, text: str, subject: str | None = None, level: str = "info") -> None:
        """Record what happened. level: info, warning or error."""
        row = {"level": level, "kind": kind, "subject": subject, "text": redact(text), "at": now()}
        self.put("events", row)

    def result(self, context: str, name: str) -> Any:
        """A stage's stored result (JSON), or None."""
        row = self.one("SELECT content FROM results WHERE context=? AND name=?", (context, name))
        return json.loads(row["content"]) if row else None

    def put_result(self, context: str, name: str, content: Any) -> None:
        """Store a stage's result as JSON."""
        text = json.dumps(content, allow_nan=False, default=_number)
        self.put("results", {"context": context, "name": name, "content": text, "at": now()})


def _number(value: Any) -> Any:
    """NumPy's number as Python's, for JSON."""
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored as a result")
