"""Driving the UI in tests: wait for what is to be seen, read the database beside it."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Static

from app.tui.app import DjsbApp
from app.tui.widgets.table import KeyedTable

Row = tuple[Any, ...]
PATIENCE = 180.0  # seconds; other work may hold the cores, and a command of 10 s then takes a minute


async def until(pilot: Pilot[Any], seen: Callable[[], Any], what: str = "") -> Any:
    """Wait until something is there; what it is."""
    end = time.monotonic() + PATIENCE
    while not (found := seen()):
        assert time.monotonic() < end, f"{what or 'it'} never came; toasts: {toasts(pilot.app)}"
        await pilot.pause(0.02)
    return found


def wait(true: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for a condition of another process; its value."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


async def shown(pilot: Pilot[Any], app: DjsbApp) -> None:
    """Wait for the first leaderboard."""
    await until(pilot, lambda: app.snapshot is not None and app.snapshot.board, "a leaderboard")


def toasts(app: Any) -> list[str]:
    """What was told and is still on the screen."""
    return [n.message for n in app._notifications]


def told(app: Any, part: str) -> bool:
    """True where a toast holds these words."""
    return any(part in text for text in toasts(app))


def screen(app: Any) -> str:
    """The characters on the screen, as a person sees them."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def prose(app: Any) -> str:
    """The screen as running text: a message that is wrapped, in a frame or not, can be found in it."""
    return " ".join(re.sub(r"[\u2500-\u259f]", " ", screen(app)).split())


def words(app: Any, selector: str) -> str:
    """The text of a widget on the screen that is up."""
    return str(app.screen.query_one(selector, Static).content)


def cells(app: Any, selector: str) -> list[list[str]]:
    """A table's rows as they are shown."""
    table = app.screen.query_one(selector, KeyedTable)
    return [[str(cell) for cell in table.get_row(key)] for key in table.keys]


def query(study: Path, sql: str) -> list[Row]:
    """Rows of the study's database."""
    with closing(sqlite3.connect(study / ".djsb" / "study.db", timeout=30)) as db:
        return db.execute(sql).fetchall()
