"""`djsb tui`: checks what can be checked before the screen is taken, then runs the app."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from engine.errors import StudyError
from engine.paths import DATABASE, STATE_FOLDER


def run_tui(folder: Path, bell: bool) -> None:
    """Run the terminal UI on a study. Raises: StudyError and StoreError before the screen is taken."""
    if importlib.util.find_spec("textual") is None or importlib.util.find_spec("textual_plot") is None:
        raise StudyError("the terminal UI needs textual and textual-plot: pip install 'djsb[tui]'")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise StudyError("djsb tui needs a terminal; djsb status and djsb rank print the same for scripts")
    if not (folder / STATE_FOLDER / DATABASE).exists():
        from engine.open_study import view_study

        view_study(folder)  # it says what is missing
    from app.tui.feed import spawn

    child = spawn(folder)
    from app.tui.app import DjsbApp

    DjsbApp(folder, bell, child).run()
