"""`djsb tui` in a folder of studies: the list of them, and one at a time as if it had been opened alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from textual import events
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, TextArea

from app.tui.app import BACK, KEYS, Answered, Came, DjsbApp
from app.tui.feed import Child, Feed
from app.tui.preferences import config
from app.tui.reading.snapshot import Snapshot
from app.tui.screens.studies import Chosen, Studies
from app.tui.shell import Source


class Listed(Message):
    """A new state of the list."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot


class StudiesApp(DjsbApp):
    """The studies of a folder. While the list is up, `feed` and `snapshot` are the list's."""

    BINDINGS: ClassVar[list[BindingType]] = [BACK]
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {**DjsbApp.MODES, "studies": Studies}
    DEFAULT_MODE = "studies"

    def __init__(self, folder: Path, bell: bool, child: Child) -> None:
        super().__init__(folder, bell, child)
        self.root = self.folder
        self.listing: Snapshot | None = None
        self.lister: Feed | None = None

    @property
    def lists(self) -> bool:
        """Whether the list is up, and no study is open."""
        return self.feed is self.lister

    def on_mount(self, event: events.Mount) -> None:
        """Listen to what the list's own process reads, in place of one study's."""
        event.prevent_default()
        self.tell_settings()
        self.lister = self.feed = Feed(
            self.root, lambda s: self._post(Listed(s)), lambda number, found: self._post(Answered(number, found)),
            self._child,
        )  # fmt: skip

    def on_listed(self, message: Listed) -> None:
        """Show the list where it is up."""
        self.listing = message.snapshot
        if self.lists:
            self.snapshot = self.listing
            for screen in self.screen_stack:
                if isinstance(screen, Studies):
                    screen.refresh_data()

    def on_came(self, message: Came) -> None:
        """A snapshot of the study that is open; one of another that was open before is late."""
        if self.lists or message.snapshot.folder != self.folder:
            message.prevent_default()

    def open_feed(self, show: Callable[[Snapshot], None], answer: Callable[[int, Any], None]) -> Source:
        """A process of its own reads the study that is opened; its answers have numbers that no other had."""
        return Feed(self.folder, show, answer, asked=self.feed.asked if isinstance(self.feed, Feed) else 0)

    async def on_chosen(self, message: Chosen) -> None:
        """Open a study."""
        if not self.lists:
            return
        self.folder, self.snapshot, self.frozen = message.folder.resolve(), None, False
        self._made, self.look = True, config.last_look(self.folder)  # its other screens are made when they are visited
        self._listen()
        await self.switch_mode("overview")

    async def action_back(self) -> None:
        """Leave the study; its engine goes on."""
        if self.lists or self.lister is None:
            return
        self.leave_study()
        if isinstance(self.feed, Feed):
            self.lister.asked = max(self.lister.asked, self.feed.asked)
        self.feed, self.folder, self.snapshot, self.frozen = self.lister, self.root, self.listing, False
        await self.switch_mode("studies")
        for mode, (_, pane) in KEYS.items():  # what they show is the study's
            await self.remove_mode(mode)
            self.add_mode(mode, pane)

    async def action_switch_mode(self, mode: str) -> None:
        """Screens of a study are there once one is open."""
        if self.lists:
            self.notify("open a study first (enter)", severity="warning")
        else:
            await super().action_switch_mode(mode)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Escape leaves a study only where it means nothing else."""
        if action == "back":
            other = isinstance(self.screen, ModalScreen) or isinstance(self.focused, Input | TextArea)
            own = any(b.key == "escape" for b in self.screen.BINDINGS if isinstance(b, Binding))
            return not (self.lists or other or own)
        return super().check_action(action, parameters)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Of the list, or of the study that is open."""
        if self.lists:
            yield from App.get_system_commands(self, screen)
        else:
            yield SystemCommand("All studies", "leave this study (escape)", self.action_back)
            yield from super().get_system_commands(screen)

    def on_unmount(self) -> None:
        """Leave nothing behind, the study that is open included; engines go on."""
        if self.lister:
            self.lister.close()
