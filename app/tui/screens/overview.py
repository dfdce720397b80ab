"""Overview: where the study stands, what runs, the live leaderboard, what is new."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from app.printable import printable
from app.tui.base import Pane, Told
from app.tui.marks import VERDICTS, interval_bar, meter, percent, reach_of, sparkline, style_of
from app.tui.snapshot import Snapshot
from app.tui.table import KeyedTable
from engine.budget import format_seconds
from engine.store import Row


class Overview(Pane):
    """The first screen."""

    title_text = "Overview"
    help_text = """\
The leaderboard ranks every pool against the control, the random pool that was trained as long. The
bar is the interval of its change on a common scale (│ is zero; ◄ ► mark intervals that go beyond
the scale; ○ is a single seed, which has none). ▲ helps and ▼ hurts are said only when the interval,
corrected for all pools and looks, excludes zero.

s starts the engine, p pauses and resumes it, x stops it after its running trials. Leaving the UI
stops nothing.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "app.start_engine", "Start", id="engine.start"),
        Binding("p", "app.pause_engine", "Pause/resume", id="engine.pause"),
        Binding("x", "app.stop_engine", "Stop", id="engine.stop"),
        Binding("b", "app.set_budget", "Budget", id="engine.budget"),
    ]

    def content(self) -> ComposeResult:
        """Stages and what runs beside each other, the board below, news at the bottom."""
        with Horizontal(id="top"):
            yield Told(id="stages")
            yield Told(id="running")
        yield KeyedTable(["#", "verdict", "pool", "change %", "interval", "P(best)", "seeds", "steps %"], id="board")
        with Vertical(id="news-box"):
            yield Told(id="news")

    def show(self, s: Snapshot) -> None:
        """All four parts."""
        self.query_one("#stages", Told).tell(_stages(s))
        self.query_one("#running", Told).tell(_running(s))
        self.query_one("#news", Told).tell(_news(s, self.ui.seen))
        if s.board is not None:
            reach, rows = reach_of(s.board), {r["pool"]: (i, r) for i, r in enumerate(s.board, 1)}
            self.query_one("#board", KeyedTable).follow(list(rows), lambda key: _cells(*rows[key], reach))


def _cells(place: int, r: Row, reach: float) -> tuple[object, ...]:
    name = printable(r["label"]) + (" (dropped)" if r["dropped"] else "")
    return (
        str(place) if r["change"] is not None else "–",
        Text(f"{VERDICTS[r['verdict']]} {r['verdict']}", style_of(r["verdict"])), name, percent(r["change"]),
        interval_bar(r, reach), "–" if r["p_best"] is None else f"{r['p_best']:.2f}", str(r["seeds"]),
        f"{100 * r['share']:.0f}",
    )  # fmt: skip


def _stages(s: Snapshot) -> Text:
    """Trials of each stage, and the budget."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for stage in s.stages:
        done, runs = stage.get("COMPLETE", 0), stage.get("RUNNING", 0)
        waits, failed = stage.get("WAITING", 0), stage.get("FAIL", 0)
        total = done + runs + waits + failed
        text.append(f"{stage['stage']:8} ", "bold" if stage["stage"] == s.stage else "")
        text.append(f"{meter(done / total if total else 0, 12)} {done}/{total}")
        text.append(f"  {runs} run" if runs else "")
        text.append(f"  {failed} failed" if failed else "", "bold red")
        text.append("\n")
    text.append(f"\nbudget   {sparkline(s.burn, 24)} {format_seconds(s.spent)} of {format_seconds(s.limit)}")
    return text


def _running(s: Snapshot) -> Text:
    """Running trials, a line each, with the course of their loss."""
    if not s.running:
        said = "nothing runs" if s.engine else "no engine runs: s starts it, where the study has work left"
        return Text(said, "dim")
    text = Text(no_wrap=True, overflow="ellipsis")
    for r in s.running[:7]:
        loss = f"{r['loss'][-1]:.2f}" if r["loss"] else ""
        text.append(f"{r['device']:5} {printable(r['label'])[:28]:28} seed {r['seed']} step {r['step']:<5} ")
        text.append(f"{sparkline(r['loss'])} {loss}\n")
    if len(s.running) > 7:
        text.append(f"and {len(s.running) - 7} more", "dim")
    return text


def _news(s: Snapshot, seen: int) -> Text:
    """Events since the last look, the latest first; then what the stages have shown."""
    text = Text()
    new = [e for e in s.events if e["id"] > seen and e["kind"] != "recover"]
    if new:
        text.append(f"{len(new)} new since you last looked\n", "bold")
        for e in new[:4]:
            text.append(f"{e['at'][11:19]} {e['kind']}: {printable(' '.join(e['text'].split()))[:160]}\n")
    told = [x for stage in reversed(list(s.insights)) for x in s.insights[stage]]
    for x in told[: 4 if new else 8]:
        text.append(f"• {printable(x['text'])}\n")
    if s.results.get("recipe"):
        text.append(f"recipe: {printable(s.results['recipe']['label'])}\n", "bold green")
    return text
