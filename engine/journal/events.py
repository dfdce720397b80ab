"""The table events: what happened, line by line. `Store.event` writes them."""

from __future__ import annotations

from dataclasses import dataclass

from engine.journal.store import Store


@dataclass(frozen=True)
class Event:
    """level: info, warning or error. subject: the id that it is about. at: UTC, ISO 8601."""

    id: int
    level: str
    kind: str
    subject: str | None
    text: str
    at: str


def last(store: Store, count: int, after: int = 0) -> list[Event]:
    """The last events, latest first. after: only those with a higher id."""
    rows = store.query("SELECT * FROM events WHERE id > ? ORDER BY id DESC LIMIT ?", (after, count))
    return [Event(**row) for row in rows]


def warnings(store: Store) -> list[Event]:
    """Warnings and errors, oldest first, without refusals that stand with their proposals."""
    rows = store.query(
        "SELECT * FROM events WHERE level != 'info' AND NOT (kind = 'refused' "
        "AND subject IN (SELECT id FROM proposals WHERE status = 'refused')) ORDER BY id"
    )
    return [Event(**row) for row in rows]


def last_of(store: Store, kind: str, subject: str) -> Event | None:
    """The last event of a kind on a subject, or None."""
    row = store.one("SELECT * FROM events WHERE kind = ? AND subject = ? ORDER BY id DESC LIMIT 1", (kind, subject))
    return Event(**row) if row else None


def is_told(store: Store, kind: str, subject: str, text: str) -> bool:
    """True when this was said of a subject before."""
    sql = "SELECT 1 FROM events WHERE kind = ? AND subject = ? AND text = ?"
    return store.one(sql, (kind, subject, text)) is not None


def last_time(store: Store) -> str | None:
    """When the last event or charge was written (UTC, ISO 8601)."""
    (row,) = store.query("SELECT max(at) AS at FROM (SELECT at FROM events UNION ALL SELECT at FROM costs)")
    return None if row["at"] is None else str(row["at"])
