"""Every screen at two sizes, on the sample: what its widgets hold, and how it looks.

A picture alone proves little: a screen that failed to start has one, too. So the widgets are asked as well.
`pytest tests/app/tui/test_screens.py --snapshot-update` draws the pictures anew; look at them before they are kept.
"""

from __future__ import annotations

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static, Tree

from agent.connection import missing
from app.commands.chat import Conversation
from app.tui.app import KEYS
from app.tui.screens.base import Pane
from app.tui.widgets.heat import Heat
from app.tui.widgets.table import KeyedTable
from engine.settings.running import AgentSection
from tests.app.tui.sample import BOARD, EVENTS, NAMES, PROPOSALS, TRIALS, YAML, SampleApp

SIZES = [(80, 24), (160, 48)]


def text(screen: Pane, selector: str) -> str:
    """What a text widget shows."""
    return str(screen.query_one(selector, Static).render())


def drawn(screen: Pane, selector: str) -> str:
    """What a widget shows of something that is more than a text."""
    with screen.app.console.capture() as found:
        screen.app.console.print(screen.query_one(selector, Static).content)
    return found.get()


def rows(screen: Pane, selector: str) -> list[str]:
    """A table's rows, each as one text."""
    table = screen.query_one(selector, KeyedTable)
    return [" ".join(map(str, table.get_row(key))) for key in table.keys]


async def shown(pilot: Pilot[None], mode: str) -> Pane:
    """The screen of a mode, when everything that it asked for has come."""
    await pilot.press(KEYS[mode][0])
    await pilot.pause()
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()
    assert isinstance(pilot.app.screen, Pane)
    return pilot.app.screen


def check_overview(screen: Pane) -> None:
    assert "combine" in text(screen, "#stages") and "1 failed" in text(screen, "#stages")
    assert "39 min of 60 min left" in text(screen, "#stages")
    assert text(screen, "#running").count("seed") == 2
    board = rows(screen, "#board")
    assert len(board) == 10 and "mid ●" in board[0] and "▲" in board[0]
    assert "against all your data: +4.1 %" in text(screen, "#answer")
    assert "Repetition and words" in text(screen, "#news")


def check_ops(screen: Pane) -> None:
    assert [r.split()[0] for r in rows(screen, "#matrix")] == [
        "char_rep_ratio", "num_words", "text_len", "special_char_ratio", "aspect_ratio", "image_height",
    ]  # fmt: skip
    assert "bounds: 40, 80" in text(screen, "#histogram")
    assert "a small mid picture" in drawn(screen, "#rows")


def check_correlations(screen: Pane) -> None:
    assert [name.split()[1] for name in screen.query_one("#heat", Heat).names] == list(NAMES)
    assert "C · aspect_ratio (2): image_height" in text(screen, "#cluster-names")


def check_proposals(screen: Pane) -> None:
    queue = screen.query_one("#queue", KeyedTable)
    assert set(queue.keys) == {p["id"] for p in PROPOSALS}
    assert {p["id"] for p in PROPOSALS if p["status"] in ("queued", "held")} == set(queue.keys[:2])
    assert PROPOSALS[2]["content"]["reason"] in text(screen, "#proposal")


def check_trials(screen: Pane) -> None:
    table = screen.query_one("#trials", KeyedTable)
    assert table.keys == [t["id"] for t in TRIALS] and table.current == TRIALS[0]["id"]
    assert "0.4142" in text(screen, "#detail")


def check_recipes(screen: Pane) -> None:
    tree = screen.query_one("#lattice", Tree)
    labels = [str(node.label) for group in tree.root.children for node in group.children]
    assert tree.cursor_node and tree.cursor_node.data == BOARD[0]["pool"]
    assert len(labels) == 1 + 4 + 4 and any("repetition" in str(g.label) for g in tree.root.children)


def check_log(screen: Pane) -> None:
    assert screen.query_one("#events", KeyedTable).keys == [str(e["id"]) for e in EVENTS]
    assert "the worker on cpu0 died" in rows(screen, "#events")[3]


def check_chat(screen: Pane) -> None:
    assert screen.query_one("#ask", Input).disabled
    assert "Everything else works without one" in text(screen, "#talk Static")


def check_pipelines(screen: Pane) -> None:
    runs = screen.query_one("#jobs", Tree).root.children
    assert [str(run.label) for run in runs] == ["demo / words · running", "demo / lengths · failed"]
    variants = [str(node.label) for node in runs[0].children]
    assert variants[0] == 'variant 1 · COMPLETE · 0.25 · {"min_num": 5}' and len(variants) == 3
    assert str(runs[1].children[1].children[0].label) == "✗ slice  process_data"
    assert "choose a job in the tree" in text(screen, "#job")


def check_system(screen: Pane) -> None:
    machine = text(screen, "#machine")
    assert "52 % of 16 cores" in machine and "5.52 GB: cache 4.2 GB, checkpoints" in machine
    assert "93 %, 31 GB of 150 GB, 402 W, 61 °C  NVIDIA H200" in machine and "GPU 1" in machine
    assert len(rows(screen, "#live")) == 2
    kept = rows(screen, "#kept")
    assert len(kept) == 4 and "101 / 98" in kept[0] and "31 GB / 29 GB" in kept[0]


CHECKS = {
    "overview": check_overview, "ops": check_ops, "correlations": check_correlations, "proposals": check_proposals,
    "trials": check_trials, "recipes": check_recipes, "log": check_log, "chat": check_chat,
    "pipelines": check_pipelines, "system": check_system,
}  # fmt: skip


def test_every_screen_is_checked() -> None:
    assert CHECKS.keys() == KEYS.keys()
    assert len(BOARD) == 12 and YAML


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample has no study file, and why differs by folder; so its study is one that names no model."""
    monkeypatch.setattr(Conversation, "missing", lambda self: missing(AgentSection()))


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("mode", KEYS)
def test_screen(mode: str, size: tuple[int, int], snap_compare) -> None:  # type: ignore[no-untyped-def]
    problems: list[BaseException] = []
    looked: list[str] = []

    async def look(pilot: Pilot[None]) -> None:
        try:
            CHECKS[mode](await shown(pilot, mode))
        except BaseException as problem:
            problems.append(problem)
        looked.append(mode)

    same = snap_compare(SampleApp(), terminal_size=size, run_before=look)
    if problems:
        raise problems[0]
    assert looked == [mode]
    assert same
