"""What a person can do in the UI: on the sample where nothing is written, with a real engine where it is."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input, Static, Tree

from app.text.numbers import folded
from app.tui.app import KEYS, Answered, Came, DjsbApp
from app.tui.widgets.dialogs import AskLine, Help
from app.tui.widgets.kept import Kept
from app.tui.widgets.table import KeyedTable
from engine.journal.store import Store
from engine.study.lock import engine_pid
from tests.app.tui.driving import until
from tests.app.tui.sample import BOARD, SNAPSHOT, YAML, SampleApp
from tests.conftest import Tiny


async def test_every_screen_by_key_and_by_palette() -> None:
    app = SampleApp()
    async with app.run_test() as pilot:
        for mode, (key, _) in KEYS.items():
            await pilot.press(key)
            assert app.current_mode == mode
        for mode, (_, pane) in KEYS.items():
            await pilot.press("ctrl+p")
            await pilot.pause()
            await pilot.press(*pane.title_text)
            await until(pilot, lambda p=pane: app.screen.query("CommandList Option, #--results") and True)
            await until(pilot, lambda: app.screen.query_one("CommandList").option_count > 0)  # type: ignore[attr-defined]
            await pilot.press("enter", "enter")
            await until(pilot, lambda m=mode: app.current_mode == m)


def test_an_answer_that_comes_when_no_screen_is_up_any_more_is_dropped(tmp_path: Path) -> None:
    DjsbApp(tmp_path).on_answered(Answered(1, {}))


async def test_frozen_tables_stand_still_while_the_header_lives() -> None:
    app = SampleApp()
    async with app.run_test(size=(160, 48)) as pilot:
        await pilot.pause()
        table = app.screen.query_one("#board", KeyedTable)
        before = list(table.keys)
        await pilot.press("f")
        app.post_message(Came(replace(SNAPSHOT, board=BOARD[::-1], spent=2400.0)))
        await pilot.pause()
        head = str(app.screen.query_one("#head", Static).render())
        assert "40 min" in head and "FROZEN" in head
        assert table.keys == before
        await pilot.press("f")
        await pilot.pause()
        assert table.keys == before[::-1]
        assert "FROZEN" not in str(app.screen.query_one("#head", Static).render())


async def test_dropped_pools_are_folded_until_they_are_asked_for() -> None:
    app = SampleApp()
    async with app.run_test(size=(160, 48)) as pilot:
        await pilot.pause()
        table = app.screen.query_one("#board", KeyedTable)
        hidden = {r["pool"] for r in BOARD if folded(r)}
        assert hidden and not hidden & set(table.keys)
        assert any(r["dropped"] and r["verdict"] == "hurts" and r["pool"] in table.keys for r in BOARD)
        await pilot.press("d")
        await pilot.pause()
        assert set(table.keys) == {r["pool"] for r in BOARD}


@pytest.mark.parametrize("screen", ["1", "6"])
async def test_a_pools_contents_are_shown_in_a_window(screen: str) -> None:
    app = SampleApp()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press(screen)
        await pilot.pause()
        await pilot.press("c")
        await pilot.pause()
        assert isinstance(app.screen, Kept)
        with app.console.capture() as drawn:
            app.console.print(app.screen.query_one("#kept-text", Static).content)
        told = drawn.get()
        for part in ("keeps 2,310 of 9,000 rows (25.7 %)", "the word 'hashtag'", "num_words", "row 8", "#sky"):
            assert part in told
        known = str(app.screen.query_one("#kept-known", Static).content)
        assert "confirmed on 5 fresh seeds: +31.8 %, at least +16.6 %; in the search:" in known
        assert "fresh seeds are expected to show +25.4 %" in known and "zero_shot: 0.5272, of the control 0.4" in known
        await pilot.press("escape")


async def test_f1_explains_the_screen_and_its_keys() -> None:
    app = SampleApp()
    async with app.run_test(size=(160, 48)) as pilot:
        for _, (key, pane) in KEYS.items():
            await pilot.press(key, "f1")
            await pilot.pause()
            assert isinstance(app.screen, Help)
            told = "\n".join(str(s.render()) for s in app.screen.query(Static))
            assert pane.help_text.split("\n")[0] in told
            assert not [b for b in pane.BINDINGS if b.id and b.description not in told]  # type: ignore[union-attr]
            await pilot.press("escape")


async def test_a_recipe_is_copied_and_written(tmp_path: Path) -> None:
    app = SampleApp(tmp_path)
    async with app.run_test(size=(160, 48)) as pilot:
        await pilot.press("6")
        await pilot.pause()
        tree = app.screen.query_one("#lattice", Tree)
        node = tree.root.children[1].children[0]
        tree.move_cursor(node)
        await pilot.pause()
        await pilot.press("y", "w")
        await pilot.pause()
        assert app.clipboard == YAML
        assert (tmp_path / f"recipe-{node.data}.yaml").read_text() == YAML


async def test_trials_are_filtered_marked_and_ordered() -> None:
    app = SampleApp()
    async with app.run_test(size=(160, 48)) as pilot:
        await pilot.press("5")
        await pilot.pause()
        table = app.screen.query_one("#trials", KeyedTable)
        await pilot.press("down", "space")
        marked = table.current
        assert marked and str(table.get_row(marked)[0]) == "●"
        await pilot.press("slash", *"num_words complete")
        await pilot.pause()
        shown = [table.get_row(k) for k in table.keys]
        assert 0 < len(shown) < 12 and all("num_words" in str(r[2]) and "done" in str(r[6]) for r in shown)
        app.screen.query_one(Input).value = ""
        await pilot.press("escape", *["o"] * 5)
        await pilot.pause()
        seeds = [int(str(table.get_row(k)[4])) for k in table.keys]
        assert seeds == sorted(seeds) and len(seeds) == len(SNAPSHOT.trials)


async def test_requests_without_an_engine_are_not_made(stopped: Tiny) -> None:
    app = DjsbApp(stopped.study)
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.snapshot and app.snapshot.name)
        await pilot.press("x")
        await pilot.pause()
        with Store(stopped.database, readonly=True) as store:
            assert not store.query("SELECT 1 FROM requests")
        assert any("no engine runs" in n.message for n in app._notifications)


@pytest.mark.slow
async def test_a_real_engine_is_started_paused_resumed_and_stopped(stopped: Tiny) -> None:
    """Another study than the stopped one: its trials take long enough to be cancelled."""
    stopped.set({"train": {"micro_batch": 8, "epochs": 20}})
    app = DjsbApp(stopped.study)
    try:
        await _use_every_request(app, stopped)
    finally:
        if pid := engine_pid(stopped.study / ".djsb"):
            os.kill(pid, signal.SIGINT)


async def _use_every_request(app: DjsbApp, stopped: Tiny) -> None:
    async with app.run_test(size=(160, 48)) as pilot:

        def now() -> Any:
            return app.snapshot

        def outcomes(kind: str) -> list[str]:
            with Store(stopped.database, readonly=True) as store:
                rows = store.query("SELECT outcome FROM requests WHERE kind = ? ORDER BY id", (kind,))
            return [r["outcome"] for r in rows]

        await until(pilot, lambda: now() and now().name)
        await pilot.press("s")
        await until(pilot, lambda: now().running and now().state == "running")
        engine = now().engine
        assert engine
        await pilot.press("s")
        await pilot.pause()
        assert any("runs already" in n.message for n in app._notifications)

        await pilot.press("p")
        await until(pilot, lambda: now().state == "paused")
        await pilot.press("p")
        await until(pilot, lambda: now().state == "running")
        assert outcomes("pause") == ["running trials finish, nothing more starts"]
        assert outcomes("resume") == ["goes on"]

        await pilot.press("b")
        await until(pilot, lambda: isinstance(app.screen, AskLine))
        await pilot.press(*"much", "enter")
        await until(pilot, lambda: "not an amount" in str(app.screen.query_one("#problem", Static).render()))
        app.screen.query_one(Input).value = "2h"
        await pilot.press("enter")
        await until(pilot, lambda: now().limit == 7200)
        assert outcomes("budget") == ["from now on"]

        await pilot.press("5")
        table = app.screen.query_one("#trials", KeyedTable)
        await until(pilot, lambda: any(t["state"] == "WAITING" for t in now().trials))
        waiting = next(t["id"] for t in reversed(now().trials) if t["state"] == "WAITING")
        await until(pilot, lambda: waiting in table.keys)
        table.move_cursor(table.keys.index(waiting))
        await pilot.press("k")
        await until(pilot, lambda: outcomes("cancel") and outcomes("cancel")[0])
        await until(
            pilot, lambda: next(t["state"] for t in now().trials if t["id"] == waiting) in ("CANCELLED", "COMPLETE")
        )

        await pilot.press("1", "x")
        await until(pilot, lambda: now().engine is None)
        assert outcomes("stop") == ["running trials finish, then the engine ends"]
        assert now().state == "no engine"
