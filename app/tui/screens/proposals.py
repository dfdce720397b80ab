"""Proposals: the queue with reasons, gains and costs; a person decides here, and may write proposals."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import yaml
from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Static

from app.printable import printable
from app.tui.base import Pane
from app.tui.dialogs import AskLine, EditText
from app.tui.marks import STATUSES, percent
from app.tui.snapshot import Snapshot
from app.tui.table import KeyedTable
from engine.budget import format_seconds
from engine.store import Row

NEW = """\
experiment:
  kind: combine
  slices:
    - {statistic: text_len, bucket: mid}
    - {statistic: num_words, low: 3, high: 12}
reason: why this is worth its cost
evidence: []
"""


class Proposals(Pane):
    """What is proposed, by whom, and what became of it."""

    title_text = "Proposals"
    help_text = """\
Everything that runs was proposed and decided on. ○ waits, ◐ is held, ● approved, ✗ rejected, ✎
replaced by an edited version, ⊘ refused by the gate. Space marks several; a approves, r rejects
with a reason, h holds what is marked (or the row under the cursor), e edits it, n writes one from
nothing, u takes a decision back while nothing of it has started, t shows those that wait only.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "Mark", id="proposals.mark"),
        Binding("a", "decide('approve')", "Approve", id="proposals.approve"),
        Binding("r", "decide('reject')", "Reject", id="proposals.reject"),
        Binding("h", "decide('hold')", "Hold", id="proposals.hold"),
        Binding("e", "edit", "Edit", id="proposals.edit"),
        Binding("n", "write", "New", id="proposals.new"),
        Binding("u", "undo", "Undo", id="proposals.undo"),
        Binding("t", "waiting", "Waiting only", id="proposals.waiting"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.marked: set[str] = set()
        self.only_waiting = False

    def content(self) -> ComposeResult:
        """The queue, and the row under the cursor in full."""
        yield KeyedTable(["✓", "status", "by", "kind", "stage", "gain %", "cost", "reason"], id="queue")
        with VerticalScroll(id="proposal-box"):
            yield Static(id="proposal")

    def show(self, s: Snapshot) -> None:
        """The queue, those that wait first, then the latest."""
        rows = s.queued if self.only_waiting else s.proposals
        ordered = sorted(rows, key=lambda p: p["status"] not in ("queued", "held"))
        late = ordered[: len(s.queued)] + ordered[len(s.queued) :][::-1]
        self.marked &= {p["id"] for p in s.queued}
        self.query_one("#queue", KeyedTable).put([(p["id"], self._cells(p)) for p in late])
        self._detail()

    def _cells(self, p: Row) -> tuple[Any, ...]:
        cost = "–" if p["cost"] is None else format_seconds(p["cost"])
        return (
            "●" if p["id"] in self.marked else "", f"{STATUSES.get(p['status'], '?')} {p['status']}", p["origin"],
            p["kind"], p["stage"], percent(p["content"].get("expected")), cost,
            printable(" ".join(p["content"]["reason"].split()))[:100],
        )  # fmt: skip

    @property
    def current(self) -> Row | None:
        """The proposal under the cursor."""
        key = self.query_one("#queue", KeyedTable).current
        return next((p for p in (self.ui.snapshot.proposals if self.ui.snapshot else ()) if p["id"] == key), None)

    @on(DataTable.RowHighlighted)
    def _detail(self) -> None:
        if self.ui.snapshot and (p := self.current):
            self.query_one("#proposal", Static).update(detail(p, self.ui.snapshot))

    def action_mark(self) -> None:
        """Mark the proposal under the cursor, or unmark it."""
        if (p := self.current) and p["status"] in ("queued", "held"):
            self.marked ^= {p["id"]}
            self.refresh_data(force=True)

    def action_waiting(self) -> None:
        """Show those that wait only, or all."""
        self.only_waiting = not self.only_waiting
        self.refresh_data(force=True)

    @work
    async def action_decide(self, verdict: str) -> None:
        """Approve, reject or hold what is marked, or the row under the cursor, with a reason."""
        waiting = {p["id"] for p in (self.ui.snapshot.queued if self.ui.snapshot else ())}
        here = {self.current["id"]} if self.current else set()
        chosen = sorted((self.marked or here) & waiting)
        if not chosen:
            self.notify("nothing here waits for a decision", severity="warning")
            return
        needs = (lambda text: None if text.strip() else "say why") if verdict == "reject" else (lambda _: None)
        why = await self.app.push_screen_wait(AskLine(f"{verdict} {len(chosen)} proposal(s): why?", check=needs))
        if why is not None:
            self.marked = set()
            self.ui.decide(chosen, verdict, why or "no reason given")

    @work
    async def action_edit(self) -> None:
        """Edit the proposal under the cursor; the gate checks the edited version before it takes its place."""
        p = self.current
        if p is None or p["status"] not in ("queued", "held"):
            self.notify("only a proposal that waits can be edited", severity="warning")
            return
        content = p["content"].get("suggestion") or {k: p["content"][k] for k in ("pools", "seeds", "reason")}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        check = problem_of if p["content"].get("suggestion") else (lambda t: None if _mapping(t) else "not a mapping")
        edited = await self.app.push_screen_wait(EditText(f"Edit {p['id']}", text, check))
        if edited is not None:
            self.ui.edit(p["id"], edited)

    @work
    async def action_write(self) -> None:
        """Write a proposal from nothing."""
        written = await self.app.push_screen_wait(EditText("A new proposal", NEW, problem_of))
        if written is not None:
            self.ui.suggest(written)

    def action_undo(self) -> None:
        """Take the decision under the cursor back."""
        if p := self.current:
            self.ui.undo(p["id"])


def _mapping(text: str) -> bool:
    try:
        return isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        return False


def problem_of(text: str) -> str | None:
    """What is wrong with a suggestion's text, or None."""
    from pydantic import ValidationError

    from engine.experiments import Suggestion
    from engine.study import explain

    try:
        Suggestion.model_validate_json(json.dumps(yaml.safe_load(text)))
    except yaml.YAMLError as error:
        return "not YAML: " + " ".join(str(error).split())[:160]
    except ValidationError as error:
        return explain(error)[:300]
    except (TypeError, ValueError) as error:
        return str(error)[:160]
    return None


def detail(p: Row, s: Snapshot) -> Text:
    """One proposal in full: reason, cost and what would be left, what differs from the best recipe, decisions."""
    content = p["content"]
    text = Text(f"{p['id']} · {p['kind']} by {p['origin']}\n", "bold")
    text = Text.assemble(text, printable(content["reason"]), "\n")
    if p["cost"] is not None:
        left = s.limit - s.spent - p["cost"]
        text.append(f"costs about {format_seconds(p['cost'])}; {format_seconds(max(0.0, left))} would be left\n")
    if content.get("expected") is not None:
        text.append(f"expected: {content['expected']:+.1f} %\n")
    text.append(f"the gate: {printable(content.get('gate', ''))}\n", "dim")
    if content.get("evidence"):
        text.append(f"rests on {', '.join(content['evidence'])}\n", "dim")
    best = (s.results.get("recipe") or {}).get("label") or next((r["label"] for r in s.board or ()), None)
    for pool in content.get("pools", ()):
        if pool["kind"] != "control":
            text.append_text(_difference(pool["label"], best))
    for d in s.decisions:
        if d["proposal"] == p["id"]:
            text.append(f"{d['verdict']} by {printable(d['who'])}: {printable(d['why'])} ({d['at'][:19]})\n")
    text.append(f"if rejected: {printable(str(content.get('fallback', '')))}\n", "dim")
    return text


def _difference(label: str, best: str | None) -> Text:
    """A pool's slices against the best recipe so far: + new, − missing."""
    mine = label.split(" + ")
    theirs = best.split(" + ") if best else []
    text = Text(f"{printable(label)}  ")
    for part in mine:
        if part not in theirs:
            text.append(f"+ {printable(part)}  ", "good")
    for part in theirs:
        if part not in mine:
            text.append(f"− {printable(part)}  ", "bad")
    return text.append("\n")
