"""What tests do with a running app: wait for a condition, read the screen as a person sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot

from app.tui.app import DjsbApp

SCREENS = ("overview", "ops", "correlations", "proposals", "trials", "recipes", "log")


async def until(pilot: Pilot[Any], met: Callable[[], Any], what: str, seconds: float = 60) -> None:
    """Go on when the condition holds; fail, with the screen, when it never does."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, f"never: {what}\n{screen(pilot.app)}"
        await pilot.pause(0.05)


def screen(app: Any) -> str:
    """The characters on the screen."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def loaded(pilot: Pilot[Any], app: DjsbApp) -> None:
    """Wait for the first ranking."""
    await until(pilot, lambda: app.snapshot and app.snapshot.board is not None, "a leaderboard")
    await pilot.pause()


def toasts(app: DjsbApp) -> str:
    """All that was said and still stands."""
    return "\n".join(n.message for n in app._notifications)
