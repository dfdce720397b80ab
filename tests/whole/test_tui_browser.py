"""The UI in a real browser: the URL that `djsb tui --serve` prints is opened, read, and used to approve a proposal."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.app.tui.driving import wait
from tests.app.tui.web.test_serve import serving
from tests.conftest import Tiny
from tests.whole.browser import MISSING, Browser, browsing

pytestmark = [
    pytest.mark.skipif(
        bool(MISSING), reason=f"needs {' and '.join(MISSING)}: apt-get install chromium chromium-driver"
    ),
    pytest.mark.flaky(reruns=2),  # real processes on a busy machine
]
ENTER = "\ue007"


def queue_one(tiny: Tiny) -> str:
    """Let a proposal of the study wait for a person; its id."""
    with closing(sqlite3.connect(tiny.database)) as db, db:
        (found,) = db.execute("SELECT id FROM proposals LIMIT 1").fetchone()
        db.execute("UPDATE proposals SET status = 'queued' WHERE id = ?", (found,))
    return str(found)


def status_of(tiny: Tiny, proposal: str) -> tuple[str, str | None]:
    """A proposal's status, and who decided on it last."""
    with closing(sqlite3.connect(tiny.database)) as db:
        (status,) = db.execute("SELECT status FROM proposals WHERE id = ?", (proposal,)).fetchone()
        last = db.execute("SELECT who FROM decisions WHERE proposal = ? ORDER BY id DESC", (proposal,)).fetchone()
    return status, last[0] if last else None


def picture(browser: Browser) -> np.ndarray:
    """The page as it looks, every fourth pixel: (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))[::4, ::4]


def test_the_printed_url_shows_the_ui_and_keys_work(stopped: Tiny, tmp_path: Path) -> None:
    proposal = queue_one(stopped)
    with serving(stopped.study) as server, browsing(tmp_path / "profile") as browser:
        browser.open(server.base)
        assert "it has a token" in browser.run("return document.body.innerText")
        assert not server.family(), "the page without the token begins no session"

        browser.open(server.url)
        wait(lambda: browser.url == server.base + "/")
        wait(lambda: "Overview" in browser.received() and "verdict" in browser.received())
        wait(lambda: len(np.unique(picture(browser).reshape(-1, 3), axis=0)) > 50)
        overview = picture(browser)
        (tmp_path / "overview.png").write_bytes(browser.screenshot())
        assert browser.run("return document.cookie") == "", "no script has the token"
        loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
        assert loaded and all(name.startswith((server.base, "data:")) for name in loaded)

        browser.forget()
        browser.press("5")
        wait(lambda: "COMPLETE" in browser.received() and "filter: words" in browser.received())
        wait(lambda: np.mean(picture(browser) != overview) > 0.02)
        (tmp_path / "trials.png").write_bytes(browser.screenshot())

        browser.forget()
        browser.press("4")
        wait(lambda: "queued" in browser.received())
        browser.press("a")
        wait(lambda: "why?" in browser.received())
        browser.press(f"looks right{ENTER}")
        wait(lambda: status_of(stopped, proposal)[0] == "approved")
        assert (status_of(stopped, proposal)[1] or "").startswith("person ")
        refusals = [line for line in browser.console() if line.startswith("SEVERE") and "401" not in line]
        assert not refusals, json.dumps(refusals)
