"""The first run: a folder without a study gets one here, from the demo or from the user's data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import (
    Button,
    ContentSwitcher,
    Footer,
    Input,
    Label,
    OptionList,
    ProgressBar,
    Select,
    SelectionList,
    Static,
)
from textual.widgets.option_list import Option

from app.text.printable import printable
from app.tui.shell import shell
from engine.base.amounts import parse_budget
from engine.base.errors import DjsbError

if TYPE_CHECKING:
    from app.commands.init import Found

STEPS = {"begin": "what to study", "data": "your data", "ops": "operators", "run": "how to run"}
NO_TASK = "none"
POLICIES = (
    ("auto: what passes the gate runs", "auto"),
    ("hold: every proposal waits for you (screen 4)", "hold"),
)


class Looked(Message):
    """What a look at the data has found."""

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found = found


class Written(Message):
    """The study file is there. trains: there is something for an engine to do."""

    def __init__(self, trains: bool) -> None:
        super().__init__()
        self.trains = trains


class Failed(Message):
    """A step did not work; text: one line."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Wizard(ModalScreen[None]):
    """Four steps; nothing is written before the last one."""

    CSS = """
    Wizard { align: center middle; background: $background; }
    Wizard #wizard { width: 100; max-width: 100%; height: auto; max-height: 100%; border: round $primary;
        padding: 0 1; background: $surface; }
    Wizard ContentSwitcher { height: auto; }
    Wizard .step { height: auto; padding-top: 1; }
    Wizard Input { height: 1; width: 1fr; }
    Wizard .row { height: auto; }
    Wizard .name { width: 12; }
    Wizard Select { width: 1fr; }
    Wizard OptionList { height: auto; max-height: 8; }
    Wizard SelectionList { height: auto; max-height: 9; border: none; }
    Wizard #left { height: auto; max-height: 4; color: $text-muted; }
    Wizard .hint { color: $text-muted; height: auto; }
    Wizard .problem { color: $error; height: auto; width: 100%; }
    Wizard .buttons { height: 1; margin-top: 1; }
    Wizard .buttons Button { margin-right: 2; }
    Wizard #working { height: 1; display: none; }
    Wizard #working.-shown { display: block; }
    Wizard ProgressBar { width: 24; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back"),
        Binding("ctrl+n", "next", "Next"),
        Binding("ctrl+a", "every", "All or no OPs"),
        Binding("ctrl+q", "app.quit", "Leave"),
    ]

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.found: Found | None = None
        self.busy = False

    # -- what is shown -------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """All steps, of which one is shown."""
        with Vertical(id="wizard"):
            yield Label(f"A new study in {self.folder}", classes="title", markup=False)
            yield Label("", id="where", classes="hint")
            with ContentSwitcher(initial="begin"):
                with Vertical(id="begin", classes="step"):
                    yield OptionList(
                        Option("The demo: made-up images with captions as on the web; a few minutes", id="demo"),
                        Option("Your own data: a file of texts, images with captions, or videos", id="own"),
                        id="choice",
                    )
                yield from self._data_step()
                with Vertical(id="ops", classes="step"):
                    yield Label("", id="fields", markup=False)
                    yield Static("Space takes an operator in or out, ctrl+a all of them.", classes="hint")
                    yield SelectionList[str](id="op-list", compact=True)
                    with VerticalScroll(id="left", can_focus=False):
                        yield Static(id="left-text", markup=False)
                yield from self._run_step()
            with Horizontal(id="working"):
                yield Label("", id="doing", markup=False)
                yield ProgressBar(total=None, show_eta=False, show_percentage=False)
            yield Label("", id="wrong", classes="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Next", id="next", variant="primary", compact=True)
                yield Button("Back", id="back", compact=True)
        yield Footer()

    def _data_step(self) -> ComposeResult:
        with Vertical(id="data", classes="step"):
            with Horizontal(classes="row"):
                yield Label("data", classes="name")
                yield Input(
                    placeholder="JSONL or Parquet file, or Hugging Face dataset folder", id="path", compact=True
                )
            with Horizontal(classes="row"):
                yield Label("evaluation", classes="name")
                yield Input(placeholder="rows to judge on, never trained on; may be left out", id="eval", compact=True)
            yield Static(
                'Rows like {"id": 1, "text": "a caption", "images": ["images/1.jpg"]}; evaluation rows have a label '
                "too, or captions that tell images apart. Without evaluation nothing is trained.",
                classes="hint", markup=False,
            )  # fmt: skip

    def _run_step(self) -> ComposeResult:
        with Vertical(id="run", classes="step"):
            with Horizontal(classes="row"):
                yield Label("task", classes="name")
                yield Select([(NO_TASK, NO_TASK)], allow_blank=False, id="task", compact=True)
            with Horizontal(classes="row"):
                yield Label("budget", classes="name")
                yield Input("8gpu-hours", id="budget", compact=True)
            yield Label("", id="budget-wrong", classes="problem", markup=False)
            with Horizontal(classes="row"):
                yield Label("approve", classes="name")
                yield Select(POLICIES, value="auto", allow_blank=False, id="approve", compact=True)
            yield Static("Next writes study.yaml and starts the engine, a process of its own.", classes="hint")

    @property
    def step(self) -> str:
        """The step that is shown."""
        return str(self.query_one(ContentSwitcher).current)

    def on_mount(self) -> None:
        """The first step."""
        self.go("begin")

    def go(self, step: str) -> None:
        """Show a step and put the cursor into it."""
        self.query_one(ContentSwitcher).current = step
        self._wrong("")
        place = list(STEPS).index(step) + 1
        self.query_one("#where", Label).update(f"step {place} of {len(STEPS)}: {STEPS[step]}")
        self.query_one("#next", Button).label = "Start" if step == "run" else "Next"
        first = {"begin": "#choice", "data": "#path", "ops": "#op-list", "run": "#budget"}[step]
        self.query_one(first).focus()

    def _wrong(self, text: str) -> None:
        self.query_one("#wrong", Label).update(printable(" ".join(text.split())))

    def _work(self, doing: str) -> None:
        """Say what is being done, or that nothing is; meanwhile no step can be left."""
        self.busy = bool(doing)
        self.query_one("#doing", Label).update(f"{doing}  ")
        self.query_one("#working").set_class(self.busy, "-shown")
        self.query_one("#next", Button).disabled = self.busy
        if self.busy:
            self._wrong("")

    # -- steps ---------------------------------------------------------------------------------

    @on(OptionList.OptionSelected, "#choice")
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        if event.option_id == "own":
            self.found = None
            self.go("data")
        else:
            from app.commands.init import template

            usual = template("demo-clip")
            self.found = None
            self._tasks([usual["task"]])
            self.query_one("#budget", Input).value = str(usual["budget"])
            self.go("run")

    @on(Input.Submitted)
    @on(Button.Pressed, "#next")
    def action_next(self) -> None:
        """Go on from the step that is shown."""
        if self.busy:
            return
        if self.step == "begin":
            self.query_one("#choice", OptionList).action_select()
        elif self.step == "data":
            self._look_at_data()
        elif self.step == "ops":
            self._ops_chosen()
        elif not self.query_one("#next", Button).disabled:
            self._write()

    @on(Button.Pressed, "#back")
    def action_back(self) -> None:
        """One step back; from the first one the app is left."""
        if self.busy:
            return
        if self.step == "begin":
            self.app.exit()
        else:
            self.go({"data": "begin", "ops": "data", "run": "ops" if self.found else "begin"}[self.step])

    def _look_at_data(self) -> None:
        path, evaluation = (self.query_one(f"#{n}", Input).value.strip() for n in ("path", "eval"))
        if not path:
            self._wrong("name the file or folder of your data")
            return
        self._work(f"looking at {path}")
        self._in_thread(lambda: Looked(_look(Path(path), Path(evaluation) if evaluation else None)))

    @on(Looked)
    def _show_found(self, message: Looked) -> None:
        found = self.found = message.found
        self._work("")
        self.query_one("#fields", Label).update(printable(f"found: {found.fields_text}"))
        ops = self.query_one("#op-list", SelectionList)
        ops.clear_options()
        ops.add_options([(name, name, True) for name in found.ops])
        ops.highlighted = 0
        left = "\n".join(f"left out: {name}: {reason}" for name, reason in found.left)
        self.query_one("#left-text", Static).update(printable(left))
        self.query_one("#left").display = bool(left)
        self._tasks([found.task, NO_TASK] if found.task else [NO_TASK])
        self.go("ops")

    @on(SelectionList.SelectedChanged)
    def _mark_out(self) -> None:
        """What is left out says so in words: the list itself shows it by colour only."""
        ops = self.query_one("#op-list", SelectionList)
        for i in range(ops.option_count):
            name = ops.get_option_at_index(i).value
            told = name if name in ops.selected else f"{name}  (out)"
            if str(ops.get_option_at_index(i).prompt) != told:
                ops.replace_option_prompt_at_index(i, told)

    def _tasks(self, names: list[str]) -> None:
        select = self.query_one("#task", Select)
        select.set_options([(n, n) for n in names])
        select.value = names[0]

    def action_every(self) -> None:
        """Take all operators in, or all out."""
        ops = self.query_one("#op-list", SelectionList)
        if self.step == "ops":
            ops.deselect_all() if len(ops.selected) == ops.option_count else ops.select_all()

    def _ops_chosen(self) -> None:
        if self.query_one("#op-list", SelectionList).selected:
            self.go("run")
        else:
            self._wrong("take at least one operator in")

    @on(Input.Changed, "#budget")
    def _check_budget(self, event: Input.Changed) -> None:
        problem = ""
        try:
            parse_budget(event.value)
        except DjsbError as error:
            problem = str(error)
        self.query_one("#budget-wrong", Label).update(problem)
        self.query_one("#next", Button).disabled = bool(problem)

    def _write(self) -> None:
        from app.commands.init import write_demo, write_found

        task = str(self.query_one("#task", Select).value)
        change = {"budget": self.query_one("#budget", Input).value.strip(),
                  "approve": str(self.query_one("#approve", Select).value)}  # fmt: skip
        found, trains = self.found, task != NO_TASK

        def write() -> Message:
            if found is None:
                write_demo(self.folder, change=change)
            else:
                chosen = set(self.query_one("#op-list", SelectionList).selected)
                ops = {name: params for name, params in found.ops.items() if name in chosen}
                write_found(self.folder, found, task if trains else None, ops, change)
            return Written(trains)

        self._work("writing the study" if found else "making the demo's images and captions")
        self._in_thread(write)

    @work(thread=True)
    def _in_thread(self, work: Callable[[], Message]) -> None:
        """Do what takes a while; what it comes to is posted."""
        try:
            self.post_message(work())
        except DjsbError as error:
            self.post_message(Failed(str(error)))
        except OSError as error:
            self.post_message(Failed(f"{error.filename or self.folder}: {error.strerror or error}"))
        except RuntimeError as error:  # `~name/…` where there is no such user
            self.post_message(Failed(str(error)))

    @on(Failed)
    def _show_failure(self, message: Failed) -> None:
        self._work("")
        self._wrong(message.text)

    @on(Written)
    def _begin(self, message: Written) -> None:
        self._work("")
        shell(self).begin(message.trains)


def _look(data: Path, evaluation: Path | None) -> Any:
    from app.commands.init import look_at

    return look_at(data.expanduser(), evaluation.expanduser() if evaluation else None)
