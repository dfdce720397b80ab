"""The table studies: the setups that the engine worked in; trials of one setup may be compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from engine.journal.store import Store


@dataclass(frozen=True)
class Setup:
    """dataset, evaluation: content hashes. config: the study's settings, JSON. version: djsb's. at: UTC, ISO 8601."""

    context: str
    name: str
    dataset: str
    evaluation: str | None
    config: str
    version: str
    at: str


def put(store: Store, setup: Setup) -> None:
    """Write a setup, in place of what stands under its context. Call inside a transaction."""
    store.put("studies", asdict(setup))


def get(store: Store, context: str) -> Setup | None:
    """A setup that the engine has worked in, or None."""
    row = store.one("SELECT * FROM studies WHERE context = ?", (context,))
    return Setup(**row) if row else None


def last(store: Store) -> Setup | None:
    """The setup that was recorded last, or None."""
    row = store.one("SELECT * FROM studies ORDER BY at DESC LIMIT 1")
    return Setup(**row) if row else None
