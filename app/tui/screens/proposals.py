"""Proposals: the queue with reasons, gains and costs; a person decides here, and may write proposals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import yaml
from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Static

from app.text.printable import one_line
from app.tui.proposal.form import NEW, ProposalForm
from app.tui.proposal.text import best_pool, detail, left_after
from app.tui.reading.snapshot import Snapshot
from app.tui.screens.base import Pane
from app.tui.widgets.dialogs import AskLine, EditText
from app.tui.widgets.marks import STATUSES, percent
from app.tui.widgets.table import KeyedTable
from engine.base.amounts import format_seconds
from engine.base.errors import DjsbError
from engine.base.ids import json_text
from engine.base.yaml_text import NotYaml, parse_yaml

if TYPE_CHECKING:
    from engine.journal.store import Row

WAITS = ("queued", "held")
UNDOES = ("approved", "rejected", "held")
CHANGES = ("pools", "seeds", "control_seeds", "reason")


class Proposals(Pane):
    """What is proposed, by whom, and what became of it."""

    title_text = "Proposals"
    help_text = """\
Everything that runs was proposed and decided on. ○ waits, ◐ is held, ● approved, ✗ rejected, ✎
replaced by an edited version, ⊘ refused by the gate. Space marks several, ctrl+a all that wait; a
approves, r rejects with a reason, h holds what is marked (or the row under the cursor), u takes decisions back while
nothing of them has started. The line above the details says what all marked ones cost together.
e edits and n writes a proposal in a form that is checked as you type; t shows those that wait only.
The details compare each pool with the best recipe so far: + a slice more, − one less, ~ other
bounds, repetition or size. s starts the engine, which runs what was approved.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "Mark", id="proposals.mark"),
        Binding("a", "decide('approve')", "Approve", id="proposals.approve"),
        Binding("r", "decide('reject')", "Reject", id="proposals.reject"),
        Binding("h", "decide('hold')", "Hold", id="proposals.hold"),
        Binding("e", "edit", "Edit", id="proposals.edit"),
        Binding("n", "write", "New", id="proposals.new"),
        Binding("u", "undo", "Undo", id="proposals.undo"),
        Binding("t", "waiting", "Waiting only", show=False, id="proposals.waiting"),
        Binding("ctrl+a", "mark_waiting", "Mark all that wait", show=False, id="proposals.mark_waiting"),
        Binding("s", "app.start_engine", "Start engine", show=False, id="proposals.start"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.marked: set[str] = set()
        self.only_waiting = False
        self.best: Row | None = None
        self._best_id: str | None = None
        self._asked = self._asked_elsewhere = -1
        self._at: str | None = None
        self.elsewhere: list[Row] = []

    def content(self) -> ComposeResult:
        """The queue, what is marked, and the row under the cursor in full."""
        yield KeyedTable(["✓", "status", "by", "kind", "stage", "gain %", "cost", "reason"], id="queue")
        yield Static(id="marked")
        with VerticalScroll(id="proposal-box"):
            yield Static(id="proposal")

    def show(self, s: Snapshot) -> None:
        """The queue, those that wait first, then the latest."""
        rows = s.queued if self.only_waiting else s.proposals
        waiting = [p for p in rows if p["status"] in WAITS]
        late = [*waiting, *[p for p in rows if p["status"] not in WAITS][::-1]]
        self.marked &= {p["id"] for p in s.proposals if p["status"] in (*WAITS, *UNDOES)}
        table = self.query_one("#queue", KeyedTable)
        table.put([(p["id"], self._cells(p)) for p in late])
        if self._at in [p["id"] for p in late]:
            table.move_cursor(row=[p["id"] for p in late].index(self._at))
            self._at = None
        self._tell_marked(s)
        self._ask_best(s)
        self._detail()

    def go_to(self, proposal: str) -> None:
        """Put the cursor on a proposal as soon as it is there."""
        self._at, self.only_waiting = proposal, False

    def _tell_marked(self, s: Snapshot) -> None:
        marked = [p for p in s.proposals if p["id"] in self.marked]
        line = self.query_one("#marked", Static)
        line.display = bool(marked)
        waiting = [p for p in marked if p["status"] in WAITS]
        text = Text(f"{len(marked)} marked, {len(waiting)} to decide", "bold")
        line.update(Text.assemble(text, "; together ", left_after(waiting, s)) if waiting else text)

    def on_screen_resume(self) -> None:
        """What other studies of the same data found is read whenever the screen comes up."""
        super().on_screen_resume()
        if self.ui.feed:
            self._asked_elsewhere = self.ui.feed.ask("elsewhere")

    def _ask_best(self, s: Snapshot) -> None:
        """The best recipe's pool is asked for when it is another one."""
        found = best_pool(s)
        if found and found[0] != self._best_id and self.ui.feed:
            self._best_id = found[0]
            self._asked = self.ui.feed.ask("pool", found[0])
        elif found and self.best:
            self.best["why"] = found[1]

    def answered(self, number: int, content: Any) -> None:
        """The best recipe's pool has come, or what other studies found."""
        if number == self._asked_elsewhere and isinstance(content, list):
            self.elsewhere = content
            self._detail()
        if number == self._asked and content and not isinstance(content, DjsbError) and self.ui.snapshot:
            found = best_pool(self.ui.snapshot)
            self.best = {**content, "why": found[1] if found else ""}
            self._detail()

    def _cells(self, p: Row) -> tuple[Any, ...]:
        cost = "–" if p["cost"] is None else format_seconds(p["cost"])
        return (
            "●" if p["id"] in self.marked else "", f"{STATUSES.get(p['status'], '?')} {p['status']}", p["origin"],
            p["kind"], p["stage"], percent(p["content"].get("expected")), cost,
            one_line(p["content"]["reason"])[:100],
        )  # fmt: skip

    @property
    def current(self) -> Row | None:
        """The proposal under the cursor."""
        key = self.query_one("#queue", KeyedTable).current
        return next((p for p in (self.ui.snapshot.proposals if self.ui.snapshot else ()) if p["id"] == key), None)

    @on(DataTable.RowHighlighted)
    def _detail(self) -> None:
        if self.ui.snapshot:
            p = self.current
            self.query_one("#proposal", Static).update(
                detail(p, self.ui.snapshot, self.best, self.elsewhere) if p else NOTHING
            )

    def chosen(self, statuses: tuple[str, ...]) -> list[str]:
        """Ids of what is marked, or else of the row under the cursor, that have one of these statuses."""
        here = {self.current["id"]} if self.current else set()
        wanted = self.marked or here
        return [p["id"] for p in (self.ui.snapshot.proposals if self.ui.snapshot else ())
                if p["id"] in wanted and p["status"] in statuses]  # fmt: skip

    def action_mark(self) -> None:
        """Mark the proposal under the cursor, or unmark it, and go to the next."""
        if (p := self.current) and p["status"] in (*WAITS, *UNDOES):
            self.marked ^= {p["id"]}
            self.refresh_data(force=True)
            self.query_one("#queue", KeyedTable).action_cursor_down()

    def action_mark_waiting(self) -> None:
        """Mark all that wait for a decision, or unmark everything."""
        waiting = {p["id"] for p in (self.ui.snapshot.queued if self.ui.snapshot else ())}
        self.marked = set() if self.marked >= waiting else waiting
        self.refresh_data(force=True)

    def action_waiting(self) -> None:
        """Show those that wait only, or all."""
        self.only_waiting = not self.only_waiting
        self.refresh_data(force=True)

    @work
    async def action_decide(self, verdict: str) -> None:
        """Approve, reject or hold what is marked, or the row under the cursor, with a reason."""
        if not (chosen := self.chosen(WAITS)):
            self.notify("nothing here waits for a decision", severity="warning")
            return
        needs = (lambda text: None if text.strip() else "say why") if verdict == "reject" else (lambda _: None)
        why = await self.app.push_screen_wait(AskLine(f"{verdict} {len(chosen)} proposal(s): why?", check=needs))
        if why is not None:
            self.marked -= set(chosen)
            self.ui.decide(chosen, verdict, why.strip() or "no reason given")

    @work
    async def action_edit(self) -> None:
        """Edit the proposal under the cursor; the gate checks the edited version before it takes its place."""
        p = self.current
        if p is None or p["status"] not in WAITS:
            self.notify("only a proposal that waits can be edited", severity="warning")
            return
        title = f"Edit {p['id']}"
        if suggested := p["content"].get("suggestion"):
            edited = await self.app.push_screen_wait(ProposalForm(title, suggested, p["id"]))
        else:
            text = yaml.safe_dump(_changeable(p["content"]), sort_keys=False, allow_unicode=True)
            written = await self.app.push_screen_wait(
                EditText(title, text, lambda t: problem_with_edit(t, p["content"]))
            )
            edited = None if written is None else parse_yaml(written, "the text")
        if edited is not None:
            self.ui.edit(p["id"], edited)

    @work
    async def action_write(self) -> None:
        """Write a proposal from nothing."""
        written = await self.app.push_screen_wait(ProposalForm("A new proposal", NEW))
        if written is not None:
            self.ui.suggest(written)

    def action_undo(self) -> None:
        """Take decisions back: of what is marked, or of the row under the cursor."""
        if chosen := self.chosen(UNDOES):
            self.marked -= set(chosen)
            self.ui.undo(chosen)
        else:
            self.notify("no decision here can be taken back", severity="warning")


NOTHING = Text("nothing is proposed here; n writes a proposal, t shows all or those that wait only", "faint")


def _changeable(content: Row) -> Row:
    """What of a procedure's proposal a person may change."""
    return {key: content[key] for key in CHANGES if key in content}


def problem_with_edit(text: str, before: Row) -> str | None:
    """What is wrong with the edited version of a procedure's proposal, or None."""
    from pydantic import ValidationError

    from engine.base.problems import explain
    from engine.records.proposal import Proposal

    try:
        edited = parse_yaml(text, "the text")
        if not isinstance(edited, dict) or set(edited) != set(_changeable(before)):
            return f"it must have {', '.join(_changeable(before))}, and nothing else"
        if edited == _changeable(before):
            return "nothing is changed yet"
        kept = {k: v for k, v in before.items() if k in Proposal.model_fields}
        Proposal.model_validate_json(json_text({**kept, **edited, "origin": "person"}))
    except NotYaml as error:
        return str(error)[:200]
    except ValidationError as error:
        return explain(error)[:300]
    except (TypeError, ValueError, KeyError, DjsbError) as error:
        return f"{type(error).__name__}: {error}"[:160]
    return None
