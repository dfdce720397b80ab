"""A study from elsewhere: whatever its database and its links name, nothing outside it is read as a path or touched."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.tui.reading import snapshot
from app.tui.reading.memory import Memory
from engine.base.errors import StoreError
from engine.study.opened import open_study
from tests.conftest import Tiny, run_djsb


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder that is somebody else's."""
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "file.npy").write_text("mine")
    return folder


def untouched(precious: Path) -> bool:
    return [f.name for f in precious.iterdir()] == ["file.npy"] and (precious / "file.npy").read_text() == "mine"


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of a command that must fail."""
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("djsb: ") and "internal error" not in last, done.stderr[-2000:]
    return last


def sql(tiny: Tiny, *statements: str, at: str) -> None:
    """Change the database as its maker could; `:at` stands for the path."""
    database = tiny.study / ".djsb" / "study.db"
    with closing(sqlite3.connect(database)) as db, db:
        for statement in statements:
            db.execute(statement, {"at": at})


PROBE = ("--until", "probe", "--workers", "1")
ONE = "(SELECT id FROM trials WHERE state = 'COMPLETE' ORDER BY id LIMIT 1)"
HOSTILE: dict[str, tuple[str, ...]] = {
    "a trial": (
        f"UPDATE metrics SET trial = :at WHERE trial = {ONE}",
        f"UPDATE checkpoints SET trial = :at WHERE trial = {ONE}",
        "INSERT OR REPLACE INTO checkpoints VALUES(:at, :at, 1, 1, '')",
        f"UPDATE proposal_trials SET trial = :at WHERE trial = {ONE}",
        f"UPDATE trials SET id = :at WHERE id = {ONE}",
    ),
    "a waiting trial": (
        "UPDATE proposal_trials SET trial = :at WHERE trial = (SELECT id FROM trials WHERE state = 'WAITING' LIMIT 1)",
        "UPDATE trials SET id = :at WHERE id = (SELECT id FROM trials WHERE state = 'WAITING' LIMIT 1)",
    ),
    "a start": ("UPDATE trials SET init = :at",),
    "a pool": ("UPDATE trials SET pool = :at", "UPDATE pools SET id = :at WHERE kind = 'control'"),
    "a setup": ("UPDATE setups SET setup = :at", "UPDATE trials SET setup = :at"),
}


@pytest.mark.parametrize("path", ["PRECIOUS", "../../../precious"])
@pytest.mark.parametrize("what", HOSTILE)
def test_an_id_that_is_a_path_is_refused_in_one_line(stopped: Tiny, precious: Path, what: str, path: str) -> None:
    sql(stopped, *HOSTILE[what], at=str(precious) if path == "PRECIOUS" else path)
    for command in ("status", "rank", "auto"):
        done = run_djsb(command, stopped.study, *(PROBE if command == "auto" else ()))
        if done.returncode == 0 and (command != "auto" or what == "a setup"):
            continue  # it reads no such row
        assert "is damaged or was tampered with" in said(done)
    assert untouched(precious)


def test_the_reader_of_the_ui_refuses_it_too(stopped: Tiny, precious: Path) -> None:
    sql(stopped, *HOSTILE["a trial"], at=str(precious))
    with (view := snapshot.opened(stopped.study)).store, pytest.raises(StoreError, match="tampered"):
        snapshot.light(view, Memory())


def test_a_checkpoint_that_lies_elsewhere_is_refused(stopped: Tiny, precious: Path) -> None:
    sql(stopped, "DELETE FROM checkpoints", f"INSERT INTO checkpoints SELECT {ONE}, :at, 1, 1, ''", at=str(precious))
    trial = stopped.trials()[0][0]
    for command in (("auto", stopped.study, *PROBE), ("show", trial, stopped.study)):
        done = run_djsb(*command)
        if command[0] == "show" or done.returncode:
            assert "tampered" in said(done)
    assert untouched(precious)


def test_scores_that_lie_elsewhere_are_refused(stopped: Tiny, precious: Path) -> None:
    stopped.set({"pools": {"model_scores": True}})
    for file in (str(precious / "file.npy"), "../../../../precious/file.npy"):
        content = f'{{"trial": "abcdef0123456789", "file": "{file}", "statistic": "loss"}}'
        sql(stopped, "INSERT OR REPLACE INTO results SELECT setup, 'model_scores', :at, '' FROM setups", at=content)
        assert "tampered" in said(run_djsb("auto", stopped.study, *PROBE))
        assert untouched(precious)


def link(name: str) -> Callable[[Path, Path], None]:
    """A folder or file of the state that leads elsewhere."""

    def make(state: Path, precious: Path) -> None:
        place = state / name
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(precious if "." not in place.name else precious / "file.npy")

    return make


@pytest.mark.parametrize(
    "name", ["checkpoints", "command", "rows", "paused", "logs", "media", "cache", "cache/x.tmp.npz", "logs/x.log"]
)
def test_a_link_that_leads_out_of_the_state_is_refused(stopped: Tiny, precious: Path, name: str) -> None:
    link(name)(stopped.study / ".djsb", precious)
    with pytest.raises(StoreError, match="by a link"):
        open_study(stopped.study)
    if name == "checkpoints":
        for command in (("auto", *PROBE), ("check",), ("pools",)):
            assert "by a link" in said(run_djsb(command[0], stopped.study, *command[1:]))
    assert untouched(precious)


def test_a_state_that_is_a_link_is_refused(stopped: Tiny, tmp_path: Path, precious: Path) -> None:
    state = stopped.study / ".djsb"
    state.rename(tmp_path / "elsewhere")
    state.symlink_to(tmp_path / "elsewhere")
    for command in ("auto", "status", "rank"):
        assert "by a link" in said(run_djsb(command, stopped.study))


def test_reports_and_recipes_do_not_follow_a_link(stopped: Tiny, precious: Path) -> None:
    (stopped.study / "report").symlink_to(precious)
    assert "by a link" in said(run_djsb("report", stopped.study))
    assert untouched(precious)


def test_what_a_trainer_or_a_data_set_links_is_its_own(stopped: Tiny, precious: Path) -> None:
    for place in ("checkpoints/abcdef0123456789", "command/abcdef0123456789/out", "media/abcdef0123456789/deep"):
        folder = stopped.study / ".djsb" / place
        folder.mkdir(parents=True)
        (folder / "base").symlink_to(precious)
    open_study(stopped.study).store.close()
    assert untouched(precious)
