"""What a UI asks of the running engine."""

from __future__ import annotations

from typing import Literal

from engine.base.amounts import parse_budget
from engine.journal.store import Store, now

Kind = Literal["pause", "resume", "stop", "cancel", "budget"]
STATE = "engine"  # the result that says whether the engine is paused


def ask(store: Store, kind: Kind, who: str, argument: str | None = None) -> None:
    """Write a request down. argument: the trial to cancel, or the new budget.

    Raises: BudgetError for a budget that is none.
    """
    if kind == "budget":
        parse_budget(argument or "")
    store.put("requests", {"kind": kind, "argument": argument, "who": who, "at": now()})
