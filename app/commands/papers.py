"""`djsb papers`: the literature that the agent may cite, and how a method becomes a proposal."""

from __future__ import annotations

from app.text.printable import say, say_table
from engine.journal.store import Row

CARDS = 3  # works that are shown with their cards


def papers(query: str, tag: str | None) -> list[Row]:
    """Works that fit, best first."""
    from agent.literature import search

    return search(query, tag)


def show_papers(found: list[Row]) -> None:
    """As people read it: the cards of the first, then a line each."""
    if not found:
        say("no work fits; try fewer or other words")
        return
    for work in [w for w in found[:CARDS] if "method" in w]:
        arxiv = f", arXiv {work['arxiv']}" if "arxiv" in work else ""
        say(f"{work['short']}: {work['title']} ({work['id']}{arxiv})")
        for name in ("method", "needs", "becomes", "how", "figures"):
            if text := work.get(name):
                say(f"  {name + ':':9}{text if isinstance(text, str) else ', '.join(text)}")
        say("")
    say_table([[w["id"], w["title"], ", ".join(w["tags"])] for w in found], ["id", "title", "tags"])
