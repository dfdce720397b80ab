"""Where the UI's data comes from: a process of its own reads the database and ranks, so that keys are never waited for.

The child polls SQLite's data version, and sends what has changed; the UI asks it for details by name.
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
from typing import TYPE_CHECKING, Any, NoReturn

from app.tui.reading import snapshot as reading
from app.tui.reading.memory import Memory
from app.tui.reading.snapshot import Snapshot
from engine.base.environment import passed
from engine.base.errors import DjsbError, StoreError
from engine.base.lifetime import end_with_owner
from engine.base.paths import DATABASE, ENTRY, STATE_FOLDER, holds_studies
from engine.base.secrets import secret_names
from engine.journal.store import Store

if TYPE_CHECKING:
    from app.tui.recording.file import Recorder

POLL = 0.05  # seconds between looks at the data version
OFTEN = 0.25  # seconds at least between two snapshots
RARELY = 1.0  # seconds at least between two rankings
SHARE = 5  # a ranking takes at most one part in so many of the time
AGAIN = 2.0  # seconds after which engine and errors are looked at even if nothing was committed
MENDED = 0.5  # seconds until a study that could not be read, or a child that ended, is tried again
REVIVALS = 3  # times that a dead child is started again
PATIENCE = 1.0  # seconds that a locked database is waited for before it is said
Ask = tuple[int, str, tuple[Any, ...]]
Child = tuple[subprocess.Popen[bytes], Connection]


def launch(folder: Path, descriptor: int, record: Path | None) -> subprocess.Popen[bytes]:
    """Start the child's process. descriptor: of its end of the pipe."""
    return subprocess.Popen(
        [sys.executable, str(ENTRY), "feed", str(folder), str(descriptor), *([str(record)] if record else [])],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=[descriptor], env=passed(),
    )  # fmt: skip


def spawn(folder: Path, record: Path | None = None) -> Child:
    """Start the child; it reads while the UI's own modules are still being imported. record: file to record to."""
    here, there = Pipe()
    process = launch(folder, there.fileno(), record)
    there.close()
    if record:  # the child has no keys in its environment; it must know what to leave out of the file
        here.send({name: os.environ[name] for name in secret_names()})
    return process, here


class Feed:
    """The UI's end. show: called from a thread with each new snapshot; answer: with the result of `ask`.

    child: one that was started before. A child that dies is started again, a few times, and the snapshot says so.
    record: file that the child writes the snapshots to; why it stops doing so comes as the answer to question 0.
    asked: the number of the last question that another feed was asked.
    """

    def __init__(
        self,
        folder: Path,
        show: Callable[[Snapshot], None],
        answer: Callable[[int, Any], None],
        child: Child | None = None,
        record: Path | None = None,
        asked: int = 0,
    ) -> None:
        self.folder, self.show, self.answer, self.record = folder, show, answer, record
        self._process, self._here = child or spawn(folder, record)
        self.asked, self._deaths = asked, 0
        self._closed = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, what: str, *arguments: Any) -> int:
        """Ask for details; the number under which the answer comes."""
        self.asked += 1
        with contextlib.suppress(OSError):
            self._here.send((self.asked, what, arguments))
        return self.asked

    def close(self) -> None:
        """End the child at once; one that records may end its file first."""
        self._closed.set()
        if self.record:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._here.send(None)
                self._process.wait(1)
        self._process.kill()
        self._process.wait()

    def _revive(self, shown: Snapshot) -> tuple[Snapshot, bool]:
        """Start the child again after it died, a few times; what is shown meanwhile, and whether it lives."""
        self._process.kill()
        code = self._process.wait()
        self._deaths += 1
        dead = self._deaths > REVIVALS
        said = "the process that reads the study has ended; it is started again" if not dead else (
            f"the process that reads the study has died {self._deaths} times (exit {code}); leave (q), and look with "
            f"djsb status {self.folder}"
        )  # fmt: skip
        shown = replace(shown, problem=said)
        self.show(shown)
        if dead or self._closed.wait(MENDED):
            return shown, False
        self._process, self._here = spawn(self.folder)
        return shown, True

    def _listen(self) -> None:
        shown = Snapshot(self.folder)
        while True:
            try:
                number, content = self._here.recv()
            except Exception:  # the pipe has ended, or broke off within a message
                if self._closed.is_set():
                    return
                shown, alive = self._revive(shown)
                if not alive:
                    return
                if self.record:
                    told = f"{self.record}: the process that recorded has died; the recording ends here"
                    self.record = None
                    self.answer(0, DjsbError(told))
                continue
            if self._closed.is_set():
                return
            if number is None:
                shown = reading.merged(shown, content)
                self.show(shown)
            else:
                self.answer(number, content)


def serve(folder: Path, descriptor: int, record: Path | None = None) -> None:
    """The child: send what has changed in the study, answer questions, end with the parent.

    record: file that the snapshots are written to, too.
    """
    end_with_owner()
    pipe: Connection[Any, Any] = Connection(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is a key of the UI's
    Store.wait = PATIENCE
    if record is None and holds_studies(folder):
        from app.tui.reading.studies import StudiesReader

        reader: _Reader | StudiesReader = StudiesReader(folder, pipe.send)
    else:
        reader = _Reader(folder, pipe)
    with contextlib.suppress(EOFError, OSError, BrokenPipeError):
        if record and isinstance(reader, _Reader):
            reader.record_to(record, pipe.recv())
        while True:
            reader.turn()
            if pipe.poll(POLL):
                if (asked := pipe.recv()) is None:
                    break
                reader.reply(asked)
    if isinstance(reader, _Reader):
        reader.recorded(lambda r: r.close())


class _Ranking:
    """Leaderboard and answer, computed in a thread with a connection of its own when results have come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: tuple[tuple[Any, ...] | None, tuple[str, ...]] = (None, ())
        self.problem: Exception | None = None
        self._thread: threading.Thread | None = None
        self._results: object = None
        self._next = 0.0

    def follow(self, results: object) -> None:
        """Rank anew where these are not the results that were ranked last. results: whatever stands for them."""
        if self.problem is not None:
            problem, self.problem = self.problem, None
            raise problem
        if results != self._results and time.monotonic() >= self._next and not self._busy:
            self._results = results
            self._thread = threading.Thread(target=self._rank, daemon=True)
            self._thread.start()

    @property
    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _rank(self) -> None:
        began = time.monotonic()
        try:
            with (view := reading.opened(self.folder)).store:
                self.found = reading.board(view), reading.told(view)
        except DjsbError as error:
            self.problem, self._results = error, None
        now = time.monotonic()
        self._next = now + max(RARELY, (SHARE - 1) * (now - began))


class _Reader:
    def __init__(self, folder: Path, pipe: Connection) -> None:
        self.folder, self.pipe = folder, pipe
        self.view: Any = None
        self.memory = Memory()
        self.ranking = _Ranking(folder)
        self.shown: Snapshot | None = None
        self._version: int | None = None
        self._recorded = ""
        self._file: tuple[int, int] | None = None
        self._results: object = None
        self._looked = 0.0
        self._recorder: Recorder | None = None

    def record_to(self, file: Path, secrets: dict[str, str]) -> None:
        """Record from now on."""
        from app.tui.recording.file import Recorder

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
        if now - self._looked < OFTEN:
            return
        try:
            if self.view is None:
                self._open()
            if self._changed() or now - self._looked > AGAIN:
                self._looked = now
                board, answer = self.ranking.found
                self._send(Snapshot(board=board, answer=answer, **reading.light(self.view, self.memory)))
                self._results = reading.results_so_far(self.view)
            elif self.shown and self.shown.board is not self.ranking.found[0]:
                self._send(replace(self.shown, board=self.ranking.found[0], answer=self.ranking.found[1]))
            self.ranking.follow(self._results)
        except DjsbError as error:
            self._looked = now + MENDED
            self._close()
            gone = self._file is not None  # it was read before, so it is no study that has yet to begin
            self._send(Snapshot(self.folder, problem=str(error)) if gone else reading.unreadable(self.folder, error))

    def _close(self) -> None:
        if self.view is not None:
            self.view.store.close()
        self.view = None

    def _open(self) -> None:
        """Open the study, and remember which file it is."""
        if self._file and not _identity(self.folder / STATE_FOLDER / DATABASE):
            self._refuse_gone()  # once there was one, so this is no study that has yet to begin
        self.view, self.memory = reading.opened(self.folder), Memory()
        self._file = _identity(self.view.store.file)
        self._version, self._recorded = None, self._last_recorded()

    def _refuse_gone(self) -> NoReturn:
        file = self.folder / STATE_FOLDER / DATABASE
        raise StoreError(f"{file} was removed or replaced; put it back, or start anew with djsb auto")

    def _changed(self) -> bool:
        if _identity(self.view.store.file) != self._file:  # an open file outlives its name
            self._refuse_gone()
        version = self.view.store.version()
        if version == self._version:
            return False
        self._version = version
        # an engine has begun, perhaps with other settings; or what was read is still, and has changed since
        if self.view.store.still or self._last_recorded() != self._recorded:
            self._close()
            self._open()
            self._version = version
        return True

    def _last_recorded(self) -> str:
        from engine.journal import setups  # in the reading process only

        last = setups.last(self.view.store)
        return last.at if last else ""

    def _send(self, found: Snapshot) -> None:
        if change := reading.changes(self.shown, found):
            self.pipe.send((None, change))
        self.shown = found
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
        except OSError as error:
            self.pipe.send((number, DjsbError(f"{what} cannot be shown: {error.filename}: {error.strerror}")))
        except Exception as error:  # the border of this process: the UI says what happened, the feed lives on
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            self.pipe.send((number, DjsbError(f"{what} cannot be shown: {said}")))


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file stands under this name, or None."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
