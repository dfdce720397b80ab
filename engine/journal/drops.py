"""The table drops: pools that the race has dropped, and those that a person took back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.journal.store import Store, now


@dataclass(frozen=True)
class Drop:
    """A pool that can no longer be among the best of a stage.

    share, seeds: the rung at whose end it was dropped. chance: that it still is among the best, 0 … 1.
    """

    stage: str
    pool: str
    share: float
    seeds: int
    chance: float | None
    reason: str


def add(store: Store, setup: str, drop: Drop) -> bool:
    """Write a drop; False where the pool was dropped in this stage before. Call inside a transaction."""
    new = store.execute(
        "INSERT OR IGNORE INTO drops(setup, stage, pool, share, seeds, chance, reason, at) "
        "VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (setup, drop.stage, drop.pool, drop.share, drop.seeds, drop.chance, drop.reason, now()),
    )
    return bool(new)


def standing(store: Store, setup: str, stages: Sequence[str] | None = None) -> list[Drop]:
    """Drops of a cycle that nobody has undone. stages: of these only."""
    rows = store.query(
        "SELECT stage, pool, share, seeds, chance, reason FROM drops WHERE setup = ? AND undone IS NULL", (setup,)
    )
    return [Drop(**r) for r in rows if stages is None or r["stage"] in stages]


def undo(store: Store, setup: str, pool: str) -> None:
    """Take a pool back into the race."""
    store.execute("UPDATE drops SET undone = ? WHERE setup = ? AND pool = ?", (now(), setup, pool))


def count(store: Store) -> tuple[int, int]:
    """(drops, those that were undone) of the whole study."""
    (row,) = store.query("SELECT count(*) AS n, count(undone) AS n_undone FROM drops")
    return row["n"], row["n_undone"]
