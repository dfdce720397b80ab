"""`djsb tui`: checks what can be checked before the screen is taken, then runs the app."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from engine.base.errors import DjsbError, StudyError
from engine.base.paths import DATABASE, STATE_FOLDER, STUDY_FILE, holds_studies
from engine.journal.store import Store

if TYPE_CHECKING:
    from textual.app import App

INTERRUPTED = 130


def run_tui(folder: Path, bell: bool, record: Path | None = None, replay: Path | None = None) -> None:
    """Run the terminal UI on a study, on a folder that is to hold one, or on a recording.

    record: file to record to; without a terminal it is only that.
    Raises: StudyError, StoreError and RecordingError before the screen is taken.
    """
    if importlib.util.find_spec("textual") is None or importlib.util.find_spec("textual_plot") is None:
        raise StudyError("the terminal UI needs textual and textual-plot: pip install 'djsb[tui]'")
    recording = None
    if replay:
        from app.tui.recording.file import Recording

        recording = Recording(replay)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not (terminal or record or in_browser()):
        raise StudyError("djsb tui needs a terminal; djsb status and djsb rank print the same for scripts")
    if in_browser():
        _end_with_parent()
    if recording:
        from app.tui.replay import ReplayApp

        _run(ReplayApp(recording, bell))
        return
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"{folder} is a file; name the folder of a study, or one that is to hold it")
    if record:
        from engine.study.view import view_study

        view_study(folder).store.close()  # a recording needs a study; it says what is missing
        _new_file(record)
    if record and not terminal:
        _record_only(folder, record)
        return
    if holds_studies(folder):
        from app.tui.feed import spawn
        from app.tui.several import StudiesApp

        reader = spawn(folder)
        Store.tell, Store.wait = staticmethod(lambda _: None), 2.0
        gc.set_threshold(50_000, 50, 1000)
        _run(StudiesApp(folder, bell, reader))
        return
    child = None
    if (folder / STATE_FOLDER / DATABASE).exists() or (folder / STUDY_FILE).exists():
        if not (folder / STATE_FOLDER / DATABASE).exists():
            from engine.study.file import read_study

            read_study(folder)  # it says what is wrong with a study that has never run
        from app.tui.feed import spawn

        child = spawn(folder, record)  # what is wrong with the study, it tells the UI
    Store.tell, Store.wait = staticmethod(lambda _: None), 2.0  # a line would fall into the screen
    from app.tui.app import DjsbApp

    gc.set_threshold(50_000, 50, 1000)  # looking through ten thousand trials for rubbish takes longer than a key may
    _run(DjsbApp(folder, bell, child, record))


def _run(app: App[None]) -> None:
    """Run it to its end; SIGTERM and SIGHUP (the terminal is gone) leave it as `q` does, with exit code 130."""

    def leave(*_: object) -> None:
        if not app.is_running:
            raise KeyboardInterrupt
        threading.Thread(target=lambda: app.call_from_thread(app.exit, return_code=INTERRUPTED), daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)
    app.run()
    if app.return_code == INTERRUPTED:
        sys.exit(INTERRUPTED)


def in_browser() -> bool:
    """True in a session of `djsb tui --serve`, which speaks to a browser over pipes."""
    return os.environ.get("TEXTUAL_DRIVER", "").endswith(":WebDriver")


def _new_file(file: Path) -> None:
    """Make the file. Raises: StudyError when there is one, or it cannot be made."""
    try:
        file.open("xb").close()
    except FileExistsError:
        raise StudyError(f"{file} is there already; give the recording a name of its own") from None
    except OSError as error:
        raise StudyError(f"{file}: {error.strerror}") from error


def _record_only(folder: Path, file: Path) -> None:
    """Record without a screen until Ctrl-C or SIGTERM. Raises: DjsbError when the recording cannot go on."""
    from app.text.printable import say
    from app.tui.feed import Feed

    ended: SimpleQueue[DjsbError | None] = SimpleQueue()  # a signal handler may put into it while it is read
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.put(None))
    feed = Feed(folder, lambda _: None, lambda _, content: ended.put(content), record=file)
    say(f"recording to {file}; Ctrl-C ends it", err=True)
    error = ended.get()
    feed.close()
    if error is not None:
        raise error


def _end_with_parent() -> None:
    """End this session when the server that it speaks to has died; its engine goes on."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
