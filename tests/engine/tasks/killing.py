"""A study that is killed after its first result and goes on, beside one that was left alone."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DJSB, Tiny, merged, run_djsb

SHORT: dict[str, Any] = {
    "ops": {"text_length_filter": {}},
    "train": {"epochs": 1},
    "search": {"strategy": "race", "top": 1, "rungs": [[0.5, 1], [1, 1]]},
}


def ends_alike(tiny: Tiny, task: dict[str, Any], workers: int = 1) -> None:
    """Both have the same leaderboard after a race. task: the study's fields; it is made short."""
    short, probe = merged(task, SHORT), ("--workers", str(workers), "--until", "probe")
    whole, killed = tiny.set(short), tiny.set(short, tiny.root / "killed")
    assert run_djsb("auto", whole, *probe, timeout=500).returncode == 0
    engine = subprocess.Popen(
        [str(DJSB), "auto", str(killed), *probe], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait_for_a_result(killed)
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    assert run_djsb("auto", killed, *probe, timeout=500).returncode == 0
    boards = [run_djsb("rank", folder, "--json").stdout for folder in (whole, killed)]
    assert boards[0] == boards[1]
    assert json.loads(boards[0])


def _wait_for_a_result(study: Path) -> None:
    file, deadline = study / ".djsb" / "study.db", time.monotonic() + 200
    while time.monotonic() < deadline:
        if file.exists():
            with closing(sqlite3.connect(file, timeout=30)) as db, suppress(sqlite3.Error):
                if db.execute("SELECT 1 FROM trials WHERE state = 'COMPLETE'").fetchone():
                    return
        time.sleep(0.05)
    pytest.fail("no trial was complete in time")
