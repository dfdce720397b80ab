"""Where the home folder cannot be written, libraries keep their caches elsewhere, and every command works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.base import home
from engine.base.errors import StudyError
from engine.base.paths import resolve
from tests.app.report.test_page import Fake
from tests.conftest import run_djsb


def test_a_home_that_cannot_be_written_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "new"))
    assert home.is_writable()
    assert not (tmp_path / "new").exists()
    for none in ("/proc/none", "/dev/null"):
        monkeypatch.setenv("HOME", none)
        assert not home.is_writable()


def test_what_a_person_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"HF_HOME": "/mine"})
    home.use_instead(tmp_path)
    assert os.environ["HF_HOME"] == "/mine"
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / "matplotlib")


def test_a_path_that_stands_for_no_folder_is_told(tmp_path: Path) -> None:
    for path in ("~no-such-user/data.jsonl", "a\x00b"):
        with pytest.raises(StudyError, match="names no folder here"):
            resolve(tmp_path, path)


def test_commands_work_without_a_home(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "study")
    fake.probe()
    env = dict.fromkeys(("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"), "") | {"HOME": "/proc/none"}
    for command in ("rank", "status", "report"):
        done = run_djsb(command, fake.folder, env=env, start_new_session=True)
        assert done.returncode == 0, done.stderr
        assert "Matplotlib" not in done.stderr and "/proc/none" not in done.stderr, done.stderr
