"""The studies of a folder for the UI: each is read anew when its database, settings or engine change.

It runs in the reading process. What takes long comes last: first what every study's database says, then, one study
after the other, its answer and its best pool.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.commands import studies
from app.commands.compare import compare
from app.tui.reading import snapshot as reading
from app.tui.reading.snapshot import Snapshot
from engine.base.errors import DjsbError
from engine.base.paths import DATABASE, STATE_FOLDER, STUDY_FILE
from engine.journal.connect import stamp
from engine.journal.store import Row
from engine.study.lock import engine_pid

LOOK = 1.0  # seconds between two looks at all studies
OFTEN = 0.25  # seconds at least between two snapshots
TURN = 0.1  # seconds of reading, after which questions are heard
AGAIN = 5.0  # seconds at least between two answers of a study
SHARE = 20  # an answer takes at most one part in so many of the time
KEPT = ("answer", "kind", "best")


class StudiesReader:
    """What the list of studies shows. send: takes what has changed, and answers."""

    def __init__(self, folder: Path, send: Callable[[Any], None]) -> None:
        self.folder, self.send = folder, send
        self.shown: Snapshot | None = None
        self._rows: dict[Path, Row] = {}
        self._stamps: dict[Path, object] = {}
        self._old: dict[Path, float] = {}  # studies whose row is out of date
        self._unanswered: dict[Path, float] = {}  # studies without an answer for what they say now → from when on
        self._next: dict[Path, float] = {}  # when its answer may be read again
        self._due = self._sent = 0.0

    def turn(self) -> None:
        """Look, read for a moment, and send what is new."""
        began = time.monotonic()
        problem = ""
        if began >= self._due:
            try:
                self._look()
            except DjsbError as error:
                problem = str(error)
            self._due = time.monotonic() + max(LOOK, 10 * (time.monotonic() - began))
        while time.monotonic() < began + TURN and (self._old or self._ready()):
            self._read()
        if time.monotonic() >= self._sent + OFTEN or not self._old:
            self._send(problem)

    def _look(self) -> None:
        """Which studies there are, and which of them have changed."""
        now = {folder: _stamp(folder) for folder in studies.listed(self.folder)}
        for gone in self._stamps.keys() - now.keys():
            for known in (self._rows, self._stamps, self._old, self._unanswered):
                known.pop(gone, None)
        self._old |= {folder: 0.0 for folder, at in now.items() if self._stamps.get(folder) != at}
        self._stamps = dict(now)

    def _ready(self) -> list[Path]:
        return [folder for folder, at in self._unanswered.items() if at <= time.monotonic()]

    def _read(self) -> None:
        if self._old:
            folder, _ = next(iter(self._old.items()))
            del self._old[folder]
            before = self._rows.get(folder, {})
            row = studies.light(folder)
            self._rows[folder] = {**row, **{name: before[name] for name in KEPT if before and not row["problem"]}}
            if not row["problem"] and row["state"] != "not started":
                self._unanswered[folder] = self._next.get(folder, 0.0)
            return
        folder, began = self._ready()[0], time.monotonic()
        del self._unanswered[folder]
        self._rows[folder] = studies.full(folder)
        now = time.monotonic()
        self._next[folder] = now + max(AGAIN, SHARE * (now - began))

    def _send(self, problem: str) -> None:
        rows = tuple(self._rows[folder] for folder in sorted(self._rows))
        found = Snapshot(self.folder, self.folder.name, studies=rows, problem=problem)
        if change := reading.changes(self.shown, found):
            self.send((None, change))
        self.shown, self._sent = found, time.monotonic()

    def reply(self, asked: tuple[int, str, tuple[Any, ...]]) -> None:
        """Answer a question: of two studies, how they compare."""
        number, what, arguments = asked
        try:
            if what != "compare":
                raise DjsbError(f"{what}: open a study first")
            self.send((number, compare(*map(Path, arguments))))
        except (DjsbError, OSError) as error:
            self.send((number, DjsbError(str(error))))


def _stamp(folder: Path) -> object:
    """Changes when something of the study does."""
    state = folder / STATE_FOLDER
    try:
        settings = (folder / STUDY_FILE).stat().st_mtime_ns
    except OSError:
        settings = 0
    try:
        return settings, stamp(state / DATABASE), engine_pid(state)
    except OSError as error:
        return settings, str(error)
