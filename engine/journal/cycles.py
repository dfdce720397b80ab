"""The table cycles: those after the first, each with the checkpoint that it starts from."""

from __future__ import annotations

from engine.journal.store import Row, Store, now
from engine.records.cycle import CycleStart


def _start(row: Row) -> CycleStart:
    names = ("context", "root", "cycle", "parent", "init", "proposal", "spent")
    return CycleStart(*(row[n] for n in names))


def get(store: Store, context: str) -> CycleStart:
    """The cycle of a context; one that is not in the table is a first cycle."""
    row = store.one("SELECT * FROM cycles WHERE context = ?", (context,))
    return _start(row) if row else CycleStart(context, context)


def latest(store: Store, root: str) -> CycleStart | None:
    """The cycle that the engine recorded last, of those that began with this context; None before it recorded one."""
    row = store.one(
        "SELECT s.context FROM studies s LEFT JOIN cycles c ON c.context = s.context "
        "WHERE s.context = ? OR c.root = ? ORDER BY s.at DESC LIMIT 1",
        (root, root),
    )
    return get(store, row["context"]) if row else None


def chain(store: Store, context: str) -> list[CycleStart]:
    """The cycles from the first to the one of this context."""
    found = [get(store, context)]
    while found[-1].parent is not None:
        found.append(get(store, found[-1].parent))
    return found[::-1]


def add(store: Store, cycle: CycleStart) -> bool:
    """Write a cycle's start; False where it was written before. Call inside a transaction."""
    new = store.execute(
        "INSERT OR IGNORE INTO cycles(context, root, cycle, parent, init, proposal, spent, at) "
        "VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (cycle.context, cycle.root, cycle.cycle, cycle.parent, cycle.init, cycle.proposal, cycle.spent, now()),
    )
    return bool(new)
