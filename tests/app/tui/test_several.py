"""The UI in a folder of studies: the list, one opened and left again, two compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from textual.widgets import Static

from app.tui.feed import spawn
from app.tui.reading.studies import StudiesReader
from app.tui.screens.studies import Studies
from app.tui.several import StudiesApp
from app.tui.widgets.beside import Beside
from engine.base.paths import holds_studies
from tests.app.tui.driving import cells, screen, told, until, words
from tests.conftest import Tiny


@pytest.fixture
def folder(probed: Tiny) -> Path:
    """Two studies of the same data, one that has not begun, and one that is broken."""
    shutil.copytree(probed.study, probed.root / "twin")
    probed.set({"name": "begun"}, probed.root / "begun")
    (probed.root / "broken").mkdir()
    (probed.root / "broken" / "study.yaml").write_text("name: [", encoding="utf-8")
    return probed.root


async def test_studies_are_listed_opened_left_and_compared(folder: Path) -> None:
    app = StudiesApp(folder, False, spawn(folder))
    async with app.run_test(size=(160, 40)) as pilot:
        await until(pilot, lambda: app.snapshot and sum(bool(r["best"]) for r in app.snapshot.studies) == 2, "answers")
        rows = {row[1]: row for row in await until(pilot, lambda: cells(app, "#studies"))}
        assert set(rows) == {"begun", "broken", "study", "twin"}
        assert rows["study"][2] == "■ stopped" and "%" in rows["study"][4] and rows["study"][8] == "12 of 12"
        assert rows["broken"][2] == "✗ broken" and "4 studies" in screen(app)
        await pilot.press("2")
        await until(pilot, lambda: told(app, "open a study first"))
        await pilot.press("down", "enter")
        await until(pilot, lambda: told(app, "study.yaml"), "why it is broken")
        assert app.current_mode == "studies" and "✗" in words(app, "#study")

        await pilot.press("down", "space", "space", "v")
        await until(pilot, lambda: isinstance(app.screen, Beside), "the comparison")
        assert "their settings are the same" in str(app.screen.query_one("#beside-told", Static).render())
        assert all(row[1] == row[4] and row[7] == "same" for row in cells(app, "#beside"))
        await pilot.press("escape")

        await pilot.press("enter")
        await until(pilot, lambda: app.snapshot and app.snapshot.board, "the study's leaderboard")
        assert app.current_mode == "overview" and app.folder == folder / "twin"
        await pilot.press("5")
        await until(pilot, lambda: app.current_mode == "trials" and len(cells(app, "#trials")) == 12)
        await pilot.press("slash", "x", "escape")
        assert app.current_mode == "trials"  # it left the filter only
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, Studies))
        await pilot.press("up", "enter")
        await until(pilot, lambda: app.snapshot and len(app.snapshot.trials) == 12 and app.folder == folder / "study")
        await pilot.press("5")
        await until(
            pilot, lambda: app.current_mode == "trials" and len(cells(app, "#trials")) == 12
        )  # without a filter


def test_what_has_not_changed_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    reader = StudiesReader(folder, sent.append)
    while not sent or reader._old or reader._unanswered:
        reader.turn()
    read: list[Path] = []
    monkeypatch.setattr("app.commands.studies.light", lambda one: read.append(one) or {"problem": "x"})
    monkeypatch.setattr("app.tui.reading.studies.LOOK", 0.0)
    reader._due, before = 0.0, len(sent)
    reader.turn()
    assert not read and len(sent) == before
    (folder / "begun" / "study.yaml").write_text("name: other", encoding="utf-8")
    reader._due = 0.0
    reader.turn()
    assert read == [folder / "begun"]
    shutil.rmtree(folder / "begun")
    reader._due = 0.0
    reader.turn()
    assert len(reader._rows) == 3


def test_a_study_holds_no_studies(folder: Path) -> None:
    assert holds_studies(folder) and not holds_studies(folder / "study") and not holds_studies(folder / "none")
