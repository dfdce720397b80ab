"""How it looks: legible in every theme, without colour, and at every size."""

from __future__ import annotations

import base64
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.segment import Segment
from textual.color import Color
from textual.widgets import DataTable

from app.tui.app import KEYS, DjsbApp
from app.tui.preferences.themes import THEMES, contrast, styles
from app.tui.reading.thumbnails import SIDE, picture
from app.tui.screens.base import SMALLEST
from app.tui.screens.correlations import groups
from app.tui.screens.recipes import Recipes
from app.tui.screens.trials import Trials
from app.tui.widgets.marks import half_blocks
from app.tui.widgets.table import KeyedTable
from tests.app.tui.driving import prose, screen, shown, toasts, until
from tests.conftest import Tiny

NASTY = "[/x] [red]boom[/red] \x1b[31m $unknown"


def segments(app: Any) -> list[Segment]:
    return [s for strip in app.screen._compositor.render_strips() for s in strip if s.text.strip()]


def hues(app: Any) -> set[str]:
    """Colours on the screen that are no grey."""
    colours = [c for s in segments(app) if s.style for c in (s.style.color, s.style.bgcolor) if c and c.triplet]
    return {c.triplet.hex for c in colours if c.triplet and max(c.triplet) - min(c.triplet) > 2}


@pytest.mark.parametrize("theme", THEMES, ids=lambda t: t.name)
def test_every_named_style_reads_on_every_ground(theme: Any) -> None:
    variables = theme.to_color_system().generate()
    least = 7.0 if theme.name == "djsb-contrast" else 4.5
    for name, style in styles(theme).styles.items():
        if style.color is None or style.color.triplet is None or name.split(".")[0] not in OWN:
            continue
        grounds = [Color.from_rich_color(style.bgcolor)] if style.bgcolor else []
        grounds = grounds or [Color.parse(variables[g]) for g in ("background", "surface", "panel")]
        for ground in grounds:
            wanted = 4.5 if style.bgcolor else least
            assert contrast(Color.from_rich_color(style.color), ground) >= wanted, (name, ground)


OWN = {
    "good", "bad", "warn", "note", "faint", *(f"curve{i}" for i in range(7)),
    *(f"{way}{i}" for way in ("plus", "minus") for i in range(1, 5)),
}  # fmt: skip


def test_the_named_styles_are_all_there() -> None:
    assert set(styles(THEMES[0]).styles) >= OWN


@pytest.mark.parametrize("theme", ["djsb-dark", "djsb-light", "djsb-contrast"])
async def test_every_text_on_every_screen_is_legible(probed: Tiny, theme: str) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        app.theme = theme
        await shown(pilot, app)
        for name in KEYS:
            await app.switch_mode(name)
            await until(pilot, lambda: "Quit" in (screen(app).splitlines() or [""])[-1], f"the footer of {name}")
            await pilot.pause(0.2)
            seen = 0
            for s in segments(app):
                style = s.style
                if style is None or not any(c.isalnum() for c in s.text) or not (style.color and style.bgcolor):
                    continue
                front, back = Color.from_rich_color(style.color), Color.from_rich_color(style.bgcolor)
                assert contrast(front, back) >= 4.0, (name, s.text, str(style))
                seen += 1
            assert seen >= 5


async def test_no_color_leaves_no_hue_and_the_cursor_in_sight(probed: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await shown(pilot, app)
        for name in KEYS:
            await app.switch_mode(name)
            await pilot.pause(0.2)
            assert not hues(app), name
        await app.switch_mode("trials")
        await pilot.press("space")
        await until(pilot, lambda: isinstance(app.screen, Trials) and app.screen.marked, "a mark")
        key = app.screen.query_one("#trials", KeyedTable).current
        assert key and any(line.lstrip().startswith("●") for line in screen(app).splitlines())
        row = next(s for s in segments(app) if s.text.strip() == key[:8])
        assert row.style and (row.style.reverse or row.style.bold)
    monkeypatch.delenv("NO_COLOR")
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await shown(pilot, app)
        assert hues(app)  # so the check above can fail


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (160, 48)])
async def test_head_and_footer_and_columns_fit(probed: Tiny, size: tuple[int, int]) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=size) as pilot:
        await shown(pilot, app)
        for name in KEYS:
            await app.switch_mode(name)
            await until(pilot, lambda: "Quit" in (screen(app).splitlines() or [""])[-1], f"the footer of {name}")
            lines = screen(app).splitlines()
            assert app.screen.title_text in lines[0] and "tiny" in lines[0], name
            for table in app.screen.query(KeyedTable):
                if name != "proposals":
                    assert table.virtual_size.width <= table.size.width, (name, table.virtual_size, table.size)
        await app.switch_mode("overview")
        await pilot.pause(0.2)
        assert ("P(best)" in screen(app)) == (size[0] >= 110)


@pytest.mark.parametrize("size", [(SMALLEST[0] - 1, 40), (200, SMALLEST[1] - 1), (20, 5)])
async def test_a_terminal_too_small_says_so_and_recovers(probed: Tiny, size: tuple[int, int]) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "needs" in screen(app), "the message")
        assert "pool" not in screen(app)
        await pilot.resize_terminal(*SMALLEST)
        await until(pilot, lambda: "needs" not in screen(app) and "text_len" in screen(app), "the screen")


async def test_hostile_text_is_shown_as_it_is(probed: Tiny) -> None:
    with closing(sqlite3.connect(probed.database)) as db:
        db.execute("UPDATE pools SET label = ? WHERE kind = 'single'", (NASTY,))
        db.execute("UPDATE events SET text = ?, subject = ?, kind = 'boom'", (NASTY, NASTY))
        db.execute("UPDATE trials SET error = ?", (NASTY,))
        db.commit()
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await shown(pilot, app)
        for name in KEYS:
            await app.switch_mode(name)
            await pilot.pause(0.3)
            assert "\x1b" not in screen(app)
        await app.switch_mode("log")
        await until(pilot, lambda: "[/x] [red]boom[/red]" in screen(app), "the text")
        await pilot.press("enter")
        await until(pilot, lambda: "about [/x]" in screen(app), "the row in full")


async def test_trials_are_ordered_by_a_click_and_compared(probed: Tiny) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await shown(pilot, app)
        await pilot.press("5")
        pane = app.screen
        assert isinstance(pane, Trials)
        table = pane.query_one("#trials", KeyedTable)
        await until(pilot, lambda: table.row_count, "rows")
        at = next(line for line in screen(app).splitlines() if "seconds" in line).index("seconds")
        for arrow in ("▲", "▼"):
            await pilot.click("#trials", offset=(at + 2, 0))
            await until(pilot, lambda arrow=arrow: f"seconds {arrow}" in screen(app), arrow)
        await pilot.click("#trials", offset=(at + 2, 0))
        await until(pilot, lambda: pane.order is None, "the order of time")
        table.focus()
        await pilot.press("space", "down", "space")
        await until(pilot, lambda: len(pane.marked) == 2, "marks")
        await pilot.press("v")
        await until(pilot, lambda: "2 trials" in screen(app) and "metric accuracy" in screen(app), "the comparison")
        compare = app.screen.query_one("#compare", DataTable)
        every = compare.row_count
        await pilot.press("d")
        await until(pilot, lambda: 0 < compare.row_count < every, "differences only")
        await pilot.press("escape", "g")
        await until(pilot, lambda: ".log" in screen(app), "a worker's log")


async def test_a_recipe_is_copied_and_applied(probed: Tiny, tmp_path: Path) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await shown(pilot, app)
        await pilot.press("6")
        pane = app.screen
        assert isinstance(pane, Recipes) and app.snapshot and app.snapshot.board and app.feed
        pane.pool = app.snapshot.board[0]["pool"]
        pane._wanted = app.feed.ask("recipe", pane.pool)
        await until(pilot, lambda: "process:" in pane.yaml and "process:" in screen(app), "the YAML")
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard == pane.yaml, "the clipboard")
        out = tmp_path / "kept.jsonl"
        await pilot.press("d")
        await until(pilot, lambda: "which dataset" in screen(app), "the question")
        await pilot.press(*"nosuch", "enter")
        await until(pilot, lambda: "no such file" in prose(app), "the check")
        app.screen.query_one("#line").value = str(probed.train_file)
        await pilot.press("enter")
        await until(pilot, lambda: "kept rows" in screen(app), "the second question")
        app.screen.query_one("#line").value = str(out)
        await pilot.press("enter")
        await until(pilot, lambda: out.exists() and "rows_out" in str(toasts(app)), "the result")
        assert 0 < len(out.read_text().splitlines()) < len(probed.rows)


async def test_every_screen_and_action_is_in_the_palette_and_f1_explains(probed: Tiny) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 62)) as pilot:
        await shown(pilot, app)
        commands = {c.title: c for c in app.get_system_commands(app.screen)}
        assert {"Trials: Compare", "Recipes: Apply", "Log: Worker logs", "Correlations", "Freeze"} <= set(commands)
        await commands["Correlations: Statistics/metrics"].callback()
        await until(pilot, lambda: "r of metrics" in screen(app) or "of metrics yet" in screen(app), "metrics")
        for name in KEYS:
            await app.switch_mode(name)
            await pilot.press("f1")
            await until(pilot, lambda: "Escape leaves" in screen(app) and "Quit" in screen(app), f"help of {name}")
            await pilot.press("escape")


def test_clusters_are_named_by_their_most_typical_member() -> None:
    r = [[1, 0.9, 0.5], [0.9, 1, 0.8], [0.5, 0.8, 1]]
    found = {"names": list("abc"), "order": list("cab"), "clusters": dict.fromkeys("abc", 3), "r": r}
    assert groups(found) == [("A", ["b", "a", "c"])]


def test_an_image_becomes_half_blocks(tmp_path: Path) -> None:
    Image.new("RGB", (100, 40), (250, 0, 0)).save(tmp_path / "red.png")
    pixels = picture("red.png", tmp_path, tmp_path)
    assert isinstance(pixels, list) and len(pixels[0]) == SIDE and len(pixels) % 2 == 0
    drawn = half_blocks(pixels)
    assert drawn.plain == ("▀" * SIDE + "\n") * (len(pixels) // 2)
    assert "#fa0000" in str(drawn.spans[0].style)


@pytest.mark.parametrize(
    "content", [b"", b"no image", base64.b64decode("iVBORw0KGgoAAAANSUhEUgAA////"), {"path": "gone.png"}, 7]
)
def test_what_is_no_image_is_told(tmp_path: Path, content: Any) -> None:
    assert "unreadable image" in str(picture([content], tmp_path, tmp_path))


def test_an_image_with_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (8000, 8000)).save(tmp_path / "huge.png")
    assert "8000 × 8000 pixels, more than" in str(picture("huge.png", tmp_path, tmp_path))
    shutil.rmtree(tmp_path, ignore_errors=True)
    assert picture(None, tmp_path, tmp_path) is None
