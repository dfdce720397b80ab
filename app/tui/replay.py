"""`djsb tui --replay FILE`: the same UI on a recording. Nothing of a study is read, and nothing can be decided."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, TextArea

from app.tui.app import DjsbApp
from app.tui.reading.snapshot import Snapshot
from app.tui.recording.file import Recording, RecordingError
from app.tui.shell import Source
from engine.base.errors import DjsbError

TICK = 0.1  # seconds at least between two snapshots on the screen
LULL = 2.0  # seconds that a time without changes is cut to
SLOWEST, FASTEST = -2, 10  # powers of two
NOT_RECORDED = "not recorded: a recording holds tables, not the details that are read on demand"


class Player:
    """Plays a recording to the UI in a feed's stead; `show` is called from a thread, `answer` at once."""

    def __init__(
        self, recording: Recording, show: Callable[[Snapshot], None], answer: Callable[[int, Any], None]
    ) -> None:
        self.recording, self.show, self.answer = recording, show, answer
        self.at, self.power, self.playing = 0, 0, True
        self._asked = 0
        self._closed = False
        self._changed = threading.Condition()
        self._touched = True  # what is on the screen is out of date
        threading.Thread(target=self._play, daemon=True).start()

    def ask(self, what: str, *_arguments: Any) -> int:
        """No details are there."""
        self._asked += 1
        self.answer(self._asked, DjsbError(f"{what}: {NOT_RECORDED}"))
        return self._asked

    def close(self) -> None:
        """Stop playing."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def pause(self) -> None:
        """Pause, or go on; at the end, from the beginning."""
        with self._changed:
            if not self.playing and self.at == len(self.recording) - 1:
                self.at = 0
            self.playing = not self.playing
            self._touch()

    def step(self, by: int) -> None:
        """Go some snapshots on or back, and stay there."""
        with self._changed:
            self.at = max(0, min(len(self.recording) - 1, self.at + by))
            self.playing = False
            self._touch()

    def faster(self, by: int) -> None:
        """Double the speed, or halve it."""
        with self._changed:
            self.power = max(SLOWEST, min(FASTEST, self.power + by))
            self._touch()

    def _touch(self) -> None:
        self._touched = True
        self._changed.notify()

    def _play(self) -> None:
        while True:
            with self._changed:
                while not self._touched and not self._closed:
                    wait, to = self._next()
                    if not self._changed.wait(wait):
                        self.at, self._touched = to, True
                        self.playing = self.playing and to < len(self.recording) - 1
                if self._closed:
                    return
                self._touched = False
                at, told = self.at, self._told()
            try:
                shown = replace(self.recording[at], replay=told)
            except RecordingError as error:
                shown = Snapshot(self.recording.path, problem=str(error), replay=told)
            self.show(shown)

    def _next(self) -> tuple[float | None, int]:
        """Seconds to wait, None: for a key, and the snapshot to show then."""
        times, to, wait = self.recording.times, self.at, 0.0
        while self.playing and to < len(times) - 1 and wait < TICK:
            wait += min(LULL, (times[to + 1] - times[to]) / 2**self.power)
            to += 1
        return (max(TICK, wait) if to > self.at else None), to

    def _told(self) -> str:
        """`REPLAY 2026-11-24 13:05:12 UTC 12/340 ▶ ×4`."""
        speed = f"{2**self.power:g}" if self.power >= 0 else f"1/{2**-self.power}"
        state = "▶" if self.playing else "⏸"
        when = self.recording.when(self.at).strftime("%Y-%m-%d %H:%M:%S")
        return f"REPLAY {when} UTC {self.at + 1}/{len(self.recording)} {state} ×{speed}"


class ReplayApp(DjsbApp):
    """The UI on a recording."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "replay_pause", "Pause", priority=True, id="replay.pause"),
        Binding("left", "replay_step(-1)", "Back", priority=True, id="replay.back"),
        Binding("right", "replay_step(1)", "On", priority=True, id="replay.on"),
        Binding("plus,equals_sign", "replay_faster(1)", "Faster", priority=True, id="replay.faster"),
        Binding("minus", "replay_faster(-1)", "Slower", priority=True, id="replay.slower"),
    ]

    def __init__(self, recording: Recording, bell: bool = False) -> None:
        # a folder that is none: should anything here try to write, it fails
        super().__init__(recording.path.with_name(f"{recording.path.name} (a recording)"), bell)
        self.player: Player | None = None
        self.recording = recording

    def open_feed(self, show: Callable[[Snapshot], None], answer: Callable[[int, Any], None]) -> Source:
        """Start playing."""
        self.player = Player(self.recording, show, answer)
        return self.player

    def has_study(self) -> bool:
        """The recording is all there is."""
        return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Where a text is typed, the keys are the text's."""
        if action.startswith("replay_") and isinstance(self.focused, Input | TextArea):
            return False
        if action.startswith("replay_") and isinstance(self.screen, ModalScreen):
            return False
        return super().check_action(action, parameters)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """How it is played, by the command palette."""
        yield from super().get_system_commands(screen)
        yield SystemCommand("Replay: pause or go on", "space", self.action_replay_pause)
        yield SystemCommand("Replay: a snapshot back", "left", lambda: self.action_replay_step(-1))
        yield SystemCommand("Replay: a snapshot on", "right", lambda: self.action_replay_step(1))
        yield SystemCommand("Replay: to the beginning", "", lambda: self.action_replay_step(-len(self.recording)))
        yield SystemCommand("Replay: to the end", "", lambda: self.action_replay_step(len(self.recording)))
        yield SystemCommand("Replay: faster", "+", lambda: self.action_replay_faster(1))
        yield SystemCommand("Replay: slower", "-", lambda: self.action_replay_faster(-1))

    def action_replay_pause(self) -> None:
        """Pause, or go on."""
        if self.player:
            self.player.pause()

    def action_replay_step(self, by: int) -> None:
        """Back or on, and stay there."""
        if self.player:
            self.player.step(by)

    def action_replay_faster(self, by: int) -> None:
        """Faster or slower."""
        if self.player:
            self.player.faster(by)

    # -- what a recording cannot do ---------------------------------------------------------------

    def _announce(self, before: Snapshot, now: Snapshot) -> None:
        """Nothing here is news."""

    def _refuse(self, *_: Any) -> None:
        self.notify("this is a recording: nothing can be asked for or decided", severity="warning")

    def request(self, kind: Any, argument: str | None = None) -> None:
        """No engine is there."""
        self._refuse()

    action_start_engine = action_set_budget = decide = undo = suggest = edit = _refuse  # type: ignore[assignment]
