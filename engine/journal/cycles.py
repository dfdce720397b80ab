"""The table cycles: those after the first, each with the checkpoint that it starts from."""

from __future__ import annotations

from engine.journal.store import Row, Store, now
from engine.records.cycle import CycleStart


def _start(row: Row) -> CycleStart:
    names = ("setup", "root", "cycle", "parent", "init", "proposal", "spent")
    return CycleStart(*(row[n] for n in names))


def get(store: Store, setup: str) -> CycleStart:
    """The cycle of a setup; one that is not in the table is a first cycle."""
    row = store.one("SELECT * FROM cycles WHERE setup = ?", (setup,))
    return _start(row) if row else CycleStart(setup, setup)


def latest(store: Store, root: str) -> CycleStart | None:
    """The cycle that the engine recorded last, of those that began with this setup; None before it recorded one."""
    row = store.one(
        "SELECT s.setup FROM setups s LEFT JOIN cycles c ON c.setup = s.setup "
        "WHERE s.setup = ? OR c.root = ? ORDER BY s.at DESC LIMIT 1",
        (root, root),
    )
    return get(store, row["setup"]) if row else None


def chain(store: Store, setup: str) -> list[CycleStart]:
    """The cycles from the first to the one of this setup."""
    found = [get(store, setup)]
    while found[-1].parent is not None:
        found.append(get(store, found[-1].parent))
    return found[::-1]


def add(store: Store, cycle: CycleStart) -> bool:
    """Write a cycle's start; False where it was written before. Call inside a transaction."""
    new = store.execute(
        "INSERT OR IGNORE INTO cycles(setup, root, cycle, parent, init, proposal, spent, at) "
        "VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (cycle.setup, cycle.root, cycle.cycle, cycle.parent, cycle.init, cycle.proposal, cycle.spent, now()),
    )
    return bool(new)
