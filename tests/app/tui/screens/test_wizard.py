"""The first run: from a folder without a study to a running engine; and a study that has not run yet."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from textual.pilot import Pilot
from textual.widgets import Button, Input, OptionList, Select, SelectionList

import engine.demo.images
from app.tui.app import DjsbApp
from app.tui.run import run_tui
from app.tui.screens.overview import Overview
from app.tui.screens.wizard import Wizard
from engine.base.errors import StudyError
from engine.study.lock import engine_pid
from tests.app.tui.driving import told, until, words
from tests.conftest import Tiny

SIZE = (80, 24)


def wizard(app: DjsbApp) -> Wizard:
    assert isinstance(app.screen, Wizard)
    return app.screen


async def at_step(pilot: Pilot[Any], app: DjsbApp, step: str) -> Wizard:
    await until(pilot, lambda: isinstance(app.screen, Wizard) and app.screen.step == step, f"step {step}")
    return wizard(app)


async def end_engine(pilot: Pilot[Any], study: Path) -> None:
    """End the engine that the UI has started."""
    pid = await until(pilot, lambda: engine_pid(study / ".djsb") if (study / ".djsb").exists() else None, "an engine")
    os.kill(pid, signal.SIGTERM)
    await until(pilot, lambda: engine_pid(study / ".djsb") is None, "the engine's end")


async def test_own_data_become_a_running_study(tiny: Tiny) -> None:
    study = tiny.root / "fresh"
    app = DjsbApp(study)
    async with app.run_test(size=SIZE) as pilot:
        await at_step(pilot, app, "begin")
        await pilot.press("down", "enter")
        at = await at_step(pilot, app, "data")
        await pilot.press("enter")
        await until(pilot, lambda: "name the file" in words(app, "#wrong"), "what is missing")
        at.query_one("#path", Input).value = str(tiny.root / "gone.jsonl")
        await pilot.press("enter")
        await until(pilot, lambda: "no such file" in words(app, "#wrong"), "what is wrong")
        at.query_one("#path", Input).value = str(tiny.train_file)
        at.query_one("#eval", Input).value = str(tiny.train_file)
        await pilot.press("enter")
        await until(pilot, lambda: "hold some rows out" in words(app, "#wrong"), "what is wrong")
        at.query_one("#eval", Input).value = str(tiny.test_file)
        await pilot.press("enter")
        await at_step(pilot, app, "ops")
        assert "text=text, images=images, id=id" in words(app, "#fields")
        assert "left out: perplexity_filter: needs" in words(app, "#left-text")
        ops = at.query_one("#op-list", SelectionList)
        assert "text_length_filter" in ops.selected
        await pilot.press("ctrl+a", "ctrl+n")
        await until(pilot, lambda: "at least one" in words(app, "#wrong"), "that an OP is needed")
        for name in ("text_length_filter", "words_num_filter"):
            ops.select(name)
        await pilot.press("ctrl+n")
        await at_step(pilot, app, "run")
        await pilot.press("escape")
        await at_step(pilot, app, "ops")
        await pilot.press("ctrl+n")
        at.query_one("#budget", Input).value = "8 bananas"
        await until(pilot, lambda: "not an amount of device time" in words(app, "#budget-wrong"), "what is wrong")
        assert at.query_one("#next", Button).disabled
        at.query_one("#budget", Input).value = "5min"
        at.query_one("#approve", Select).value = "hold"
        await until(pilot, lambda: not at.query_one("#next", Button).disabled, "a way on")
        assert not study.exists(), "something was written before the last step"
        await pilot.press("ctrl+n")
        await until(pilot, lambda: isinstance(app.screen, Overview), "the overview")
        await until(pilot, lambda: app.snapshot and app.snapshot.engine, "a running engine")
        assert app.snapshot is not None
        assert app.snapshot.state in ("starting", "running")
        await until(pilot, lambda: "▶" in words(app, "#head"), "that it starts")
        await end_engine(pilot, study)
    written = yaml.safe_load((study / "study.yaml").read_text())
    assert (written["budget"], written["approve"], written["task"]) == ("5min", "hold", "clip")
    assert list(written["ops"]) == ["text_length_filter", "words_num_filter"]
    assert written["dataset"]["path"] == os.path.relpath(tiny.train_file, study)
    assert written["evaluation"]["label"] == "label"


async def test_the_demo_is_made_and_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(engine.demo.images.make_demo, rows=60, test_rows=20)
    monkeypatch.setattr("engine.demo.images.make_demo", small)
    started: list[Path] = []
    monkeypatch.setattr(DjsbApp, "action_start_engine", lambda self: started.append(self.folder))
    study = tmp_path / "demo"
    (study / "data").mkdir(parents=True)
    (study / "data" / "mine.txt").write_text("kept")
    app = DjsbApp(study)
    async with app.run_test(size=SIZE) as pilot:
        at = await at_step(pilot, app, "begin")
        assert at.query_one("#choice", OptionList).highlighted == 0
        await pilot.press("enter")
        await at_step(pilot, app, "run")
        assert at.query_one("#budget", Input).value == "20min"
        at.query_one("#budget", Input).value = "3min"
        await pilot.press("enter")
        await until(pilot, lambda: "is not a demo" in words(app, "#wrong"), "what is wrong")
        assert not (study / "study.yaml").exists()
        (study / "data" / "mine.txt").unlink()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Overview), "the overview")
        await until(pilot, lambda: app.snapshot and app.snapshot.state == "not started", "the study")
    assert started == [study]
    written = yaml.safe_load((study / "study.yaml").read_text())
    assert (written["task"], written["budget"], written["approve"]) == ("clip", "3min", "auto")
    assert len((study / "data" / "train.jsonl").read_text().splitlines()) == 60


async def test_without_evaluation_nothing_is_trained(tiny: Tiny) -> None:
    study = tiny.root / "fresh"
    app = DjsbApp(study)
    async with app.run_test(size=SIZE) as pilot:
        await at_step(pilot, app, "begin")
        await pilot.press("down", "enter")
        at = await at_step(pilot, app, "data")
        at.query_one("#path", Input).value = str(tiny.train_file)
        await pilot.press("enter")
        await at_step(pilot, app, "ops")
        await pilot.press("ctrl+n", "ctrl+n")
        await until(pilot, lambda: isinstance(app.screen, Overview), "the overview")
        await until(pilot, lambda: told(app, "djsb pools computes its statistics"), "what there is to do")
    assert yaml.safe_load((study / "study.yaml").read_text())["task"] is None
    assert not (study / ".djsb" / "study.db").exists()


async def test_escape_leaves_the_first_step_and_writes_nothing(tmp_path: Path) -> None:
    app = DjsbApp(tmp_path / "none")
    async with app.run_test(size=SIZE) as pilot:
        await at_step(pilot, app, "begin")
        await pilot.press("1")
        wizard(app)
        await pilot.press("escape")
        await until(pilot, lambda: app._exit, "the end")
    assert not (tmp_path / "none").exists()


async def test_a_study_that_never_ran_opens_and_s_starts_its_engine(tiny: Tiny) -> None:
    app = DjsbApp(tiny.study)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.snapshot and app.snapshot.state == "not started", "the study")
        await until(pilot, lambda: "not started: s on the overview" in words(app, "#head"), "how to go on")
        await pilot.press("4")
        await until(pilot, lambda: "nothing is proposed here" in words(app, "#proposal"), "an empty queue")
        await pilot.press("1", "s")
        await end_engine(pilot, tiny.study)
    assert tiny.database.exists()


async def test_a_study_file_that_is_wrong_is_one_line(tiny: Tiny) -> None:
    (tiny.study / "study.yaml").write_text("name: 3\n")
    app = DjsbApp(tiny.study)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.snapshot and "dataset: is missing" in app.snapshot.problem, "what is wrong")
        await until(pilot, lambda: "dataset: is missing" in words(app, "#trouble"), "it on the screen")


def test_a_file_is_no_folder_for_a_study(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    with pytest.raises(StudyError, match="is a file"):
        run_tui(tiny.train_file, bell=False)
    (tiny.study / "study.yaml").write_text("name: 3\n")
    with pytest.raises(StudyError, match="dataset: is missing"):
        run_tui(tiny.study, bell=False)
