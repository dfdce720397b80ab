"""`djsb papers`: the literature that the agent may cite."""

from __future__ import annotations

from app.text.printable import say, say_table
from engine.journal.store import Row


def papers(query: str, tag: str | None) -> list[Row]:
    """Works of the survey's list that fit."""
    from agent.literature import search

    return search(query, tag)


def show_papers(found: list[Row]) -> None:
    """As people read it."""
    if not found:
        say("no work fits; try fewer or other words")
        return
    say_table([[p["id"], p["title"], ", ".join(p["tags"])] for p in found], ["id", "title", "tags"])
