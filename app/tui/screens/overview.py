"""Overview: where the study stands, the budget's course, what runs, the live leaderboard, what is new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static

from app.text.numbers import chance, folded
from app.text.printable import printable
from app.tui.preferences.themes import CURVES
from app.tui.reading.snapshot import Snapshot
from app.tui.screens.base import WIDE, Pane, Told
from app.tui.widgets.kept import Kept, recipe_of
from app.tui.widgets.marks import VERDICTS, cut, cut_inside, interval_bar, meter, percent, reach_of, sparkline, style_of
from app.tui.widgets.table import KeyedTable
from engine.base.amounts import format_seconds
from engine.journal.store import Row

if TYPE_CHECKING:
    from app.tui.widgets.plot import Plot

WIDEST = 150  # columns of a terminal from which p and q have room, too
WIDE_COLUMNS = ["#", "verdict", "pool", "change %", "interval", "P(best)", "seeds", "rows", "steps %"]
WIDEST_COLUMNS = [*WIDE_COLUMNS[:4], "expected %", *WIDE_COLUMNS[4:6], "p", "q", *WIDE_COLUMNS[6:]]
NARROW_COLUMNS = ["#", "?", "pool", "change %", "interval", "seeds"]
MIXED_COLUMNS = [*NARROW_COLUMNS, "rows, steps"]  # where not all pools are of one size and length


class Overview(Pane):
    """The first screen."""

    title_text = "Overview"
    help_text = """\
On top stands the study's answer with its reasons, as djsb status and the report begin with it, too.
The leaderboard ranks every pool against the control, the random pool that was trained as long. The
bar is the interval of its change on a common scale (│ is zero; ◄ ► mark intervals that go beyond
the scale; ○ is a single seed, which has none). ▲ helps and ▼ hurts are said by a test that is
corrected for all pools and looks; · is unclear, × left out. Places count among pools of as many
rows and steps. Expected is what fresh seeds should show, since the best of many was lucky, too; p
is the chance that any pool goes so far where none differs, q the share of wrong claims among pools
as clear. ● behind a name marks the confirmed recipe. d shows what the race has dropped unclear and
what was left out, too; c all that is known of the pool under the cursor, and what it keeps of the
data and drops.

Above stand the stages with their trials, the budget that is left over time (and when it will be
spent at the present rate), and running trials with their progress and the course of their loss.
Below stands what is new since you last looked: places and verdicts that have changed, and events.

s starts the engine, p pauses and resumes it, x stops it after its running trials. Leaving the UI
stops nothing.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "app.start_engine", "Start", id="engine.start"),
        Binding("p", "app.pause_engine", "Pause", id="engine.pause"),
        Binding("x", "app.stop_engine", "Stop", id="engine.stop"),
        Binding("b", "app.set_budget", "Budget", id="engine.budget"),
        Binding("d", "dropped", "Dropped", id="overview.dropped"),
        Binding("c", "contents", "Contents", id="overview.contents"),
    ]
    every = False  # what was dropped or left out is shown, too

    def content(self) -> ComposeResult:
        """Stages, budget and what runs beside each other, the board below, news at the bottom."""
        yield Told(id="answer")
        with Horizontal(id="top"):
            yield Told(id="stages")
            with Vertical(id="burn-box"):
                yield Static("minutes of budget left, over time", id="burn-title", classes="quiet")
            yield Told(id="running")
        yield KeyedTable(WIDE_COLUMNS, id="board")
        with VerticalScroll(id="news-box"):
            yield Told(id="news")

    def on_mount(self) -> None:
        """The table has the keys first."""
        self.query_one("#board").focus()

    def show(self, s: Snapshot) -> None:
        """All parts."""
        width = self.app.size.width
        self.query_one("#answer", Told).tell(_answer(s, self.app.size.height))
        self.query_one("#stages", Told).tell(_stages(s, self.wide))
        room = max(36, min(width // 3, (width - 44) // 2) - 2) if self.wide else width - 2
        self.query_one("#running", Told).tell(_running(s, room))
        self._burn_down(s)
        self.query_one("#news", Told).tell(_news(s, self.ui.look))
        if s.board is not None:
            reach = reach_of(s.board)
            seen = [(i, r) for i, r in placed(s.board) if self.every or not folded(r)]
            alike = list(dict.fromkeys((r["size"], r["share"]) for _, r in seen))
            seen.sort(key=lambda at: alike.index((at[1]["size"], at[1]["share"])))  # what is alike stands together
            rows = {r["pool"]: (i, r) for i, r in seen}
            mixed = len({(r["size"], r["share"]) for _, r in rows.values()}) > 1
            table = self.query_one("#board", KeyedTable)
            broad = WIDEST_COLUMNS if width >= WIDEST else WIDE_COLUMNS
            table.columns_are(broad if self.wide else MIXED_COLUMNS if mixed else NARROW_COLUMNS)
            marks = {key: " ● recipe" if self.wide else " ●" for key in rows if recipe_of(s, key)}
            table.follow(list(rows), lambda key: _cells(*rows[key], reach, width, mixed, marks.get(key, "")))

    def action_dropped(self) -> None:
        """Fold what was dropped or left out away, or show it."""
        self.every = not self.every
        self.refresh_data(force=True)

    def action_contents(self) -> None:
        """What the pool under the cursor keeps and drops."""
        if key := self.query_one("#board", KeyedTable).current:
            self.app.push_screen(Kept(key, self.ui.snapshot))

    def _burn_down(self, s: Snapshot) -> None:
        """The chart, made when there is something to draw and room for it."""
        from app.tui.widgets.plot import Plot

        box = self.query_one("#burn-box")
        box.set_class(len(s.burn) < 2, "empty")
        if not self.wide or len(s.burn) < 2:
            return
        if not (found := box.query(Plot)):
            plot = Plot(id="burn", allow_pan_and_zoom=False)
            plot.can_focus = False
            box.mount(plot)
            plot.call_after_refresh(_burn_down, plot, s)
        elif found.first().query("#legend"):  # it is composed
            _burn_down(found.first(), s)


def placed(board: Iterable[Row]) -> Iterator[tuple[int, Row]]:
    """Each row with its place among those of its size and length."""
    places: Counter[tuple[int, float]] = Counter()
    for r in board:
        places[alike := (r["size"], r["share"])] += 1
        yield places[alike], r


def _answer(s: Snapshot, height: int) -> Text:
    """The study's answer; where there is little room, without what it rests on."""
    if not s.answer:
        return Text()
    first, *reasons = s.answer
    shown = reasons if height >= 30 else []
    return Text.assemble((printable(first), "title"), *(f"\n{printable(line)}" for line in shown))


def _cells(place: int, r: Row, reach: float, width: int, mixed: bool, mark: str) -> tuple[object, ...]:
    wide = width >= WIDE
    dropped = mark or (" (dropped)" if r["dropped"] else "")
    widest = width >= WIDEST
    room = max(16, width - (108 if widest else 84 if wide else 60 if mixed else 47)) - len(dropped)
    verdict = VERDICTS[r["verdict"]] + (f" {r['verdict']}" if wide else "")
    cells: list[Text] = [
        Text(str(place) if r["change"] is not None else "–", justify="right"), Text(verdict, style_of(r["verdict"])),
        Text(cut_inside(printable(r["label"]), room) + dropped), Text(percent(r["change"]), justify="right"),
        interval_bar(r, reach, 21 if wide else 15),
    ]  # fmt: skip
    seeds = Text(str(r["seeds"]), justify="right")
    if not wide:
        alike = Text(f"{r['size']}, {100 * r['share']:.0f} %", justify="right")
        return (*cells, seeds, alike) if mixed else (*cells, seeds)
    best = Text("–" if r["p_best"] is None else f"{r['p_best']:.2f}", justify="right")
    cells += [best, seeds, Text(str(r["size"]), justify="right"), Text(f"{100 * r['share']:.0f}", justify="right")]
    if widest:
        expected, p, q = percent(r.get("shrunk")), chance(r.get("p")), chance(r.get("q"))
        cells.insert(4, Text(expected, justify="right"))
        cells[7:7] = [Text(p, justify="right"), Text(q, justify="right")]
    return tuple(cells)


def _stages(s: Snapshot, wide: bool) -> Text:
    """Trials of each stage, and the budget."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for i, stage in enumerate(s.stages):
        done, runs = stage.get("COMPLETE", 0), stage.get("RUNNING", 0)
        waits, failed = stage.get("WAITING", 0), stage.get("FAIL", 0)
        total = done + runs + waits + failed
        here = "title" if stage["stage"] == s.stage else ""
        line = Text.assemble(
            (f"{'▸' if here else ' '}{stage['stage']:8}", here), meter(done / total if total else 0, 10),
            f" {done}/{total}", f" ▶{runs}" if runs else "", (f" ✗{failed} failed" if failed else "", "bad"),
        )  # fmt: skip
        if not wide and i % 2 == 0:
            line.pad_right(max(0, 39 - line.cell_len))
        text.append_text(line).append("\n" if wide or i % 2 else "")
    left = max(0.0, s.limit - s.spent)
    text.append("\n" if wide else " ")
    text.append(f"{'budget':8}", "title").append(
        f" {meter(s.spent / s.limit if s.limit else 0, 10)} {format_seconds(left)} of {format_seconds(s.limit)} left"
    )
    text.append("\n " if wide else "")
    if s.eta is not None and s.eta > 0:
        text.append(f" at this rate spent in {format_seconds(s.eta)}")
    elif left <= 0:
        text.append(" all spent", "warn")
    elif wide:
        text.append(" nothing is being spent", "faint")
    return text


def _burn_down(plot: Plot, s: Snapshot) -> None:
    """What is left of the budget over the minutes that trials ran, and onward at the present rate."""
    plot.clear()
    left = [(t / 60, max(0.0, s.limit - spent) / 60) for t, spent in s.burn]
    plot.line(left)
    end = left[-1][0]
    if s.eta is not None and s.eta > 0:
        end += s.eta / 60
        plot.line([left[-1], (end, 0.0)], CURVES + CURVES - 1)
    plot.set_xlimits(0, max(end, 0.1))
    plot.set_ylimits(0, max(s.limit / 60, 0.1))


def _running(s: Snapshot, width: int) -> Text:
    """Running trials, two lines each where there is room, with progress and the course of their loss."""
    if not s.running:
        said = "nothing runs" if s.engine else "no engine runs; s starts it"
        return Text(said, "faint", no_wrap=True, overflow="ellipsis")
    text = Text(no_wrap=True, overflow="ellipsis")
    if not s.engine:
        text.append(f"✗ the engine died with {len(s.running)} trial(s) running; s goes on from there\n", "bad")
    two = width < 74  # beside other parts; a narrow screen gives a line its whole width
    shown = (4 if two else 3) - (not s.engine)
    for r in s.running[:shown]:
        loss = f"{r['loss'][-1]:.2f}" if r["loss"] else ""
        room = max(10, width - (17 if two else 60))
        text.append(f"{r['device']:5} {cut(printable(r['label']), room):{room}} seed {r['seed']:<5}")
        text.append("\n  " if two else "")
        course = sparkline(r["loss"], min(24, width - 26) if two else 16)
        text.append(f"{meter(r['progress'], 8)} {100 * r['progress']:3.0f} % {course} {loss}\n")
    if len(s.running) > shown:
        text.append(f"and {len(s.running) - shown} more", "faint")
    text.rstrip()
    return text


def _news(s: Snapshot, look: Mapping[str, Any]) -> Text:
    """What has changed since the last look, the latest first; then what the stages have shown."""
    text = Text()
    new = [e for e in s.events if e["id"] > look.get("event", 0) and e["kind"] != "recover"] if look else []
    moved = changes(s, look)
    if new or moved:
        text.append(
            f"new since you last looked: {len(moved)} change(s) of place or verdict, {len(new)} event(s)\n", "title"
        )
        for line in moved[:3]:
            text.append(f"{printable(line)}\n")
        for e in new[:4]:
            text.append(f"{e['at'][11:19]} {e['kind']}: {cut(printable(' '.join(e['text'].split())), 160)}\n")
    for x in [x for stage in reversed(list(s.insights)) for x in s.insights[stage]][: 4 if new else 8]:
        text.append(f"• {printable(x['text'])}\n")
    return text


def board_of(s: Snapshot) -> dict[str, list[Any]]:
    """Pool → place and verdict, as the next look is compared with."""
    return {r["pool"]: [i, r["verdict"]] for i, r in placed(s.board or ()) if r["change"] is not None}


def changes(s: Snapshot, look: Mapping[str, Any]) -> list[str]:
    """New verdicts first, then moves among the first ten, in words."""
    before, said, moves = look.get("board") or {}, [], []
    if not before:
        return []
    for place, r in placed(s.board or ()):
        old = before.get(r["pool"])
        if r["change"] is None or (old is None and place > 10):
            continue
        if old is None:
            moves.append(f"+ {r['label']}: new at place {place}")
        elif old[1] != r["verdict"]:
            said.append(f"{VERDICTS[r['verdict']]} {r['label']}: {old[1]} → {r['verdict']}, place {old[0]} → {place}")
        elif old[0] != place and min(old[0], place) <= 10:
            moves.append(f"{'↑' if place < old[0] else '↓'} {r['label']}: place {old[0]} → {place}")
    return said + moves
