"""Looking at a study needs no right to write to it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import DJSB, Tiny

HOME = Path(__file__).parents[2]
OLD = HOME / "tests" / "data" / "old_study" / "study.db.gz"
DROP = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # root ignores permissions otherwise
READ = """
import json, sys
from pathlib import Path
from app.tui.reading import snapshot
from app.tui.reading.memory import Memory
with (view := snapshot.opened(Path(sys.argv[1]))).store as store:
    seen = snapshot.light(view, Memory())
    print(json.dumps([len(seen["trials"]), len(snapshot.board(view)), store.still]))
"""


def bound(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command that permissions hold."""
    argv = [*(DROP if os.geteuid() == 0 else []), *map(str, command)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False, cwd=HOME)


@pytest.fixture(scope="module", autouse=True)
def _permissions_hold(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("locked")
    folder.chmod(0o500)
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root without setpriv: permissions hold nobody")
    if bound("touch", folder / "file").returncode == 0:
        pytest.skip("permissions do not hold here, even without the right to ignore them")


def protect(folder: Path, writable: bool = False) -> None:
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | stat.S_IWUSR if writable else mode & ~0o222)


@pytest.fixture
def protected(stopped: Tiny) -> Iterator[Tiny]:
    """A study that may only be read."""
    protect(stopped.study)
    yield stopped
    protect(stopped.study, writable=True)


def test_commands_that_look_work_and_leave_nothing(protected: Tiny, tmp_path: Path) -> None:
    before = sorted(protected.study.rglob("*"))
    for command in (["status"], ["rank"], ["log"], ["proposals"], ["report", "--out", tmp_path / "report"]):
        done = bound(DJSB, command[0], protected.study, *command[1:])
        assert done.returncode == 0, done.stderr
    trial = protected.trials()[0][0]
    done = bound(DJSB, "show", trial, protected.study, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["id"] == trial, done.stderr
    assert (tmp_path / "report" / "report.html").exists()
    assert sorted(protected.study.rglob("*")) == before


def test_the_reader_of_the_ui_works(protected: Tiny) -> None:
    done = bound(sys.executable, "-c", READ, protected.study)
    assert json.loads(done.stdout)[0] == len(protected.trials()), done.stderr


@pytest.mark.parametrize("command", [("auto",), ("pools",), ("check",), ("report",)])
def test_commands_that_write_say_so_in_one_line(protected: Tiny, command: tuple[str, ...]) -> None:
    done = bound(DJSB, *command, protected.study)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "writable" in line and "copy the study elsewhere" in line


def test_the_log_of_a_killed_engine_is_read_too(stopped: Tiny, tmp_path: Path) -> None:
    """With the index of the log, and without it, as in a copy of two files."""
    with closing(sqlite3.connect(stopped.database, isolation_level=None)) as db:
        db.execute("INSERT INTO events(level, kind, text, at) VALUES('info', 'k', 'in the log alone', 'now')")
        for index in (True, False):
            copy = tmp_path / f"copy-{index}"
            shutil.copytree(stopped.study, copy)
            if not index:
                (copy / ".djsb" / "study.db-shm").unlink()
            assert (copy / ".djsb" / "study.db-wal").stat().st_size
            protect(copy)
            done = bound(DJSB, "log", copy)
            protect(copy, writable=True)
            assert done.returncode == 0 and "in the log alone" in done.stdout, done.stderr


def test_an_older_database_is_brought_up_to_date_in_a_copy(stopped: Tiny) -> None:
    state = stopped.study / ".djsb"
    for file in state.glob("study*"):
        file.unlink()
    old = gzip.decompress(OLD.read_bytes())
    stopped.database.write_bytes(old)
    protect(stopped.study)
    done = bound(DJSB, "rank", stopped.study, "--json")
    assert done.returncode == 0 and json.loads(done.stdout), done.stderr
    assert stopped.database.read_bytes() == old
    done = bound(sys.executable, "-c", READ, stopped.study)
    assert json.loads(done.stdout)[2] is True, done.stderr
    protect(stopped.study, writable=True)


def test_a_decision_on_it_is_refused(protected: Tiny) -> None:
    with closing(sqlite3.connect(protected.database)) as db:
        (proposal,) = db.execute("SELECT id FROM proposals LIMIT 1").fetchone()
    done = bound(DJSB, "review", proposal, "--dir", protected.study, "--reject", "--why", "no")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
