"""`djsb tui`: the app. It shows what the feed sends, and writes only requests and decisions."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen

from app.tui.base import Pane
from app.tui.dialogs import AskLine, Help
from app.tui.feed import Child, Feed, Source
from app.tui.screens.correlations import Correlations
from app.tui.screens.log import Log
from app.tui.screens.ops import Ops
from app.tui.screens.overview import Overview
from app.tui.screens.proposals import Proposals
from app.tui.screens.recipes import Recipes
from app.tui.screens.trials import Trials
from app.tui.snapshot import Snapshot
from engine.errors import DjsbError
from engine.paths import DATABASE, ENTRY, STATE_FOLDER
from engine.store import Store

KEYS: dict[str, tuple[str, type[Pane]]] = {
    "overview": ("1", Overview), "ops": ("2", Ops), "correlations": ("3", Correlations), "proposals": ("4", Proposals),
    "trials": ("5", Trials), "recipes": ("6", Recipes), "log": ("7", Log),
}  # fmt: skip
EXITS = {0: "done", 1: "an error", 3: "a decision is awaited", 4: "the budget is spent", 130: "stopped"}


class Came(Message):
    """A new snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot


class Answered(Message):
    """Details that a screen asked for."""

    def __init__(self, number: int, content: Any) -> None:
        super().__init__()
        self.number, self.content = number, content


class DjsbApp(App[None]):
    """One study, watched. seen: id of the last event that was there when the app was last left or opened."""

    TITLE = "djsb"
    CSS_PATH = "djsb.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012 (as Textual declares it)
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(key, f"switch_mode('{mode}')", pane.title_text, show=False, id=f"mode.{mode}")
            for mode, (key, pane) in KEYS.items()
        ),
        Binding("f", "freeze", "Freeze", id="app.freeze"),
        Binding("f1,question_mark", "explain", "Help", id="app.help"),
        Binding("q", "quit", "Quit", id="app.quit"),
    ]
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {mode: pane for mode, (_, pane) in KEYS.items()}
    DEFAULT_MODE = "overview"

    def __init__(
        self, folder: Path, bell: bool = False, child: Child | None = None, record: Path | None = None
    ) -> None:
        super().__init__()
        self.folder, self.bell_wanted, self.record = folder.resolve(), bell, record
        self.snapshot: Snapshot | None = None
        self.feed: Source | None = None
        self._child = child
        self.frozen = False
        self.seen = 0

    # -- data ----------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Start listening."""
        self.feed = self.opened_feed(
            lambda s: self._post(Came(s)), lambda number, content: self._post(Answered(number, content))
        )

    def opened_feed(self, show: Callable[[Snapshot], None], answer: Callable[[int, Any], None]) -> Source:
        """Where the data come from; a recording has another."""
        return Feed(self.folder, show, answer, self._child, self.record)

    def _post(self, message: Message) -> None:
        if self.is_running:
            self.post_message(message)

    def on_came(self, message: Came) -> None:
        """Show the snapshot on the screen that is up; say what is new in it."""
        before, self.snapshot = self.snapshot, message.snapshot
        if before is None or before.problem:
            self.seen = max((e["id"] for e in message.snapshot.events), default=0)
            self._warm()
        else:
            self._announce(before, message.snapshot)
        for screen in self.screen_stack:
            if isinstance(screen, Pane):
                screen.refresh_data()

    @work
    async def _warm(self) -> None:
        """Make the other screens while nobody waits for them: the first look at one is then as quick as any."""
        for mode in KEYS:
            await asyncio.sleep(0.05)  # keys go first
            await asyncio.to_thread(KEYS[mode][1].prepare)
            await self._init_mode(mode)  # Textual has no public name for it, and is pinned

    def _announce(self, before: Snapshot, now: Snapshot) -> None:
        """Toasts for finished stages, proposals that wait, and an engine that has gone."""
        said = [f"{stage}: finished" for stage in now.insights if stage not in before.insights]
        new = {p["id"] for p in now.queued} - {p["id"] for p in before.queued}
        if new:
            said.append(f"{len(new)} proposal(s) wait for you (4)")
        if before.engine and not now.engine:
            said.append("the engine has ended")
        for text in said:
            self.notify(text)
        if said and self.bell_wanted:
            self.bell()

    def on_answered(self, message: Answered) -> None:
        """Give details to the screen that is up."""
        if message.number == 0:  # the recorder has ended
            self.notify(str(message.content), severity="error", timeout=10, markup=False)
            return
        answered = getattr(self.screen, "answered", None)
        if answered is not None:
            answered(message.number, message.content)

    def on_unmount(self) -> None:
        """Leave nothing behind; the engine goes on."""
        if self.feed:
            self.feed.close()

    # -- what every screen can do --------------------------------------------------------------

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every screen and every action on the engine, by the command palette."""
        yield from super().get_system_commands(screen)
        for mode, (key, pane) in KEYS.items():
            yield SystemCommand(pane.title_text, f"go to this screen ({key})", lambda m=mode: self.switch_mode(m))
        yield SystemCommand("Start the engine", "run the loop in a process of its own", self.action_start_engine)
        yield SystemCommand("Pause or resume", "let nothing more start, or go on", self.action_pause_engine)
        yield SystemCommand("Stop the engine", "after its running trials", self.action_stop_engine)
        yield SystemCommand("Change the budget", "of device time", self.action_set_budget)

    def action_freeze(self) -> None:
        """Hold the tables still, or let them live; the header always lives."""
        self.frozen = not self.frozen
        if isinstance(self.screen, Pane):
            self.screen.refresh_data()

    def action_explain(self) -> None:
        """What the screen shows and its keys."""
        if isinstance(self.screen, Pane):
            keys = [
                f"{b.key:8} {b.description}" for b in self.screen.BINDINGS if isinstance(b, Binding) and b.description
            ]
            modes = [f"{key:8} {pane.title_text}" for key, pane in KEYS.values()]
            text = "\n".join([self.screen.help_text, *keys, "", *modes, "f        freeze the tables", "q        leave"])
            self.push_screen(Help(self.screen.title_text, text))

    # -- requests and decisions ----------------------------------------------------------------

    def _written(self, work: Callable[[Store], Any]) -> bool:
        """Do a small write; False, with the reason shown, when it fails."""
        try:
            with Store(self.folder / STATE_FOLDER / DATABASE, readonly=True) as store:
                work(store)
        except DjsbError as error:
            self.notify(str(error), severity="error", timeout=10)
            return False
        return True

    def request(self, kind: Any, argument: str | None = None) -> None:
        """Ask the running engine for something."""
        from app.reviewing import person
        from engine.requests import ask

        if not (self.snapshot and self.snapshot.engine):
            self.notify("no engine runs", severity="warning")
        elif self._written(lambda store: ask(store, kind, person(), argument)):
            self.notify(f"asked the engine to {kind}")

    def action_start_engine(self) -> None:
        """Start the engine as a process of its own, which outlives the UI."""
        if self.snapshot and self.snapshot.engine:
            self.notify("the engine runs already", severity="warning")
            return
        log = self.folder / STATE_FOLDER / "logs" / "engine.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, str(ENTRY), "auto", str(self.folder)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=dict(os.environ),
            )  # fmt: skip
        self.notify(f"the engine starts (process {process.pid}); its log: {log}")
        self._watch_engine(process, log)

    @work(thread=False, exclusive=True)
    async def _watch_engine(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Say how an engine that was started here has ended."""
        while process.poll() is None:
            await asyncio.sleep(0.5)
        how = EXITS.get(process.returncode, f"exit code {process.returncode}")
        lines = log.read_text(errors="replace").strip().splitlines()
        told = f": {lines[-1]}" if process.returncode not in (0, 130) and lines else ""
        bad = process.returncode == 1
        self.notify(f"the engine has ended, {how}{told}", severity="error" if bad else "information")

    def action_pause_engine(self) -> None:
        """Pause, or go on."""
        self.request("resume" if self.snapshot and self.snapshot.state == "paused" else "pause")

    def action_stop_engine(self) -> None:
        """Stop after the running trials."""
        self.request("stop")

    @work
    async def action_set_budget(self) -> None:
        """Ask for another budget."""
        text = await self.push_screen_wait(AskLine("budget of device time, e.g. 8gpu-hours or 30min", check=_no_budget))
        if text:
            self.request("budget", text)

    def decide(self, proposals: list[str], verdict: str, why: str) -> None:
        """Record a decision on each."""
        from app.reviewing import person
        from engine.decisions import decide
        from engine.open_study import view_study

        try:
            with (view := view_study(self.folder)).store:
                for one in proposals:
                    decide(view, one, verdict, person(), why)  # type: ignore[arg-type]
        except DjsbError as error:
            self.notify(str(error), severity="error", timeout=10)

    def undo(self, proposal: str) -> None:
        """Take a decision back while nothing of it has started."""
        from app.reviewing import person
        from engine.decisions import undo
        from engine.open_study import view_study

        try:
            with (view := view_study(self.folder)).store:
                undo(view, proposal, person())
        except DjsbError as error:
            self.notify(str(error), severity="error", timeout=10)

    @work(thread=True)
    def suggest(self, text: str) -> None:
        """Put a person's proposal to the gate and queue it; this reads the data, so it takes a moment."""
        from app.reviewing import suggest

        self._gated(lambda: suggest(self.folder, yaml.safe_load(text)))

    @work(thread=True)
    def edit(self, proposal: str, text: str) -> None:
        """Put an edited version in a proposal's place."""
        from app.reviewing import replace_by

        self._gated(lambda: replace_by(self.folder, proposal, yaml.safe_load(text), False, "edited in the UI"))

    def _gated(self, work: Callable[[], Any]) -> None:
        try:
            found = work()
        except DjsbError as error:
            self.call_from_thread(self.notify, str(error), severity="error", timeout=10)
        else:
            self.call_from_thread(self.notify, f"queued: {found}")


def _no_budget(text: str) -> str | None:
    from engine.budget import parse_budget

    try:
        parse_budget(text)
    except DjsbError as error:
        return str(error)
    return None
