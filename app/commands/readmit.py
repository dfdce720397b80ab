"""`djsb readmit`: a pool that the race has dropped comes back."""

from __future__ import annotations

from pathlib import Path

from app.commands.show import like
from app.person import person
from app.text.printable import say
from engine.base.errors import StudyError
from engine.journal.store import Row
from engine.study.view import view_study


def readmit(folder: Path, pool: str, why: str) -> Row:
    """Undo the race's drop of a pool."""
    from engine.search.race import readmit as undo

    opened = view_study(folder)
    dropped = opened.store.query(
        "SELECT pool, stage, reason FROM drops WHERE context = ? AND undone IS NULL AND pool LIKE ? ESCAPE '!'",
        (opened.context, like(pool)),
    )
    if not dropped:
        raise StudyError(f"the race has dropped no pool {pool!r}; djsb rank names those that it has")
    if len({d["pool"] for d in dropped}) > 1:
        raise StudyError(f"{pool!r} is the beginning of several: {', '.join(d['pool'] for d in dropped)}; give more")
    undo(opened, dropped[0]["pool"], person(), why or "no reason given")
    return {"readmitted": dropped[0]["pool"], "was": [d["reason"] for d in dropped]}


def show_readmit(found: Row) -> None:
    """As people read it."""
    say(f"readmitted  {found['readmitted']}  (was dropped: {'; '.join(found['was'])}); djsb auto goes on with it")
