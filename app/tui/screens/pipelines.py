"""Pipelines: the jobs of `djsb run` as a tree, one job in full beside it, and a run anew from there."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Static, Tree

from app.text.printable import printable
from app.tui.reading.snapshot import Snapshot
from app.tui.screens.base import Pane
from engine.base.amounts import format_seconds
from engine.base.confine import inside
from engine.base.errors import DjsbError
from engine.base.lifetime import unmarked
from engine.base.paths import ENTRY, STATE_FOLDER
from engine.journal.store import Row

MARKS = {"WAITING": ("○", "faint"), "RUNNING": ("▶", "title"), "COMPLETE": ("✓", "good"), "FAIL": ("✗", "bad")}
Which = tuple[str, int, int, int, int]  # run, variant, iteration, place, seed


class Pipelines(Pane):
    """What `djsb run` has done here."""

    title_text = "Pipelines"
    help_text = """\
The jobs of every configuration that `djsb run` has run here, in the order of their run: state, time, and of a
sweep its variants with the metric. Beside it is the job under the cursor: outputs, settings, log.
a runs the job anew, and all that needs it (djsb run --again), in a process that outlives the UI.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "again", "Run anew", id="pipelines.again"),
        Binding("enter", "look", "In full", id="pipelines.look"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._told: Any = None
        self._number = -1
        self.which: Which | None = None
        self.text = ""

    def content(self) -> ComposeResult:
        """The tree, and the job."""
        with Horizontal(id="pipelines-box"):
            yield Tree("pipelines", id="jobs")
            with VerticalScroll(id="job-box"):
                yield Static(Text("choose a job in the tree", "faint"), id="job")

    def on_mount(self) -> None:
        """The tree has the keys first."""
        tree = self.query_one("#jobs", Tree)
        tree.show_root = False
        tree.focus()

    def show(self, s: Snapshot) -> None:
        """The tree, made anew when a job has changed; the cursor stays."""
        told = (s.pipelines, self.app.theme)
        if told == self._told:
            return
        self._told = told
        tree: Tree[Which] = self.query_one("#jobs", Tree)
        line = tree.cursor_line
        tree.clear()
        for run in s.pipelines:
            head = f"{run['project']} / {run['experiment']} · {run['state']}"
            node = tree.root.add(Text(printable(head), "title"), expand=True)
            if run["note"]:
                node.add_leaf(Text(printable(run["note"]), "faint"))
            _add_jobs(node, run)
            _add_pools(node, run)
        if not s.pipelines:
            tree.root.add_leaf(Text("none was run here; djsb run CONFIG.yaml runs one", "faint"))
        self.call_after_refresh(lambda: tree.move_cursor_to_line(min(line, tree.last_line)))
        if self.which:
            self._ask(self.which)

    @on(Tree.NodeHighlighted, "#jobs")
    def _choose(self, event: Tree.NodeHighlighted[Which]) -> None:
        if event.node.data and event.node.data != self.which:
            self._ask(event.node.data)

    def action_look(self) -> None:
        """The job under the cursor, read again."""
        if self.which:
            self._ask(self.which)

    def _ask(self, which: Which) -> None:
        self.which = which
        if self.ui.feed:
            self._number = self.ui.feed.ask("job", *which)

    def answered(self, number: int, content: Any) -> None:
        """Show the job that was asked for."""
        if number == self._number:
            text = Text(str(content), "bad") if isinstance(content, DjsbError) else _in_full(content)
            self.text = text.plain
            self.query_one("#job", Static).update(text)

    def action_again(self) -> None:
        """Run the job under the cursor anew, with all that needs it."""
        s = self.ui.snapshot
        found = [(r, j) for r in (s.pipelines if s else ()) for j in r["jobs"]
                 if self.which == (r["run"], j["variant"], j["iteration"], j["place"], j["seed"])]  # fmt: skip
        if not found or s is None or s.replay:
            self.notify("choose a job in the tree", severity="warning")
        elif s.engine:
            self.notify("its engine runs; end it first", severity="warning")
        else:
            run, job = found[0]
            key = f"{job['pipeline']}.{job['label']}"
            log = inside(self.ui.folder, f"{STATE_FOLDER}/logs/engine.log")
            log.parent.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, str(ENTRY), "run", run["source"], "--root", run["folder"], "--again", key]
            with log.open("ab") as out:
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=unmarked()
                )
            self.notify(f"{key} is run anew; its log: {log}")


def _add_jobs(node: Any, run: Row) -> None:
    """The jobs below their variant, iteration and pipeline, each level only where there are several."""
    trials = {trial["variant"]: trial for trial in run["sweep"]}
    levels = {name: len({job[name] for job in run["jobs"]}) > 1 for name in ("variant", "iteration", "seed")}
    parents: dict[tuple[Any, ...], Any] = {(): node}
    for job in run["jobs"]:
        way: tuple[Any, ...] = ()
        for name in ("variant", "iteration", "pipeline"):
            if name != "pipeline" and not levels[name]:
                continue
            above, way = parents[way], (*way, (name, job[name]))
            if way not in parents:
                parents[way] = above.add(Text(_level(name, job[name], trials)), expand=name == "pipeline")
        mark, style = MARKS[job["state"]]
        seed = f" · seed {job['seed']}" if levels["seed"] else ""
        time = "" if job["seconds"] is None else f"  {format_seconds(job['seconds'])}"
        before = "  finished before" if job["reused"] else ""
        told = (f"  {job['component']}{time}{before}", "faint")
        label = Text.assemble((mark, style), f" {printable(job['label'])}{seed}", told)
        which = (run["run"], job["variant"], job["iteration"], job["place"], job["seed"])
        parents[way].add_leaf(label, data=which)


def _add_pools(node: Any, run: Row) -> None:
    """The pools that were ranked, best first, and what is not known of them."""
    for board in run.get("pools", ()):
        place = node.add(Text("pools, best first", "title"), expand=True)
        for line in board["lines"]:
            place.add_leaf(Text(printable(line)))
        for note in board["notes"]:
            place.add_leaf(Text(printable(note), "faint"))


def _level(name: str, value: Any, trials: dict[int, Row]) -> str:
    if name == "pipeline":
        return printable(str(value))
    trial = trials.get(value) if name == "variant" else None
    if trial is None:
        return f"{name} {value}"
    shown = "" if trial["objective"] is None else f" · {trial['objective']:.6g}"
    return f"variant {value} · {trial['state']}{shown} · {printable(trial['params'])}"


def _in_full(job: Row) -> Text:
    """A job's outputs, settings and log."""
    text = Text()
    text.append(f"{printable(job['pipeline'])}.{printable(job['label'])}\n", "title")
    text.append(f"{job['hook']}, {job['component']} · {job['state']} · attempt {job['attempts']}\n")
    if job["started"]:
        text.append(f"{job['started'][:19]} … {(job['finished'] or '')[:19]} UTC\n", "faint")
    if job["after"]:
        text.append(f"needs {printable(', '.join(job['after']))}\n", "faint")
    if job["error"]:
        text.append(f"\n{printable(job['error'])}\n", "bad")
    for name, value in job["outputs"]:
        text.append(f"\n{printable(name)}\n", "title")
        text.append(f"{printable(value)}\n")
    text.append("\nsettings\n", "title")
    text.append(f"{printable(job['settings'])}\n")
    text.append("\nlog\n", "title")
    text.append("\n".join(printable(line) for line in job["lines"]) or "it said nothing")
    return text
