"""A form for one suggestion: fields that are checked as they are typed, and the same as YAML on a second tab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import yaml
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Button, Input, Label, Select, TabbedContent, TabPane, TextArea

from app.text.printable import printable
from app.tui.proposal.fields import Field, SliceField, empty, fields, gathered, problems
from engine.base.amounts import format_seconds
from engine.base.errors import DjsbError
from engine.base.yaml_text import NotYaml, parse_yaml

if TYPE_CHECKING:
    from app.tui.reading.snapshot import Snapshot
    from engine.journal.store import Row

PAUSE = 0.3  # seconds without a change after which the study is asked what a suggestion would come to
NEW: Row = {"experiment": {"kind": "combine"}}


class ProposalForm(ModalScreen[dict[str, Any] | None]):
    """A suggestion, as `engine.records.experiment.Suggestion` takes it; None when it was left.

    old: id of the proposal that is edited. It can be accepted only while it is valid and would pass the gate.
    """

    CSS = """
    ProposalForm { align: center middle; }
    ProposalForm #form { width: 100; max-width: 100%; height: 90%; max-height: 34; background: $surface;
        border: round $primary; padding: 0 1; }
    ProposalForm Input { height: 1; }
    ProposalForm TabbedContent { height: 1fr; }
    ProposalForm ContentSwitcher { height: 1fr; }
    ProposalForm TabPane { padding: 0; height: 1fr; }
    ProposalForm TextArea#text { height: 1fr; }
    ProposalForm #kind { width: 30; }
    ProposalForm #kind-row { height: auto; }
    ProposalForm #kind-name { width: 11; }
    ProposalForm #verdict { width: 100%; height: auto; max-height: 3; }
    ProposalForm #verdict.-wrong { color: $error; }
    ProposalForm .buttons { height: 1; }
    ProposalForm .buttons Button { margin-right: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Leave"),
        Binding("ctrl+s", "accept", "Accept"),
        Binding("ctrl+n", "add", "Add slice"),
        Binding("ctrl+t", "other", "Form or YAML"),
    ]

    def __init__(self, title: str, content: Row, old: str | None = None) -> None:
        super().__init__()
        self.title_text, self.content, self.old = title, content, old
        self.choices: Row | None = None
        self.refused = ""
        self._kind = ""
        self._as_yaml = self._filled = False
        self._asked = self._tried = -1
        self._soon: Timer | None = None

    def compose(self) -> ComposeResult:
        """Two tabs, what it would come to, and buttons."""
        with Vertical(id="form"):
            yield Label(f"{self.title_text}   ctrl+s accepts, Escape leaves, ctrl+t shows YAML", markup=False)
            with TabbedContent(id="tabs"):
                with TabPane("Form", id="as-form"):
                    yield VerticalScroll(id="fields")
                with TabPane("YAML", id="as-yaml"):
                    yield TextArea(language="yaml", id="text")
            yield Label("reading the study …", id="verdict", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Accept", id="accept", variant="primary", disabled=True, compact=True)
                yield Button("Leave", id="leave", compact=True)

    def on_mount(self) -> None:
        """Ask what may be chosen."""
        self._asked = self._ask("choices")

    def _ask(self, what: str, *arguments: Any) -> int:
        feed = getattr(self.app, "feed", None)
        return cast(int, feed.ask(what, *arguments)) if feed else -1

    def answered(self, number: int, content: Any) -> None:
        """The choices, or what the suggestion would come to."""
        if number == self._asked:
            if isinstance(content, DjsbError):
                self._say(str(content), wrong=True)
                return
            self.choices = content
            self.run_worker(self._fill(self.content), exclusive=True)
        elif number == self._tried:
            self._judge({"problem": str(content)} if isinstance(content, DjsbError) else content)

    # -- the fields ----------------------------------------------------------------------------

    async def _fill(self, content: Row) -> None:
        """Make the fields for a suggestion; one of a kind that has none is shown as YAML."""
        self.content = content
        if not fits(content) or self.choices is None or content["experiment"]["kind"] not in self.choices["forms"]:
            self.query_one("#tabs", TabbedContent).active = "as-yaml"
            return
        kind = self._kind = content["experiment"]["kind"]
        if content["experiment"] == {"kind": kind}:
            content = self.content = {**content, "experiment": empty(self.choices["forms"][kind])}
        names = [k for k in self.choices["forms"] if k in self.choices["kinds"] or k == kind]
        snapshot: Snapshot | None = getattr(self.app, "snapshot", None)
        changes = {r["pool"]: r["change"] for r in (snapshot and snapshot.board) or ()}
        box = self.query_one("#fields", VerticalScroll)
        self._filled = False
        async with self.batch():
            await box.remove_children()
            row = Horizontal(
                Label("kind", id="kind-name"),
                Select([(k, k) for k in names], value=self._kind, allow_blank=False, compact=True, id="kind"),
                id="kind-row",
            )
            await box.mount(row, *fields(content, self.choices, changes))
        self._filled = True
        self._look()

    @property
    def parts(self) -> list[Field]:
        """The fields, in order."""
        return list(self.query(Field))

    def suggestion(self) -> Any:
        """What stands on the tab that is shown."""
        if self._as_yaml:
            return parse_yaml(self.query_one("#text", TextArea).text, "the text")
        return gathered(self.parts, self.choices["forms"][self._kind], self.content) if self.choices else self.content

    @on(Select.Changed, "#kind")
    async def _other_kind(self, event: Select.Changed) -> None:
        if event.value != self._kind and self.choices:
            await self._fill({**self.suggestion(), "experiment": {"kind": str(event.value)}})
            self.query_one("#kind").focus()

    @on(Button.Pressed, "#add")
    async def action_add(self) -> None:
        """One slice more."""
        if not self._as_yaml and self.query("#add") and len(self.query(SliceField)) < 6:
            content = self.suggestion()
            content["experiment"]["slices"].append({})
            await self._fill(content)
            self.query(SliceField).last().query_one(".statistic").focus()

    @on(Button.Pressed, ".remove")
    async def _remove(self, event: Button.Pressed) -> None:
        gone = next(f for f in self.query(SliceField) if f in event.button.ancestors)
        content = self.suggestion()
        del content["experiment"]["slices"][int(gone.path.rsplit(".", 1)[1])]
        await self._fill(content)
        self.query_one("#add").focus()

    # -- checks --------------------------------------------------------------------------------

    @on(Select.Changed, ".statistic, .bucket")
    def _slice_changed(self, event: Select.Changed) -> None:
        for field in self.query(SliceField):
            if field in event.select.ancestors:
                field.follow()

    @on(Input.Changed)
    @on(Select.Changed)
    @on(TextArea.Changed)
    def _look(self) -> None:
        """Say what is wrong beside each field; ask the study about what is not."""
        if not self._as_yaml and not self._filled:
            return
        try:
            content = self.suggestion()
        except NotYaml as error:
            self._show({"": str(error)[:200]})
            return
        found = problems(content)
        self._tried, self.refused = -1, ""
        self._show(found)
        if self._soon:
            self._soon.stop()
        if not found:
            self._soon = self.set_timer(PAUSE, lambda: self._try(content))

    def _try(self, content: Row) -> None:
        self._tried = self._ask("tried", content)

    def _show(self, found: dict[str, str]) -> None:
        """Each problem at its field, or at the bottom."""
        said: dict[str, str] = {}
        paths = [] if self._as_yaml else [f.path for f in self.parts]
        for path, problem in found.items():
            home = next((p for p in paths if path == p or path.startswith(f"{p}.")), "")
            where = "" if home or not path else f"{path}: "
            said[home] = "; ".join(filter(None, (said.get(home), where + problem)))
        for field in [] if self._as_yaml else self.parts:
            field.say(said.get(field.path, ""))
        rest = said.get("", "") or ("" if not found else "see the fields in red")
        self._say(rest or "valid; asking what it would come to …", wrong=bool(found))
        self.query_one("#accept", Button).disabled = True  # until the gate has answered

    def _judge(self, told: Row) -> None:
        """What the study says of a valid suggestion."""
        same = self.old is not None and told.get("id") == self.old
        self.refused = "nothing is changed yet" if same else told["problem"]
        if self.refused.startswith("cites") and not self._as_yaml:
            for field in self.parts:
                if field.path == "cites":
                    field.say(self.refused)
        if not self.refused:
            cost = (
                "at a cost that is not known yet" if told["cost"] is None else f"about {format_seconds(told['cost'])}"
            )
            self._say(f"passes the gate: {told['trials']} new trial(s) of {', '.join(told['pools'])}, {cost}")
        else:
            self._say(self.refused, wrong=True)
        self.query_one("#accept", Button).disabled = bool(self.refused)

    def _say(self, text: str, wrong: bool = False) -> None:
        verdict = self.query_one("#verdict", Label)
        verdict.update(printable(text))
        verdict.set_class(wrong, "-wrong")

    # -- tabs and leaving ----------------------------------------------------------------------

    def action_other(self) -> None:
        """The other tab."""
        self.query_one("#tabs", TabbedContent).active = "as-form" if self._as_yaml else "as-yaml"

    @on(TabbedContent.TabActivated)
    async def _tab(self, event: TabbedContent.TabActivated) -> None:
        to_yaml = event.pane.id == "as-yaml"
        if to_yaml == self._as_yaml:
            return
        if to_yaml:
            content = self.suggestion() if self.parts else self.content
            self._as_yaml = True
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
            self.query_one("#text", TextArea).text = text
            self.query_one("#text").focus()
            self._look()
            return
        try:
            content = self.suggestion()
        except NotYaml:
            content = {}
        if not fits(content):
            self.query_one("#tabs", TabbedContent).active = "as-yaml"
            self.notify("the form cannot show this text; mend it first", severity="warning")
            return
        self._as_yaml = False
        await self._fill(content)

    @on(Button.Pressed, "#accept")
    def action_accept(self) -> None:
        """Take the suggestion, if it is valid."""
        button = self.query_one("#accept", Button)
        if not button.disabled and not self.refused:
            self.dismiss(self.suggestion())

    @on(Button.Pressed, "#leave")
    def _leave(self) -> None:
        self.dismiss(None)


def fits(content: Any) -> bool:
    """True where a suggestion's parts are of the shape that the fields hold."""
    experiment = content.get("experiment") if isinstance(content, dict) else None
    if not isinstance(experiment, dict) or not isinstance(experiment.get("kind"), str):
        return False
    slices, prompts, evidence = experiment.get("slices") or [], experiment.get("prompts") or [], content.get("cites")
    if not all(isinstance(part, list | tuple) for part in (slices, prompts, evidence or [])):
        return False
    texts = [experiment.get(name) for name in ("pool", "arms")]
    for part in (*slices, experiment.get("slice") or {}):
        if not isinstance(part, dict):
            return False
        texts += [part.get("statistic"), part.get("bucket")]
    return all(text is None or isinstance(text, str) for text in texts)
