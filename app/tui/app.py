"""`djsb tui`: the app. It shows what the feed sends, and writes only requests and decisions."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.filter import Monochrome
from textual.message import Message
from textual.screen import Screen

from app.text.printable import printable
from app.tui.feed import Child, Feed
from app.tui.preferences import config, keymap, themes
from app.tui.reading.snapshot import Snapshot
from app.tui.screens.base import Pane
from app.tui.screens.chat import Chat
from app.tui.screens.correlations import Correlations
from app.tui.screens.log import Log
from app.tui.screens.ops import Ops
from app.tui.screens.overview import Overview, board_of
from app.tui.screens.pipelines import Pipelines
from app.tui.screens.proposals import Proposals
from app.tui.screens.recipes import Recipes
from app.tui.screens.studies import Studies
from app.tui.screens.system import System
from app.tui.screens.trials import Trials
from app.tui.shell import Source
from app.tui.widgets.dialogs import AskLine, Help, keys_of
from engine.base.confine import inside
from engine.base.errors import DjsbError, StudyError
from engine.base.lifetime import unmarked
from engine.base.paths import DATABASE, ENTRY, STATE_FOLDER, STUDY_FILE
from engine.journal.store import Store

if TYPE_CHECKING:
    from engine.study.view import StudyView

KEYS: dict[str, tuple[str, type[Pane]]] = {
    "overview": ("1", Overview), "ops": ("2", Ops), "correlations": ("3", Correlations), "proposals": ("4", Proposals),
    "trials": ("5", Trials), "recipes": ("6", Recipes), "log": ("7", Log), "chat": ("8", Chat),
    "pipelines": ("9", Pipelines), "system": ("0", System),
}  # fmt: skip
BACK = Binding("escape", "back", "All studies", id="app.back", priority=True)  # where several studies are watched
BINDINGS: dict[str, Any] = {}  # screen → its bindings; "": the app's, which hold on every screen
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
    """One study, watched. look: what was there when it was last looked at, as config.last_look."""

    TITLE = "djsb"
    CSS_PATH = Path(__file__).with_name("djsb.tcss")
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(key, f"switch_mode('{mode}')", pane.title_text, show=False, id=f"mode.{mode}")
            for mode, (key, pane) in KEYS.items()
        ),
        Binding("f", "freeze", "Freeze", show=False, id="app.freeze"),
        Binding("f1,question_mark", "explain", "Help", id="app.help"),
        Binding("q", "quit", "Quit", id="app.quit"),
    ]
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {mode: pane for mode, (_, pane) in KEYS.items()}
    DEFAULT_MODE = "overview"

    def __init__(
        self, folder: Path, bell: bool = False, child: Child | None = None, record: Path | None = None
    ) -> None:
        super().__init__()
        self.config, problem = config.read_config()
        self.folder, self.bell_wanted, self.record = folder.resolve(), bell or self.config.bell, record
        self._dress(problem)
        self.snapshot: Snapshot | None = None
        self.feed: Source | None = None
        self._child = child
        self.frozen = False
        self._made = False
        self.look = config.last_look(self.folder)

    # -- looks and keys ------------------------------------------------------------------------

    def _dress(self, problem: str | None) -> None:
        """Theme, density and keys as the person's file says; what is wrong with it is said when the screen is up."""
        self._said, self._painted = [problem] if problem else [], False
        self._filters = [themes.Grey() if isinstance(f, Monochrome) else f for f in self._filters]
        for theme in themes.THEMES:
            self.register_theme(theme)
        if self.config.theme not in self.available_themes:
            self._said.append(f"{config.config_file()}: no theme {self.config.theme!r}; {config.THEME} is used")
        self.theme = self.config.theme if self.config.theme in self.available_themes else config.THEME
        self.set_class(self.config.density == "compact", "-compact")
        usable, wrong = keymap.usable(self.config.keys, BINDINGS)
        self._said += wrong
        self.set_keymap(usable)
        self._paint()

    def _paint(self) -> None:
        """Give the named styles their colours."""
        if self._painted:
            self.console.pop_theme()
        self.console.push_theme(themes.styles(self.current_theme))
        self._painted = True

    def watch_theme(self, name: str) -> None:
        """Another theme was chosen: draw everything anew, and remember it."""
        if not self.is_running:
            return
        self._paint()
        self.call_after_refresh(self._redraw)
        if name != self.config.theme:
            self.config = self.config.model_copy(update={"theme": name})
            if problem := config.remember_theme(name):
                self.notify(problem, severity="warning")

    def _redraw(self) -> None:
        if isinstance(self.screen_stack[0], Pane):
            self.screen_stack[0].refresh_data(force=True)

    # -- data ----------------------------------------------------------------------------------

    def on_mount(self, event: events.Mount) -> None:
        """Start listening; without a study, make one first."""
        self.tell_settings()
        if self.has_study():
            self._listen()
        else:
            from app.tui.screens.wizard import Wizard

            self.push_screen(Wizard(self.folder))

    def tell_settings(self) -> None:
        """Say what is wrong with the person's own settings."""
        for text in self._said:
            self.notify(text, severity="warning", timeout=10)

    def has_study(self) -> bool:
        """Whether there is something to show."""
        return (self.folder / STUDY_FILE).exists() or (self.folder / STATE_FOLDER / DATABASE).exists()

    def _listen(self) -> None:
        self.feed = self.open_feed(
            lambda s: self._post(Came(s)), lambda number, content: self._post(Answered(number, content))
        )

    def open_feed(self, show: Callable[[Snapshot], None], answer: Callable[[int, Any], None]) -> Source:
        """Where snapshots and answers come from: both are called from a thread. A recording has another."""
        return Feed(self.folder, show, answer, self._child, self.record)

    def begin(self, trains: bool) -> None:
        """The first study is written: watch it, and start its engine where there is something to train."""
        self.pop_screen()
        self._listen()
        if trains:
            self.action_start_engine()
        else:
            self.notify("the study has no task: djsb pools computes its statistics; nothing is trained", timeout=15)

    def _post(self, message: Message) -> None:
        if self.is_running:
            self.post_message(message)

    def on_came(self, message: Came) -> None:
        """Show the snapshot on the screen that is up; say what is new in it."""
        before, self.snapshot = self.snapshot, message.snapshot
        if before is None and message.snapshot.pipelines and not message.snapshot.setup:
            self.switch_mode("pipelines")  # there is no study to show
        if message.snapshot.board is not None and not self._made:
            self._made = True
            self._make_screens()
        if message.snapshot.problem:
            self.snapshot = replace(self.snapshot, engine=before.engine if before else None)
        elif not self.look and message.snapshot.board is not None:
            self.look = _look(message.snapshot)  # the first look: all is new, and nothing
        if before and not (before.problem or message.snapshot.problem):
            self._announce(before, message.snapshot)
        for screen in self.screen_stack:
            if isinstance(screen, Pane):
                screen.refresh_data()

    @work
    async def _make_screens(self) -> None:
        """Make the other screens while the UI is idle, so that the first visit is quick."""
        for mode in KEYS:
            await asyncio.sleep(0.05)  # keys go first
            await asyncio.to_thread(KEYS[mode][1].prepare)
            if not self.is_running:  # it was left meanwhile
                return
            await self._init_mode(mode)  # Textual has no public name for it, and is pinned
        gc.freeze()  # what is there now stays

    def _announce(self, before: Snapshot, now: Snapshot) -> None:
        """Toasts for finished stages, proposals that wait, and an engine that has gone."""
        said = [f"{stage}: finished" for stage in now.insights if stage not in before.insights]
        new = {p["id"] for p in now.queued} - {p["id"] for p in before.queued}
        if new:
            said.append(f"{len(new)} proposal(s) wait for you (4)")
        if before.engine and not now.engine:
            died = f"the engine died with {len(now.running)} trial(s) running; start it again (s) to go on from there"
            said.append(died if now.running else "the engine has ended")
        for text in said:
            self.notify(text)
        if said and self.bell_wanted:
            self.bell()

    def on_answered(self, message: Answered) -> None:
        """Give details to whoever asked for them: numbers are unique, and another screen may be up by now."""
        if message.number == 0:  # the recorder has ended
            self.notify(str(message.content), severity="error", timeout=10)
            return
        for screen in [s for stack in self._screen_stacks.values() for s in stack if s.is_running]:
            answered = getattr(screen, "answered", None)
            if answered is not None:
                answered(message.number, message.content)

    def on_unmount(self) -> None:
        """Leave nothing behind; the engine goes on."""
        self.leave_study()

    def leave_study(self) -> None:
        """End what reads the study, and remember what was there."""
        if self.feed:
            self.feed.close()
        shown = self.snapshot
        if shown and not (shown.problem or shown.replay) and shown.board is not None:
            config.remember_look(self.folder, _look(shown))

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
        for mode, (_, pane) in KEYS.items():
            for b in pane.BINDINGS:
                if isinstance(b, Binding) and b.description and not b.action.startswith("app."):
                    name, told = f"{pane.title_text}: {b.description}", f"on this screen ({b.id})"
                    yield SystemCommand(name, told, partial(self._go_and_do, mode, b.action))
        yield SystemCommand("Freeze", "hold the tables still, or let them live", self.action_freeze)

    async def _go_and_do(self, mode: str, action: str) -> None:
        """Run an action of a screen, on that screen."""
        await self.switch_mode(mode)
        self.call_after_refresh(self.run_action, action, self.screen)

    def action_freeze(self) -> None:
        """Hold the tables still, or let them live; the header always lives."""
        self.frozen = not self.frozen
        if isinstance(self.screen, Pane):
            self.screen.refresh_data()

    def action_explain(self) -> None:
        """What the screen shows and its keys."""
        if isinstance(self.screen, Pane):
            text = f"{self.screen.help_text}\n{keys_of(self.screen)}"
            self.push_screen(Help(self.screen.title_text, text))

    # -- requests and decisions ----------------------------------------------------------------

    def request(self, kind: Any, argument: str | None = None) -> None:
        """Ask the running engine for something."""
        if self.snapshot and self.snapshot.engine:
            self._ask(kind, argument)
        else:
            self.notify("no engine runs", severity="warning")

    @work(thread=True)
    def _ask(self, kind: Any, argument: str | None) -> None:
        from app.person import person
        from engine.journal.requests import ask

        try:
            with Store(self.folder / STATE_FOLDER / DATABASE, readonly=True) as store:
                ask(store, kind, person(), argument)
        except DjsbError as error:
            self.notify(str(error), severity="error", timeout=10)
        else:
            self.notify(f"asked the engine to {kind}")

    def action_start_engine(self) -> None:
        """Start the engine as a process of its own, which outlives the UI."""
        if self.snapshot and self.snapshot.engine:
            self.notify("the engine runs already", severity="warning")
            return
        try:
            log = inside(self.folder, f"{STATE_FOLDER}/logs/engine.log")
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as out:
                process = subprocess.Popen(
                    [sys.executable, str(ENTRY), "auto", str(self.folder)],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=unmarked(),
                )  # fmt: skip
        except (OSError, DjsbError) as error:
            what = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            self.notify(f"{what}; the engine was not started", severity="error")
            return
        self.notify(f"the engine starts (process {process.pid}); its log: {log}")
        self._watch_engine(process, log)

    @work(thread=False, exclusive=True)
    async def _watch_engine(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Say how an engine that was started here has ended."""
        while process.poll() is None:
            await asyncio.sleep(0.5)
        how = EXITS.get(process.returncode, f"exit code {process.returncode}")
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
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

    @work(thread=True)
    def decide(self, proposals: list[str], verdict: str, why: str) -> None:
        """Record a decision on each."""
        from app.person import person
        from engine.review.decisions import decide

        self._each(proposals, verdict, lambda view, one: decide(view, one, verdict, person(), why))  # type: ignore[arg-type]

    @work(thread=True)
    def undo(self, proposals: list[str]) -> None:
        """Take decisions back while nothing of them has started."""
        from app.person import person
        from engine.review.decisions import undo

        self._each(proposals, "undo", lambda view, one: undo(view, one, person()))

    def _each(self, proposals: list[str], what: str, work: Callable[[StudyView, str], None]) -> None:
        """Do something to each proposal, and say for how many it went well; one that fails keeps none of the others."""
        from engine.study.view import view_study

        done = 0
        try:
            with (view := view_study(self.folder)).store:
                for one in proposals:
                    try:
                        work(view, one)
                        done += 1
                    except StudyError as error:  # decided on meanwhile, or started
                        self.notify(str(error), severity="error", timeout=10)
        except (DjsbError, OSError) as error:
            self.notify(str(error), severity="error", timeout=10)
        if done:
            idle = what == "approve" and self.snapshot is not None and not self.snapshot.engine
            self.notify(f"{what}: {done} proposal(s)" + ("; no engine runs, s starts it" if idle else ""))

    @work(thread=True)
    def suggest(self, content: Any) -> None:
        """Put a person's proposal to the gate and queue it; this reads the data, so it takes a moment."""
        from engine.review.desk import suggest

        self._gated(lambda: suggest(self.folder, content))

    @work(thread=True)
    def edit(self, proposal: str, content: Any) -> None:
        """Put an edited version in a proposal's place."""
        from app.person import person
        from engine.review.desk import replace_by

        why = "edited in the UI"
        self._gated(lambda: f"{replace_by(self.folder, proposal, content, person(), False, why)} is queued")

    def _gated(self, work: Callable[[], Any]) -> None:
        try:
            self.notify(str(work()))
        except (DjsbError, OSError) as error:
            self.notify(str(error), severity="error", timeout=10)

    def notify(self, message: str, *, markup: bool = False, **more: Any) -> None:
        """Tell something in a toast. What is told may hold a dataset's or a model's words: it is never markup."""
        super().notify(printable(message), markup=False, **more)


def _look(s: Snapshot) -> dict[str, Any]:
    return {"event": max((e["id"] for e in s.events), default=0), "board": board_of(s)}


def _no_budget(text: str) -> str | None:
    from engine.base.amounts import parse_budget

    try:
        parse_budget(text)
    except DjsbError as error:
        return str(error)
    return None


BINDINGS.update({"": DjsbApp.BINDINGS, **{mode: vars(pane).get("BINDINGS", []) for mode, (_, pane) in KEYS.items()}})
BINDINGS["studies"] = [*Studies.BINDINGS, BACK]
