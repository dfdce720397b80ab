"""`djsb readmit`: a pool that the race has dropped comes back."""

from __future__ import annotations

from pathlib import Path

from app.person import person
from app.text.printable import say
from engine.base.ids import by_beginning
from engine.journal import drops
from engine.journal.store import Row
from engine.study.view import view_study


def readmit(folder: Path, pool: str, why: str) -> Row:
    """Undo the race's drop of a pool."""
    from engine.search.race import readmit as undo

    opened = view_study(folder)
    dropped = drops.standing(opened.store, opened.setup)
    missing = f"the race has dropped no pool {pool!r}; djsb rank names those that it has"
    chosen = by_beginning((d.pool for d in dropped), pool, missing)
    undo(opened, chosen, person(), why or "no reason given")
    return {"readmitted": chosen, "was": [d.reason for d in dropped if d.pool == chosen]}


def show_readmit(found: Row) -> None:
    """As people read it."""
    say(f"readmitted  {found['readmitted']}  (was dropped: {'; '.join(found['was'])}); djsb auto goes on with it")
