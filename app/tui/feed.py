"""Where the UI's data comes from: a process of its own reads the database and ranks, so that keys are never waited for.

The child polls SQLite's data version, and sends what changed; the UI asks it for details by name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from app.tui import snapshot as reading
from app.tui.snapshot import Snapshot
from engine.errors import DjsbError
from engine.secrets import secret_names
from engine.slots import ENTRY, without_secrets

if TYPE_CHECKING:
    from app.tui.recording import Recorder

POLL = 0.1  # seconds between looks at the data version
RARELY = 1.0  # seconds at least between two rankings
AGAIN = 5.0  # seconds after which engine and errors are looked at even if nothing was committed
Ask = tuple[int, str, tuple[Any, ...]]


class Source(Protocol):
    """What the UI needs of where its data come from; a recording that is played is one, too."""

    def ask(self, what: str, *arguments: Any) -> int:
        """Ask for details; the number under which the answer comes."""
        ...

    def close(self) -> None:
        """End it at once."""
        ...


class Feed:
    """The UI's end. show: called from a thread with each new snapshot; answer: with the result of `ask`.

    record: file that the child writes the snapshots to; why it stops doing so comes as the answer to question 0.
    """

    def __init__(
        self,
        folder: Path,
        show: Callable[[Snapshot], None],
        answer: Callable[[int, Any], None],
        record: Path | None = None,
    ) -> None:
        self.show, self.answer, self.record = show, answer, record
        self._here, there = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, str(ENTRY), "feed", str(folder), str(there.fileno()), *([str(record)] if record else [])],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[there.fileno()], env=without_secrets(),
        )  # fmt: skip
        there.close()
        if record:  # the child has no keys in its environment; it must know what to leave out of the file
            self._here.send({name: os.environ[name] for name in secret_names()})
        self._asked = 0
        self._closed = False
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, what: str, *arguments: Any) -> int:
        """Ask for details; the number under which the answer comes."""
        self._asked += 1
        with contextlib.suppress(OSError):
            self._here.send((self._asked, what, arguments))
        return self._asked

    @property
    def alive(self) -> bool:
        """False when the child has died."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the child at once; one that records may end its file first."""
        self._closed = True
        if self.record:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._here.send(None)
                self._process.wait(1)
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        while not self._closed:
            try:
                number, content = self._here.recv()
            except (EOFError, OSError):
                return
            if self._closed:
                return
            if number is None:
                self.show(content)
            else:
                self.answer(number, content)


def serve(folder: Path, descriptor: int, record: Path | None = None) -> None:
    """The child: send snapshots as the database changes, answer questions, end with the parent.

    record: file that the snapshots are written to, too.
    """
    pipe: Connection[Any, Any] = Connection(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is a key of the UI's
    reader = _Reader(folder, pipe)
    with contextlib.suppress(EOFError, OSError, BrokenPipeError):
        if record:
            reader.record_to(record, pipe.recv())
        while True:
            reader.turn()
            if pipe.poll(POLL):
                if (asked := pipe.recv()) is None:
                    break
                reader.reply(asked)
    reader.recorded(lambda r: r.close())


class _Reader:
    def __init__(self, folder: Path, pipe: Connection[Any, Any]) -> None:
        self.folder, self.pipe = folder, pipe
        self.view: Any = None
        self.shown: Snapshot | None = None
        self._version: int | None = None
        self._looked = self._ranked = 0.0
        self._cost = 0.0
        self._stale = True
        self._recorder: Recorder | None = None

    def record_to(self, file: Path, secrets: dict[str, str]) -> None:
        """Record from now on."""
        from app.tui.recording import Recorder

        try:
            self._recorder = Recorder(file, secrets)
        except DjsbError as error:
            self.pipe.send((0, error))

    def recorded(self, work: Callable[[Recorder], None]) -> None:
        """Have the recorder, if there is one, do something; where it cannot go on, the UI is told and lives without."""
        if self._recorder is None:
            return
        try:
            work(self._recorder)
        except DjsbError as error:
            self._recorder = None
            with contextlib.suppress(OSError):
                self.pipe.send((0, error))

    def turn(self) -> None:
        """Look whether there is something new, and send it."""
        now = time.monotonic()
        self.recorded(lambda r: r.tick())
        try:
            if self.view is None:
                self.view = reading.opened(self.folder)
            changed = self._changed()
            if changed or now - self._looked > AGAIN:
                self._looked, self._stale = now, self._stale or changed
                board = self.shown.board if self.shown else None
                self._send(Snapshot(board=board, **reading.light(self.view)))
            # ranking is dear with many pools: at most a third of this process's time goes to it
            if self._stale and self.shown and now - self._ranked > max(RARELY, 2 * self._cost):
                self._stale, began = False, time.monotonic()
                board = reading.board(self.view)
                self._ranked = time.monotonic()
                self._cost = self._ranked - began
                self._send(replace(self.shown, board=board))
        except DjsbError as error:
            if self.view is not None:
                self.view.store.close()
            self.view, self._version = None, None
            if self.shown is None or self.shown.problem != str(error):
                self._send(reading.unreadable(self.folder, error))
            time.sleep(0.5)

    def _changed(self) -> bool:
        row = self.view.store.one("PRAGMA data_version")
        version = row["data_version"]
        if version == self._version:
            return False
        if self._version is not None:
            self._follow()
        self._version = version
        return True

    def _follow(self) -> None:
        """Another engine may have recorded the study anew since, with other settings."""
        last = self.view.store.one("SELECT context, at FROM studies ORDER BY at DESC LIMIT 1")
        if last and last["context"] != self.view.context:
            self.view.store.close()
            self.view = reading.opened(self.folder)

    def _send(self, found: Snapshot) -> None:
        self.shown = found
        self.pipe.send((None, found))
        self.recorded(lambda r: r.take(found))

    def reply(self, asked: Ask) -> None:
        """Answer a question for details."""
        number, what, arguments = asked
        try:
            if self.view is None:
                raise DjsbError("the study cannot be read now")
            self.pipe.send((number, reading.QUESTIONS[what](self.view, *arguments)))
        except DjsbError as error:
            self.pipe.send((number, error))
