"""`djsb log`: the recorded events."""

from __future__ import annotations

from pathlib import Path

from app.text.printable import say
from engine.base.ids import some
from engine.journal import events
from engine.journal.store import Row
from engine.study.view import view_study


def log(folder: Path, last: int) -> list[Row]:
    """The last events and decisions, oldest first."""
    newest_first = events.last(view_study(folder).store, last)
    return [some(e, "at", "level", "kind", "subject", "text") for e in reversed(newest_first)]


def show_log(found: list[Row]) -> None:
    """As people read it."""
    for r in found:
        say(f"{r['at']}  {r['level']:7}  {r['kind']:10}  {r['subject'] or '':16}  {r['text']}")
