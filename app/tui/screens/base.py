"""What all screens share: the header that lives, what is wrong, the frozen state, and being shown a snapshot."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import Footer, Static

from app.text.printable import printable
from app.tui.reading.snapshot import Snapshot
from app.tui.shell import Shell, shell
from app.tui.widgets.marks import cut, meter
from engine.base.amounts import format_seconds

SMALLEST = (60, 16)  # columns and lines below which a screen only says that it needs more
WIDE = 110  # columns from which parts stand side by side
STATES = {
    "running": "▶ running", "paused": "⏸ paused", "no engine": "■ no engine", "starting": "▶ starting",
    "not started": "□ not started: s on the overview (1) starts the engine",
}  # fmt: skip


class Told(Static):
    """A text that is drawn again only when it is another, and laid out again only when it needs other room."""

    _shown: tuple[object, ...] = ("",)

    def tell(self, text: Text) -> None:
        """Show a text."""
        before, self._shown = self._shown, (text.plain, text.style, text.spans, self.app.theme)
        if self._shown != before:
            more = text.plain.count("\n") != str(before[0]).count("\n")
            self.update(text, layout=more or self.styles.text_wrap != "nowrap")


class Head(Told):
    """One line on the study, always up to date; the most important first, as a narrow terminal cuts it."""

    def put(self, s: Snapshot, title: str, frozen: bool, width: int) -> None:
        """Show a snapshot's line."""
        replay = (f" {s.replay} ", "reverse bold") if s.replay else ""
        if s.problem:
            said = (" ✗ the study cannot be read now", "bad")
            self.tell(Text.assemble(replay, (f" {title} ", "reverse bold"), said))
            return
        wide = width >= WIDE
        share = s.spent / s.limit if s.limit else 0.0
        parts: list[str | tuple[str, str]] = [
            replay, (f" {title} ", "reverse bold"), f" {cut(printable(s.name), 40 if wide else 16)}",
            f" · {STATES.get(s.state, s.state)}",
        ]  # fmt: skip
        if frozen:
            parts += [" ", (" FROZEN (f) ", "reverse")]
        if s.queued:
            parts += [" · ", (f"{len(s.queued)} to decide", "warn")]
        parts += [
            f" · {s.stage} · ", meter(share, 10 if wide else 5),
            f" {format_seconds(s.spent)} of {format_seconds(s.limit)}",
        ]  # fmt: skip
        if s.eta is not None and s.eta > 0:
            parts.append(f" · spent in {format_seconds(s.eta)}")
        self.tell(Text.assemble(*parts, no_wrap=True, overflow="ellipsis"))


class Pane(Screen[None]):
    """A mode of the app. `title` names it; `help_text` is what F1 shows."""

    title_text: ClassVar[str] = ""
    help_text: ClassVar[str] = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (SMALLEST[0], "-narrow"), (WIDE, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (SMALLEST[1], "-low"), (30, "-high")]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        """Header, what is wrong, the screen's own content, footer."""
        yield Head(Text(" reading the study …", "faint"), id="head")
        yield Static(id="trouble")
        yield Static(f"djsb needs {SMALLEST[0]} × {SMALLEST[1]} characters; make the terminal larger", id="too-small")
        with Vertical(id="body"):
            yield from self.content()
        yield Footer(compact=not self.wide, show_command_palette=self.wide)

    @classmethod
    def prepare(cls) -> None:
        """Import what the screen needs beyond Textual; called in a thread before the screen is made."""

    def content(self) -> ComposeResult:
        """The screen's own widgets."""
        yield from ()

    def show(self, s: Snapshot) -> None:
        """Show a snapshot in the screen's own widgets."""

    @property
    def ui(self) -> Shell:
        """What may be asked of the app."""
        return shell(self)

    @property
    def wide(self) -> bool:
        """Whether parts have room beside each other."""
        return self.app.size.width >= WIDE

    def on_screen_resume(self) -> None:
        """The newest data are shown whenever the screen comes up."""
        self.refresh_data(force=True)

    def on_resize(self, _: events.Resize) -> None:
        """Narrow and wide screens show other things."""
        footer = self.query_one(Footer)
        footer.compact, footer.show_command_palette = not self.wide, self.wide
        self.refresh_data(force=True)

    def refresh_data(self, force: bool = False) -> None:
        """Show the newest snapshot: the header always, the rest unless it is frozen."""
        s = self.ui.snapshot
        if s is None or not self.is_mounted:
            return
        self.query_one(Head).put(s, self.title_text, self.ui.frozen, self.app.size.width)
        trouble = self.query_one("#trouble", Static)
        trouble.display = bool(s.problem)
        if s.problem:
            trouble.update(Text.assemble(("✗ ", "bad"), printable(s.problem), ("  (q leaves)", "faint")))
        elif force or not self.ui.frozen:
            self.show(s)
