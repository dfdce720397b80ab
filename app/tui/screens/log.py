"""Decisions and log: everything that was decided and happened, searchable; a row in full, and what workers wrote."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Input

from app.text.printable import printable
from app.tui.reading.snapshot import Snapshot
from app.tui.screens.base import Pane
from app.tui.widgets.dialogs import Help
from app.tui.widgets.marks import cut
from app.tui.widgets.table import KeyedTable
from app.tui.widgets.windows import LogTail
from engine.journal.store import Row

LEVELS = {"info": "  info", "warning": "! warning", "error": "✗ error"}
STYLES = {"warning": "warn", "error": "bad"}
COLUMNS = ["time (UTC)", "level", "kind", "about", "what happened"]


class Log(Pane):
    """Events, the latest first. Decisions are among them."""

    title_text = "Log"
    help_text = """\
Everything that happened, the latest first: decisions (who, what, why), requests, drops of the race,
refusals of the gate, crashes, results. / searches in all columns; several words must all be there.
Escape goes back to the table. Enter shows the row under the cursor in full. g shows the end of the
logs that workers and the engine write, and follows them.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search", id="log.search"),
        Binding("g", "worker_log", "Worker logs", id="log.workers"),
        Binding("enter", "details", "In full", id="log.details"),
    ]

    def content(self) -> ComposeResult:
        """The search and the table."""
        yield Input(placeholder="/ search: words that must all be there", id="search")
        yield KeyedTable(COLUMNS, id="events")

    def on_mount(self) -> None:
        """The table has the keys first."""
        self.query_one("#events").focus()

    def show(self, s: Snapshot) -> None:
        """The events that fit the search."""
        words = self.query_one("#search", Input).value.lower().split()
        shown = {str(e["id"]): e for e in s.events if not words or all(w in _text(e) for w in words)}
        table = self.query_one("#events", KeyedTable)
        table.columns_are(COLUMNS if self.wide else [c for c in COLUMNS if c != "about"])
        room = max(24, self.app.size.width - (80 if self.wide else 40))
        table.follow(list(shown), lambda key: _cells(shown[key], self.wide, room))

    def action_search(self) -> None:
        """Go to the search."""
        self.query_one("#search").focus()

    def action_worker_log(self) -> None:
        """The logs of workers and engine."""
        self.app.push_screen(LogTail())

    @on(DataTable.RowSelected, "#events")
    def action_details(self) -> None:
        """The row under the cursor in full."""
        key = self.query_one("#events", KeyedTable).current
        found = next((e for e in (self.ui.snapshot.events if self.ui.snapshot else ()) if str(e["id"]) == key), None)
        if found:
            about = f"about {printable(found['subject'])}\n" if found["subject"] else ""
            text = f"{found['at']} · {found['level']} · event {found['id']}\n{about}\n{printable(found['text'])}"
            self.app.push_screen(Help(found["kind"], text))

    @on(Input.Changed, "#search")
    def _filter(self) -> None:
        self.refresh_data(force=True)

    @on(Input.Submitted, "#search")
    def key_escape(self) -> None:
        """Back to the table."""
        self.query_one("#events").focus()


def _cells(e: Row, wide: bool, room: int) -> tuple[Text, ...]:
    text = cut(printable(" ".join(e["text"].split())), room)
    time = e["at"][:19].replace("T", " ") if wide else e["at"][11:19]
    style = STYLES.get(e["level"], "")
    about = (Text(cut(printable(e["subject"] or ""), 24)),) if wide else ()
    return (
        Text(time),
        Text(LEVELS.get(e["level"]) or str(e["level"]), style),
        Text(printable(e["kind"])),
        *about,
        Text(text),
    )


def _text(e: Row) -> str:
    return " ".join((e["at"][:19].replace("T", " "), e["level"], e["kind"], e["subject"] or "", e["text"])).lower()
