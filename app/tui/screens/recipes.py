"""Recipes: lineage, lattice of combinations, repetition against more rows; a pool's YAML, to copy, export or apply."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static, Tree
from textual.widgets.tree import TreeNode

from app.text.printable import printable
from app.tui.reading.snapshot import Snapshot
from app.tui.screens.base import Pane
from app.tui.widgets.dialogs import AskLine
from app.tui.widgets.kept import Kept
from app.tui.widgets.marks import VERDICTS, percent, style_of
from engine.base.confine import inside
from engine.base.environment import passed
from engine.base.errors import DjsbError
from engine.base.paths import ENTRY
from engine.base.scratch import scratch
from engine.journal.store import Row
from engine.records.leaderboard import bound_text

LEAVES = 100  # combinations that are unfolded at once
PARTS = ("#lattice", "#scale-plot", "#yaml-box")  # tree, curves, YAML


class Recipes(Pane):
    """What could be the recipe, and what is."""

    title_text = "Recipes"
    help_text = """\
The tree holds the lineage with the confirmed recipe, the combinations under each of their slices,
mixtures of sources with what a regression on them expects over two weights (docs/guides/mixtures.md),
and repetition against adding lower-ranked rows at equal trained samples, which the picture below
draws: change in percent over trained samples.

The YAML is the Data-Juicer recipe of the pool under the cursor: y copies it to the clipboard
(OSC 52), w writes it to recipe-<id>.yaml in the study's folder, d runs it on a dataset (djsb apply,
in a process of its own). c tells what the pool keeps and drops. v goes from the tree to the curves
and to the YAML, where there is no room for all.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "part", "Part", id="recipes.part"),
        Binding("y", "copy", "Copy", id="recipes.copy"),
        Binding("w", "export", "Write", id="recipes.export"),
        Binding("d", "apply", "Apply", id="recipes.apply"),
        Binding("c", "contents", "Contents", id="recipes.contents"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.yaml = ""
        self.pool: str | None = None
        self._wanted = -1
        self._told: Any = None
        self._folded: dict[int, tuple[str, list[Row]]] = {}  # node → slice that it stands for, combinations with it
        self._part = 0

    def content(self) -> ComposeResult:
        """Tree and picture, YAML beside them."""
        from app.tui.widgets.plot import Plot

        with Horizontal(id="recipe-box", classes="part-0"):
            with Vertical(id="recipe-left"):
                yield Tree("recipes", id="lattice")
                with Vertical(id="scale-box"):
                    yield Static(id="legend-line")
                    yield Plot(id="scale-plot")
            with VerticalScroll(id="yaml-box"):
                yield Static(Text("choose a pool in the tree", "faint"), id="yaml")

    def on_mount(self) -> None:
        """The tree has the keys first."""
        tree = self.query_one("#lattice", Tree)
        tree.show_root = False
        tree.focus()

    def action_part(self) -> None:
        """The next part, where only one has room; else the keys go to it."""
        box = self.query_one("#recipe-box")
        box.remove_class(f"part-{self._part}")
        self._part = (self._part + 1) % len(PARTS)
        box.add_class(f"part-{self._part}")
        self.query_one(PARTS[self._part]).focus()

    def show(self, s: Snapshot) -> None:
        """The tree, made anew when its content has changed."""
        told = (
            [(r["pool"], r["change"], r["verdict"]) for r in s.board or ()],
            s.results.get("lineage"), s.results.get("scale"), s.results.get("mixtures"), self.app.theme,
        )  # fmt: skip
        if told == self._told:
            return
        self._told = told
        tree: Tree[str] = self.query_one("#lattice", Tree)
        tree.clear()
        self._folded.clear()
        _lineage(tree, s.results.get("lineage") or ())
        several = [r for r in s.board or () if r["kind"] == "combination" and r["change"] is not None]
        lattice = tree.root.add(Text(f"combinations ({len(several)}), under their slices", "title"), expand=True)
        singles = {r["label"]: r for r in reversed(s.board or ()) if r["kind"] == "single"}  # its longest run
        below: dict[str, list[Row]] = {}
        for r in several:
            for part in r["label"].split(" + "):
                below.setdefault(part, []).append(r)
        shown = LEAVES
        for part, rows in below.items():
            single = singles.get(part)
            label = _line(single).append_text(_length(single)) if single else Text(printable(part))
            node = lattice.add(label, data=single["pool"] if single else None, expand=shown > 0)
            self._folded[node.id] = part, rows
            if shown > 0:
                self._unfold(node)
            shown -= len(rows)
        if not several:
            lattice.add_leaf(Text("none was trained yet", "faint"))
        if mixtures := s.results.get("mixtures"):
            _mixtures(tree, mixtures, {r["pool"]: r for r in s.board or ()})
        scale = tree.root.add(Text("repetition, or lower-ranked rows", "title"), expand=True)
        for r in s.results.get("scale") or ():
            scale.add_leaf(Text(f"{r['samples']:>7} samples ").append_text(_line(r)), data=r["pool"])
        self.call_after_refresh(self._keep_place)
        self._draw(s.results.get("scale") or ())

    @on(Tree.NodeExpanded)
    def _open(self, event: Tree.NodeExpanded[str]) -> None:
        self._unfold(event.node)

    def _unfold(self, node: TreeNode[str]) -> None:
        """Add a node's leaves when they are first looked at: a large lattice has thousands."""
        part, rows = self._folded.pop(node.id, ("", []))
        for r in rows:
            node.add_leaf(_line(r, part).append_text(_length(r)), data=r["pool"])

    def _keep_place(self) -> None:
        """The cursor stays on its pool; at first it is on the first that there is."""
        tree: Tree[str] = self.query_one("#lattice", Tree)
        nodes = [n for n in _nodes(tree.root) if n.data]
        if nodes and tree.last_line >= 0:  # to ask for it numbers the lines, where that is still to come
            tree.move_cursor(next((n for n in nodes if n.data == self.pool), nodes[0]))

    def _draw(self, scale: Any) -> None:
        """Change over trained samples, repetition and added layers beside each other."""
        from app.tui.widgets.plot import Plot

        plot = self.query_one("#scale-plot", Plot)
        plot.clear()
        legend = Text("change % over trained samples: " if scale else "no repetition was trained yet", "faint")
        every = [r for r in scale if r["change"] is not None]
        for i, (kind, said) in enumerate((("repetition", "● repetition"), ("layers", "■ added rows"))):
            points = sorted((r["samples"], r["change"]) for r in every if r["kind"] == kind)
            _, style = plot.line(points, i, marked=True)
            legend.append(f" {said if points else ''}", style)
        plot.fit([r["samples"] for r in every], [r["change"] for r in every])
        self.query_one("#legend-line", Static).update(legend)

    @on(Tree.NodeHighlighted)
    def _ask(self, event: Tree.NodeHighlighted[str]) -> None:
        if event.node.data and self.ui.feed:
            if event.node.data != self.pool:
                self.yaml = ""  # another pool's is not to be copied, written or applied
                self.query_one("#yaml", Static).update(Text("reading the study …", "faint"))
            self.pool = event.node.data
            self._wanted = self.ui.feed.ask("recipe", self.pool)

    def answered(self, number: int, content: Any) -> None:
        """The YAML has come."""
        if number == self._wanted:
            self.yaml = "" if isinstance(content, DjsbError) else content
            shown = Text(printable(str(content)), "faint") if isinstance(content, DjsbError) else highlighted(content)
            self.query_one("#yaml", Static).update(shown)

    def action_copy(self) -> None:
        """To the clipboard of the terminal."""
        if self.yaml:
            self.app.copy_to_clipboard(self.yaml)
            self.notify("copied")

    def action_contents(self) -> None:
        """What the pool under the cursor keeps and drops."""
        if self.pool:
            self.app.push_screen(Kept(self.pool, self.ui.snapshot))

    def action_export(self) -> None:
        """Write the YAML beside study.yaml."""
        if self.yaml and self.pool:
            try:
                file = inside(self.ui.folder, f"recipe-{self.pool}.yaml")
                file.write_text(self.yaml, encoding="utf-8")
            except DjsbError as error:
                self.notify(str(error), severity="error")
            except OSError as error:
                self.notify(f"{error.filename}: {error.strerror}", severity="error")
            else:
                self.notify(f"written to {file}")

    @work
    async def action_apply(self) -> None:
        """Ask for data and output file, then run `djsb apply` on them."""
        text = self.yaml
        if not text:
            self.notify("choose a pool in the tree first", severity="warning")
            return
        data = await self.app.push_screen_wait(AskLine("apply this recipe to which dataset?", check=_no_data))
        if not data:
            return
        out = await self.app.push_screen_wait(AskLine("write the kept rows to (.jsonl or .parquet)", check=_no_output))
        if out:
            self.notify("the recipe is applied; this may take a while")
            self._apply(text, data.strip(), out.strip())

    @work
    async def _apply(self, text: str, data: str, out: str) -> None:
        """Run `djsb apply`; leaving the UI ends it."""
        with scratch() as folder:
            recipe = folder / "recipe.yaml"
            recipe.write_text(text, encoding="utf-8")
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(ENTRY), "apply", str(recipe), "--data", _path(data), "--out", _path(out),
                stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=passed(),
            )  # fmt: skip
            try:
                told = await process.communicate()
            except asyncio.CancelledError:
                process.terminate()
                raise
        good = process.returncode == 0
        lines = told[0 if good else 1].decode("utf-8", "replace").strip().splitlines()
        said = printable(" · ".join(lines[-6:]) if good else lines[-1] if lines else "no message")
        self.app.notify(said, severity="information" if good else "error", timeout=15, markup=False)


def _path(text: str) -> str:
    return str(Path(text).expanduser().resolve())


def _no_data(text: str) -> str | None:
    try:
        return None if text.strip() and Path(text.strip()).expanduser().exists() else "no such file"
    except (OSError, RuntimeError) as error:  # RuntimeError: a home that there is none of
        return str(error)


def _no_output(text: str) -> str | None:
    try:
        file = Path(text.strip()).expanduser()
        if file.suffix not in (".jsonl", ".parquet"):
            return "the name ends in .jsonl or .parquet"
        if file.exists():
            return "there is a file of this name already"
        return None if file.resolve().parent.is_dir() else "no such folder"
    except (OSError, RuntimeError) as error:
        return str(error)


def highlighted(text: str) -> Text:
    """A recipe with its keys, texts and comments told apart, in the theme's colours."""
    shown = Text(printable(text))
    shown.highlight_regex(r"(?m)^[ \-]*(?P<note>[\w.\-]+)(?=:( |$))", style_prefix="")
    shown.highlight_regex(r"(?P<warn>(?<=: )-?\d[\d.e+\-]*$)", style_prefix="")
    shown.highlight_regex(r"(?m)(?P<faint>(^|\s)#.*$)", style_prefix="")
    return shown


def _nodes(node: TreeNode[str]) -> Iterator[TreeNode[str]]:
    """A node and all below it, in order."""
    yield node
    for child in node.children:
        yield from _nodes(child)


def _lineage(tree: Tree[str], cycles: Sequence[Row]) -> None:
    """ckpt₀ → recipe₁ → ckpt₁ → recipe₂ → …, each under the one that it came from."""
    node = tree.root.add(Text("lineage", "title"), expand=True)
    for link in cycles:
        number, best = link["cycle"], link["recipe"]
        model = " (the study's model)" if number == 1 else ""
        node = node.add(f"ckpt{_low(number - 1)}{model}", expand=True)
        if best:
            line = Text(f"recipe{_low(number)} ").append_text(_line(best)).append("  ● confirmed")
            if (against := link.get("against_first")) and against["change"] is not None:
                line.append(f"  against the first: {percent(against['change'])} %{_interval(against)}")
            node = node.add(line, data=best["pool"], expand=True)
            if link is cycles[-1]:
                node.add_leaf(f"ckpt{_low(number)}")
        else:
            node.add_leaf(Text(printable(link["unconfirmed"] or "no recipe is confirmed yet"), "faint"))


def _mixtures(tree: Tree[str], found: Row, board: dict[str, Row]) -> None:
    """The mixtures that ran, best first, and the response over the two weights that matter most, a line a weight."""
    rank = "" if found["rank"] is None else f", rank correlation out of fold {found['rank']:+.2f}"
    node = tree.root.add(Text(f"mixtures ({len(found['tried'])}){rank}", "title"), expand=True)
    for tried in found["tried"]:
        if row := board.get(tried["pool"]):
            line = _line(row).append(f"  expected {percent(tried['expected'])} %", "faint")
            node.add_leaf(line, data=tried["pool"])
    if len(found["across"]) != 2 or max(found["across"]) >= len(found["names"]):
        return  # a recording may come from anywhere
    across, down = (printable(found["names"][i]) for i in found["across"])
    told = Text(f"expected change %: weight of {across} →, of {down} ↓", "title")
    surface = node.add(told, expand=True)
    surface.add_leaf(Text("     " + "".join(f"{step:>7.1f}" for step in found["steps"]), "faint"))
    for step, row in zip(found["steps"], found["grid"], strict=False):
        line = Text(f"{step:>5.1f}", "faint")
        for value in row:
            verdict = "" if value is None else style_of("helps" if value > 0 else "hurts")
            line.append(" " * 7 if value is None else f"{value:>+7.1f}", verdict)
        surface.add_leaf(line)


def _low(number: int) -> str:
    """A number as a subscript."""
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(d)] for d in str(number))


def _line(r: Row, under: str = "") -> Text:
    """Verdict, change, name; under a slice the other slices only."""
    verdict = (f"{VERDICTS[r['verdict']]} ", style_of(r["verdict"]))
    others = [part for part in r["label"].split(" + ") if part != under]
    name = " + ".join(others) if not under else f"+ {' + '.join(others)}"
    return Text.assemble(verdict, f"{percent(r['change'])} %{_interval(r)}  ", (printable(name), "title"))


def _length(r: Row) -> Text:
    """Of what size and length a pool's trials are: only what is alike compares."""
    return Text(f"  {r['size']} rows, {100 * r['share']:g} %", "faint")


def _interval(r: Row) -> str:
    if r.get("bound") is not None:
        return f", {bound_text(r['verdict'], r['bound'])}"
    return "" if r["ci_low"] is None else f" [{r['ci_low']:+.1f}, {r['ci_high']:+.1f}]"
