"""Questions that stand over a screen: a line of text, a text to edit, and the help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.events import Click
from textual.screen import ModalScreen, Screen
from textual.widgets import Button, Input, Label, Static, TextArea


class AskLine(ModalScreen[str | None]):
    """One line of text; None when it was left with Escape. check: what is wrong with a text, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Leave")]

    def __init__(self, question: str, value: str = "", check: Callable[[str], str | None] = lambda _: None) -> None:
        super().__init__()
        self.question, self.value, self.check = question, value, check

    def compose(self) -> ComposeResult:
        """The question, the line, what is wrong with it."""
        with VerticalScroll(classes="dialog"):
            yield Label(self.question, markup=False)
            yield Input(self.value, id="line")
            yield Label("", id="problem", markup=False)

    def on_mount(self) -> None:
        """The line has the keys, not the box around it."""
        self.query_one("#line").focus()

    @on(Input.Submitted)
    def _done(self, event: Input.Submitted) -> None:
        if problem := self.check(event.value):
            self.query_one("#problem", Label).update(problem)
        else:
            self.dismiss(event.value)


class EditText(ModalScreen[str | None]):
    """A text that is checked as it is typed; it can only be accepted while it is valid."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Leave"),
        Binding("ctrl+s", "accept", "Accept"),
    ]

    def __init__(self, title: str, text: str, check: Callable[[str], str | None]) -> None:
        super().__init__()
        self.title_text, self.text, self.check = title, text, check

    def compose(self) -> ComposeResult:
        """The text and what is wrong with it."""
        with VerticalScroll(classes="dialog wide"):
            yield Label(f"{self.title_text}   (ctrl+s accepts, Escape leaves)", markup=False)
            yield TextArea(self.text, language="yaml", id="text")
            yield Label("", id="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Accept", id="accept", variant="primary")
                yield Button("Leave", id="leave")

    def on_mount(self) -> None:
        """Say at once what is wrong."""
        self._look()
        self.query_one("#text").focus()

    @on(TextArea.Changed)
    def _look(self) -> None:
        problem = self.check(self.query_one("#text", TextArea).text)
        self.query_one("#problem", Label).update(problem or "valid")
        self.query_one("#accept", Button).disabled = problem is not None

    @on(Button.Pressed, "#accept")
    def action_accept(self) -> None:
        """Take the text, if it is valid."""
        text = self.query_one("#text", TextArea).text
        if self.check(text) is None:
            self.dismiss(text)

    @on(Button.Pressed, "#leave")
    def _leave(self) -> None:
        self.dismiss(None)


class Help(ModalScreen[None]):
    """A text to read: what a screen shows and which keys it has, or a row of the log in full."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,q,enter", "dismiss(None)", "Leave")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self.title_text, self.text = title, text

    def compose(self) -> ComposeResult:
        """The text."""
        with VerticalScroll(classes="dialog"):
            yield Label(f"{self.title_text}   (Escape leaves)", classes="title", markup=False)
            yield Static(self.text, markup=False)

    def on_mount(self) -> None:
        """The arrows scroll."""
        self.query_one(VerticalScroll).focus()

    def on_click(self, event: Click) -> None:
        """A click beside the text leaves."""
        if event.widget is self:
            self.dismiss(None)


def keys_of(screen: Screen[Any]) -> str:
    """The keys that work on a screen, as a person has set them, a line each."""
    lines: dict[str, list[str]] = {}
    for key, found in screen.active_bindings.items():
        b = found.binding
        if b.id and b.description and b.id.split(".")[0].islower():
            lines.setdefault(b.description, []).append(screen.app.get_key_display(b.with_key(key)))
    for one in screen.BINDINGS:  # those whose key the focused table takes first, and answers alike
        if isinstance(one, Binding) and one.id and one.description not in lines:
            lines[one.description] = [screen.app.get_key_display(one)]
    return "\n".join(f"{', '.join(keys):14} {said}" for said, keys in lines.items())
