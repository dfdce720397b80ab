"""Recipes: the lattice of combinations, repetition against more rows, the lineage; a pool's YAML, to copy or export."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.syntax import Syntax
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Static, Tree
from textual.widgets.tree import TreeNode

from app.printable import printable
from app.tui.base import Pane
from app.tui.marks import VERDICTS, percent
from app.tui.snapshot import Snapshot
from engine.errors import DjsbError
from engine.store import Row

LEAVES = 100  # combinations that are unfolded at once


class Recipes(Pane):
    """What could be the recipe, and what is."""

    title_text = "Recipes"
    help_text = """\
The tree holds the confirmed recipe, the combinations under their slices, and repetition against
adding lower-ranked rows at equal trained samples. The YAML at the right is the Data-Juicer recipe
of the pool under the cursor: y copies it to the clipboard (OSC 52), w writes it to recipe-<id>.yaml
in the study's folder.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy YAML", id="recipes.copy"),
        Binding("w", "export", "Write YAML", id="recipes.export"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.yaml = ""
        self.pool: str | None = None
        self._wanted = -1
        self._told: Any = None
        self._folded: dict[int, list[Row]] = {}

    def content(self) -> ComposeResult:
        """Tree and YAML beside each other."""
        with Horizontal(id="recipe-box"):
            yield Tree("recipes", id="lattice")
            with VerticalScroll(id="yaml-box"):
                yield Static(id="yaml")

    def show(self, s: Snapshot) -> None:
        """The tree, made anew when its content has changed."""
        told = (
            [(r["pool"], r["change"], r["verdict"]) for r in s.board or ()],
            s.results.get("recipe"),
            s.results["scale"],
        )
        if told == self._told:
            return
        self._told = told
        tree: Tree[str] = self.query_one("#lattice", Tree)
        tree.clear()
        self._folded.clear()
        tree.show_root = False
        best = s.results.get("recipe")
        lineage = tree.root.add("lineage", expand=True)
        first = lineage.add("ckpt₀ (the study's model)", expand=True)
        if best:
            first.add_leaf(Text(f"recipe₁ {_line(best)} (confirmed on fresh seeds)", "bold"), data=best["pool"])
        else:
            first.add_leaf(Text(s.results.get("unconfirmed") or "no recipe is confirmed yet", "dim"))
        several = [r for r in s.board or () if r["kind"] == "combination" and r["change"] is not None]
        lattice = tree.root.add("combinations, under each of their slices", expand=True)
        singles = {r["label"]: r for r in s.board or () if r["kind"] == "single"}
        below: dict[str, list[Row]] = {}
        for r in several:
            for part in r["label"].split(" + "):
                below.setdefault(part, []).append(r)
        shown = LEAVES
        for part, rows in below.items():
            single = singles.get(part)
            label = _line(single) if single else part
            node = lattice.add(Text(label), data=single["pool"] if single else None, expand=shown > 0)
            self._folded[node.id] = rows
            if shown > 0:
                self._unfold(node)
            shown -= len(rows)
        scale = tree.root.add("repetition, or lower-ranked rows, at equal trained samples", expand=True)
        for r in s.results.get("scale") or ():
            scale.add_leaf(Text(f"{r['samples']:>8} samples  {_line(r)}"), data=r["pool"])

    @on(Tree.NodeExpanded)
    def _open(self, event: Tree.NodeExpanded[str]) -> None:
        self._unfold(event.node)

    def _unfold(self, node: TreeNode[str]) -> None:
        """Add a node's leaves when they are first looked at: a large lattice has thousands."""
        for r in self._folded.pop(node.id, ()):
            node.add_leaf(Text(_line(r)), data=r["pool"])

    @on(Tree.NodeHighlighted)
    def _ask(self, event: Tree.NodeHighlighted[str]) -> None:
        if event.node.data and self.ui.feed:
            self.pool = event.node.data
            self._wanted = self.ui.feed.ask("recipe", self.pool)

    def answered(self, number: int, content: Any) -> None:
        """The YAML has come."""
        if number == self._wanted:
            self.yaml = "" if isinstance(content, DjsbError) else content
            shown = Text(printable(str(content)), "dim") if isinstance(content, DjsbError) else Syntax(content, "yaml")
            self.query_one("#yaml", Static).update(shown)

    def action_copy(self) -> None:
        """To the clipboard of the terminal."""
        if self.yaml:
            self.app.copy_to_clipboard(self.yaml)
            self.notify("copied")

    def action_export(self) -> None:
        """Write the YAML beside study.yaml."""
        if self.yaml and self.pool:
            file = self.ui.folder / f"recipe-{self.pool}.yaml"
            try:
                file.write_text(self.yaml, encoding="utf-8")
            except OSError as error:
                self.notify(f"{file}: {error.strerror}", severity="error")
            else:
                self.notify(f"written to {file}")


def _line(r: Row) -> str:
    interval = "" if r["ci_low"] is None else f" [{r['ci_low']:+.1f}, {r['ci_high']:+.1f}]"
    return f"{VERDICTS[r['verdict']]} {printable(r['label'])}  {percent(r['change'])} %{interval}"
