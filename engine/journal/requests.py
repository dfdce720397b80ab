"""Table `requests`: what a UI asks of the running engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.base.amounts import parse_budget
from engine.journal.store import Store, now

Kind = Literal["pause", "resume", "stop", "cancel", "budget"]


@dataclass(frozen=True)
class Request:
    """argument: the trial to cancel, or the new budget. who: the person who asks."""

    id: int
    kind: Kind
    argument: str | None
    who: str


def ask(store: Store, kind: Kind, who: str, argument: str | None = None) -> None:
    """Write a request down. argument: the trial to cancel, or the new budget.

    Raises: BudgetError for a budget that is none.
    """
    if kind == "budget":
        parse_budget(argument or "")
    store.put("requests", {"kind": kind, "argument": argument, "who": who, "at": now()})


def open_requests(store: Store) -> list[Request]:
    """Requests without an answer, oldest first."""
    rows = store.query("SELECT id, kind, argument, who FROM requests WHERE taken IS NULL ORDER BY id")
    return [Request(**row) for row in rows]


def answer(store: Store, request: Request, outcome: str) -> None:
    """Record what came of a request."""
    store.execute("UPDATE requests SET taken = ?, outcome = ? WHERE id = ?", (now(), outcome, request.id))


def close_unread(store: Store) -> None:
    """Answer requests of a time when no engine ran."""
    store.execute("UPDATE requests SET taken = ?, outcome = 'no engine ran' WHERE taken IS NULL", (now(),))
