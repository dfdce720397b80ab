"""`djsb tui`: checks what can be checked before the screen is taken, then runs the app."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from engine.errors import StudyError
from engine.paths import DATABASE, STATE_FOLDER, STUDY_FILE


def run_tui(folder: Path, bell: bool) -> None:
    """Run the terminal UI on a study, or on a folder that is to hold one.

    Raises: StudyError and StoreError before the screen is taken.
    """
    if importlib.util.find_spec("textual") is None or importlib.util.find_spec("textual_plot") is None:
        raise StudyError("the terminal UI needs textual and textual-plot: pip install 'djsb[tui]'")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise StudyError("djsb tui needs a terminal; djsb status and djsb rank print the same for scripts")
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"{folder} is a file; name the folder of a study, or one that is to hold it")
    child = None
    if (folder / STATE_FOLDER / DATABASE).exists() or (folder / STUDY_FILE).exists():
        from app.tui.feed import spawn

        child = spawn(folder)  # what is wrong with the study, it tells the UI
    from app.tui.app import DjsbApp

    DjsbApp(folder, bell, child).run()
