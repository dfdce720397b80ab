"""Whatever happens to study, engine and reader while the UI watches: a message, a screen that lives, no traceback."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.tui.app import DjsbApp
from tests.app.tui.driving import prose, screen, shown, toasts, until
from tests.conftest import Tiny

EXCLUSIVE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
if sys.argv[2] == "all":
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
db.execute("BEGIN EXCLUSIVE")
db.execute("UPDATE setups SET name = name")
print("held", flush=True)
sys.stdin.read()
"""
ENGINE = """
import sys
from pathlib import Path
from engine.study.lock import EngineLock
with EngineLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds something until it is let go."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[3],
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


async def test_a_newer_database_is_told(probed: Tiny) -> None:
    with closing(sqlite3.connect(probed.database)) as db:
        db.execute("INSERT INTO _sqlite_migrations(migration_set, name, applied_at) VALUES('djsb', 'm999_later', '')")
        db.commit()
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "from a newer djsb" in prose(app), "the message")


async def test_a_file_that_is_no_database_is_told(probed: Tiny) -> None:
    for name in ("study.db-wal", "study.db-shm"):
        probed.database.with_name(name).unlink(missing_ok=True)
    probed.database.write_bytes(b"no database, but long enough to be looked at " * 100)
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "damaged" in prose(app), "the message")


async def test_a_locked_database_is_told_and_waited_for(probed: Tiny) -> None:
    app = DjsbApp(probed.study)
    with holder(EXCLUSIVE, probed.database, "all") as other:
        async with app.run_test(size=(120, 36)) as pilot:
            await pilot.press("5")
            await until(pilot, lambda: app.current_mode == "trials", "a screen that lives")
            await until(pilot, lambda: "locked" in prose(app), "the message")
            other.kill()
            await until(pilot, lambda: app.snapshot and app.snapshot.board, "the leaderboard")


async def test_keys_live_while_a_write_waits_for_another_writer(probed: Tiny) -> None:
    with holder(ENGINE, probed.database.parent), holder(EXCLUSIVE, probed.database, "write") as other:
        app = DjsbApp(probed.study)
        async with app.run_test(size=(120, 36)) as pilot:
            await until(pilot, lambda: app.snapshot and app.snapshot.engine, "the engine")
            await pilot.press("x")
            began = time.monotonic()
            await pilot.press("7")
            await until(pilot, lambda: app.current_mode == "log", "a screen that lives")
            assert "asked the engine" not in str(toasts(app)) and time.monotonic() - began < 8
            other.kill()
            await until(pilot, lambda: "asked the engine to stop" in str(toasts(app)), "the request")


async def test_an_engine_that_is_killed_is_told_with_what_it_left(probed: Tiny) -> None:
    with closing(sqlite3.connect(probed.database)) as db:
        db.execute("UPDATE trials SET state = 'RUNNING' WHERE id = (SELECT min(id) FROM trials)")
        db.commit()
    app = DjsbApp(probed.study)
    with holder(ENGINE, probed.database.parent) as engine:
        async with app.run_test(size=(120, 36)) as pilot:
            await until(pilot, lambda: app.snapshot and app.snapshot.engine == engine.pid, "the engine")
            engine.send_signal(signal.SIGKILL)
            await until(pilot, lambda: "the engine died with 1 trial(s)" in str(toasts(app)), "the toast")
            await until(pilot, lambda: "■ no engine" in screen(app), "the header")


async def test_a_reader_that_dies_is_started_again_a_few_times_and_then_told(probed: Tiny) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await shown(pilot, app)
        assert app.feed is not None
        for _ in range(3):
            first, app.snapshot = app.feed._process.pid, None
            os.kill(first, signal.SIGKILL)
            await until(pilot, lambda first=first: app.feed and app.feed._process.pid != first, "another process")
            await until(pilot, lambda: app.snapshot and app.snapshot.trials, "a snapshot of it")
        os.kill(app.feed._process.pid, signal.SIGKILL)
        await until(pilot, lambda: "has died 4 times" in prose(app), "the message")
        await pilot.press("6")
        await until(pilot, lambda: app.current_mode == "recipes", "a screen that lives")


async def test_data_that_are_gone_cost_only_the_examples(probed: Tiny) -> None:
    probed.train_file.unlink()
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await shown(pilot, app)
        await pilot.press("2")
        await until(pilot, lambda: "no such file" in prose(app), "the reason")
        assert "text_len" in screen(app)


async def test_a_removed_database_is_told_and_its_return_seen(probed: Tiny) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, app)
        away = probed.root / "away"
        probed.database.parent.rename(away)
        await until(pilot, lambda: app.snapshot and app.snapshot.problem and "✗" in screen(app), "the message")
        assert "text_len" in screen(app)  # what was last read stays
        await pilot.press("5")
        await until(pilot, lambda: app.current_mode == "trials", "a screen that lives")
        await pilot.press("1")
        away.rename(probed.database.parent)
        await until(pilot, lambda: app.snapshot and not app.snapshot.problem, "its return")
