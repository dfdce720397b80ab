"""What all screens share: the header that lives, the frozen state, and being shown a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import Footer, Static

from app.printable import printable
from app.tui.marks import meter
from app.tui.snapshot import Snapshot
from engine.budget import format_seconds

if TYPE_CHECKING:
    from app.tui.app import DjsbApp


class Told(Static):
    """A text that is drawn again only when it is another: comparing costs less than laying out and drawing."""

    _shown: tuple[object, ...] = ()

    def tell(self, text: Text) -> None:
        """Show a text."""
        looks = (text.plain, text.style, text.spans)
        if looks != self._shown:
            self._shown = looks
            self.update(text)


class Head(Told):
    """One line on the study, always up to date."""

    def put(self, s: Snapshot, title: str, frozen: bool) -> None:
        """Show a snapshot's line."""
        replay = (f" {s.replay} ", "reverse bold") if s.replay else ""
        if s.problem:
            self.tell(Text.assemble(replay, (printable(s.problem), "bold red")))
            return
        share = s.spent / s.limit if s.limit else 0.0
        state = {"running": "▶ running", "paused": "⏸ paused", "no engine": "■ no engine"}.get(s.state, s.state)
        parts: list[str | tuple[str, str]] = [
            replay, (f" {title} ", "reverse bold"), f" {printable(s.name)} ", f"· {state} · {s.stage} · ",
            meter(share, 10), f" {format_seconds(s.spent)} of {format_seconds(s.limit)}",
        ]  # fmt: skip
        if s.eta is not None and s.eta > 0:
            parts.append(f" · {format_seconds(s.eta)} left at this rate")
        if s.queued:
            parts.append((f" · {len(s.queued)} to decide", "bold"))
        if frozen:
            parts.append((" · FROZEN (f)", "reverse"))
        self.tell(Text.assemble(*parts, no_wrap=True, overflow="ellipsis"))


class Pane(Screen[None]):
    """A mode of the app. `title` names it; `help_text` is what F1 shows."""

    title_text: ClassVar[str] = ""
    help_text: ClassVar[str] = ""

    def compose(self) -> ComposeResult:
        """Header, the screen's own content, footer."""
        yield Head(id="head")
        with Vertical(id="body"):
            yield from self.content()
        yield Footer()

    @classmethod
    def prepare(cls) -> None:
        """Import what the screen needs beyond Textual; called in a thread before the screen is made."""

    def content(self) -> ComposeResult:
        """The screen's own widgets."""
        yield from ()

    def show(self, s: Snapshot) -> None:
        """Show a snapshot in the screen's own widgets."""

    @property
    def ui(self) -> DjsbApp:
        """The app, by its own type."""
        return cast("DjsbApp", self.app)

    def on_screen_resume(self) -> None:
        """The newest data are shown whenever the screen comes up."""
        self.refresh_data(force=True)

    def refresh_data(self, force: bool = False) -> None:
        """Show the newest snapshot: the header always, the rest unless it is frozen."""
        s = self.ui.snapshot
        if s is None or not self.is_mounted:
            return
        self.query_one(Head).put(s, self.title_text, self.ui.frozen)
        if not s.problem and (force or not self.ui.frozen):
            self.show(s)
