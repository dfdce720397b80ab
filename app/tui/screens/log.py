"""Decisions and log: everything that was decided and happened, searchable."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from app.printable import printable
from app.tui.base import Pane
from app.tui.snapshot import Snapshot
from app.tui.table import KeyedTable
from engine.store import Row


class Log(Pane):
    """Events, the latest first. Decisions are among them."""

    title_text = "Log"
    help_text = """\
Everything that happened, the latest first: decisions (who, what, why), requests, drops of the race,
refusals of the gate, crashes, results. / searches in all columns; several words must all be there.
Escape goes back to the table.
"""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("slash", "search", "Search", id="log.search")]

    def content(self) -> ComposeResult:
        """The search and the table."""
        yield Input(placeholder="/ search: words that must all be there", id="search")
        yield KeyedTable(["time (UTC)", "level", "kind", "about", "what happened"], id="events")

    def on_mount(self) -> None:
        """The table has the keys first."""
        self.query_one("#events").focus()

    def show(self, s: Snapshot) -> None:
        """The events that fit the search."""
        words = self.query_one("#search", Input).value.lower().split()
        shown = {str(e["id"]): e for e in s.events if not words or all(w in _text(e) for w in words)}
        self.query_one("#events", KeyedTable).follow(list(shown), lambda key: _cells(shown[key]))

    def action_search(self) -> None:
        """Go to the search."""
        self.query_one("#search").focus()

    @on(Input.Changed, "#search")
    def _filter(self) -> None:
        self.refresh_data(force=True)

    @on(Input.Submitted, "#search")
    def key_escape(self) -> None:
        """Back to the table."""
        self.query_one("#events").focus()


def _cells(e: Row) -> tuple[str, ...]:
    text = printable(" ".join(e["text"].split()))
    return e["at"][:19].replace("T", " "), e["level"], e["kind"], printable(e["subject"] or ""), text


def _text(e: Row) -> str:
    return " ".join(_cells(e)).lower()
