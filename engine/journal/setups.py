"""The table setups: those that the engine worked in; trials of one setup may be compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from engine.journal.store import Store


@dataclass(frozen=True)
class Setup:
    """dataset, evaluation: content hashes. config: the study's settings, JSON. version: djsb's. at: UTC, ISO 8601."""

    setup: str
    name: str
    dataset: str
    evaluation: str | None
    config: str
    version: str
    at: str


def put(store: Store, setup: Setup) -> None:
    """Write a setup, in place of what stands under its setup. Call inside a transaction."""
    store.put("setups", asdict(setup))


def get(store: Store, setup: str) -> Setup | None:
    """A setup that the engine has worked in, or None."""
    row = store.one("SELECT * FROM setups WHERE setup = ?", (setup,))
    return Setup(**row) if row else None


def last(store: Store) -> Setup | None:
    """The setup that was recorded last, or None."""
    row = store.one("SELECT * FROM setups ORDER BY at DESC LIMIT 1")
    return Setup(**row) if row else None


def every(store: Store) -> list[Setup]:
    """All setups, the one that was recorded last first."""
    return [Setup(**row) for row in store.query("SELECT * FROM setups ORDER BY at DESC")]
