"""Studies: those of a folder, each with its state, answer, budget and best pool; one is opened, two are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import DataTable, Static

from app.text.printable import one_line, printable
from app.text.studies import WORDS, best_text, time_text, trials_text
from app.tui.reading.snapshot import Snapshot
from app.tui.screens.base import Head, Pane
from app.tui.widgets.beside import Beside
from app.tui.widgets.marks import cut, style_of
from app.tui.widgets.table import KeyedTable
from engine.base.amounts import format_seconds
from engine.base.errors import DjsbError
from engine.journal.store import Row

WIDEST = ["✓", "study", "state", "best pool", "change", "task", "model", "rows", "trials", "budget", "last run"]
WIDE = ["✓", "study", "state", "best pool", "change", "task", "trials", "budget"]
NARROW = ["✓", "study", "state", "change", "trials"]
STYLES = {"running": "note", "awaits": "warn", "broken": "bad", "not started": "faint", "stopped": "faint"}
ORDERS = {"name": lambda r: r["name"], "last run": lambda r: r["last"] or "", "change": lambda r: _change(r)}


class Chosen(Message):
    """A study is to be opened."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder


class Studies(Pane):
    """The studies of a folder."""

    title_text = "Studies"
    help_text = """\
Every study of the folder: ▶ runs, ⏸ is paused, ◐ waits for your decision, ● has ended, ■ was stopped, □ has not begun,
✗ cannot be read, with its reason below. The change is that of the confirmed recipe or, until there is one, of the first
pool of the leaderboard, with its bound or interval. Enter opens the study under the cursor, Escape comes back here.
Space marks studies; v puts the leaderboards of two marked ones side by side. o orders by name, time or change.
Nothing in a study is changed by looking.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", id="studies.open"),
        Binding("space", "mark", "Mark", id="studies.mark"),
        Binding("v", "compare", "Compare", id="studies.compare"),
        Binding("o", "order", "Order", id="studies.order"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.marked: list[str] = []
        self.order = "name"
        self._rows: dict[str, Row] = {}
        self._asked = -1

    def content(self) -> ComposeResult:
        """The table, and the study under the cursor in full."""
        yield KeyedTable(NARROW, id="studies")
        with VerticalScroll(id="study-box"):
            yield Static(id="study")

    def on_mount(self) -> None:
        """The table has the keys."""
        self.query_one("#studies").focus()

    def refresh_data(self, force: bool = False) -> None:
        """The header tells of the folder, not of one study."""
        super().refresh_data(force)
        s = self.ui.snapshot
        if s is not None and self.is_mounted:
            count = {state: sum(r["state"] == state for r in s.studies) for state in WORDS}
            said = [f"{n} {WORDS[state][2:]}" for state, n in count.items() if n]
            said = ["enter opens one", f"{len(s.studies)} studies", *said]
            head = ((" Studies ", "reverse bold"), f" {printable(str(s.folder))} · {' · '.join(said)}")
            self.query_one(Head).tell(Text.assemble(*head, no_wrap=True, overflow="ellipsis"))

    def show(self, s: Snapshot) -> None:
        """A row a study."""
        self._rows = {r["folder"]: r for r in s.studies}
        self.marked = [m for m in self.marked if m in self._rows]
        width = self.app.size.width
        names = WIDEST if width >= 150 else WIDE if self.wide else NARROW
        rows = sorted(s.studies, key=ORDERS[self.order], reverse=self.order != "name")
        table = self.query_one("#studies", KeyedTable)
        table.columns_are(names)
        table.follow([r["folder"] for r in rows], lambda key: self._cells(self._rows[key], names))
        self._detail()

    def _cells(self, r: Row, names: list[str]) -> tuple[Any, ...]:
        best = r["best"] or {"label": "–", "verdict": "unclear"}
        room = max(16, (self.app.size.width - 110) // 2)
        waits = f" ({r['awaiting']})" if r["awaiting"] else ""
        cells = {
            "✓": "●" if r["folder"] in self.marked else "", "study": cut(printable(Path(r["folder"]).name), 24),
            "state": Text(WORDS[r["state"]] + waits, STYLES.get(r["state"], "")),
            "best pool": cut(one_line(best["label"]), room),
            "change": Text(best_text(r["best"]), style_of(best["verdict"])),
            "task": r["task"] or "–", "model": cut(one_line(r["model"] or "–"), 16),
            "rows": Text("–" if r["rows"] is None else f"{r['rows']:,}", justify="right"),
            "trials": trials_text(r["trials"]), "last run": time_text(r["last"]),
            "budget": f"{format_seconds(r['spent'])} of {format_seconds(r['limit'])}",
        }  # fmt: skip
        return tuple(cells[name] for name in names)

    @property
    def current(self) -> Row | None:
        """The study under the cursor."""
        return self._rows.get(self.query_one("#studies", KeyedTable).current or "")

    @on(DataTable.RowHighlighted, "#studies")
    def _detail(self) -> None:
        r = self.current
        text = Text("no study lies here any more", "faint") if r is None else _in_full(r)
        self.query_one("#study", Static).update(text)

    @on(DataTable.RowSelected, "#studies")
    def action_open(self) -> None:
        """Open the study under the cursor."""
        if (r := self.current) is None:
            return
        if r["problem"]:
            self.notify(r["problem"], severity="error", timeout=10)
        else:
            self.post_message(Chosen(Path(r["folder"])))

    def action_mark(self) -> None:
        """Mark the study under the cursor, or unmark it, and go to the next."""
        if r := self.current:
            key = r["folder"]
            self.marked = [m for m in self.marked if m != key] if key in self.marked else [*self.marked, key]
            self.refresh_data(force=True)
            self.query_one("#studies", KeyedTable).action_cursor_down()

    def action_order(self) -> None:
        """By name, by when it last ran, by its change."""
        names = list(ORDERS)
        self.order = names[(names.index(self.order) + 1) % len(names)]
        self.notify(f"ordered by {self.order}")
        self.refresh_data(force=True)

    def action_compare(self) -> None:
        """Ask how two marked studies compare."""
        if len(self.marked) != 2:
            self.notify("mark two studies with space first", severity="warning")
        elif self.ui.feed:
            self._asked = self.ui.feed.ask("compare", *self.marked)

    def answered(self, number: int, content: Any) -> None:
        """The comparison has come."""
        if number != self._asked:
            return
        if isinstance(content, DjsbError):
            self.notify(str(content), severity="error", timeout=10)
        else:
            self.app.push_screen(Beside(content))


def _change(r: Row) -> float:
    return r["best"]["change"] if r["best"] else float("-inf")


def _in_full(r: Row) -> Text:
    """What is known of a study, and what it answers."""
    text = Text.assemble((f"{printable(r['name'])}  ", "bold"), (f"{printable(r['folder'])}\n", "faint"))
    if r["problem"]:
        return text.append(f"✗ {printable(r['problem'])}\n", "bad")
    text.append(f"{one_line(r['answer'])}\n" if r["answer"] else "")
    if r["awaiting"]:
        text.append(f"◐ {r['awaiting']} proposal(s) wait for your decision\n", "warn")
    if r["best"]:
        text.append(
            f"best pool: {one_line(r['best']['label'])} {best_text(r['best'])}\n", style_of(r["best"]["verdict"])
        )
    rows = "" if r["rows"] is None else f", {r['rows']:,} rows"
    text.append(f"task {r['task'] or '–'}, model {one_line(r['model'] or '–')}; data {one_line(r['data'])}{rows}\n")
    text.append(
        f"trials {trials_text(r['trials'])}; {format_seconds(r['spent'])} of {format_seconds(r['limit'])} spent; "
    )
    return text.append(f"last run {time_text(r['last'])} UTC\n" if r["last"] else "never run\n", "")
