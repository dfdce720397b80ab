"""A person's settings: read, remembered, and never in the way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from textual.binding import Binding

from app.tui.app import BINDINGS, DjsbApp
from app.tui.preferences import config, keymap
from tests.app.tui.driving import screen, shown, toasts, told, until
from tests.app.tui.sample import SampleApp
from tests.conftest import Tiny

DOCS = Path(__file__).resolve().parents[4] / "docs" / "guides" / "tui.md"


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_without_a_file_the_defaults_hold() -> None:
    assert config.read_config() == (config.Config(), None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("theme: [", "not YAML"),
        ("- a list", "the file"),
        ("bell: perhaps", "bell"),
        ("colour: blue", "colour"),
        ("keys: {app.quit: 7}", "keys.app.quit"),
        ("\x00", "not YAML"),
        ("&a [*a, *a", "not YAML"),
    ],
)
def test_a_broken_file_costs_one_line_and_gives_the_defaults(settings: Path, text: str, said: str) -> None:
    write(settings, text)
    found, problem = config.read_config()
    assert found == config.Config()
    assert problem is not None and said in problem and str(settings) in problem and "\n" not in problem


def test_a_folder_in_the_files_place_is_told(settings: Path) -> None:
    settings.mkdir(parents=True)
    found, problem = config.read_config()
    assert found == config.Config() and problem is not None and "Is a directory" in problem


async def test_a_broken_file_is_a_toast_in_a_ui_that_works(settings: Path, tmp_path: Path) -> None:
    write(settings, "theme: [")
    app = SampleApp(tmp_path)
    async with app.run_test() as pilot:
        await until(pilot, lambda: told(app, "not YAML"), "a toast")
        assert app.theme == config.THEME


async def test_unknown_ids_and_themes_and_clashes_are_named(settings: Path, tmp_path: Path) -> None:
    write(settings, "theme: nosuch\nkeys: {app.nosuch: x, engine.stop: s, app.freeze: z}")
    app = SampleApp(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: told(app, "nosuch"), "toasts")
        said = "\n".join(toasts(app))
        assert "no theme 'nosuch'" in said and "no binding 'app.nosuch'" in said
        assert "s is both" in said and "engine.stop" in said and "engine.start" in said
        await pilot.press("z")
        assert app.frozen  # what is sound is used all the same


def test_a_key_may_serve_two_screens_but_not_twice_on_one() -> None:
    assert keymap.usable({"log.search": "m"}, BINDINGS) == ({"log.search": "m"}, [])
    taken, said = keymap.usable({"log.search": "q"}, BINDINGS)
    assert taken == {} and "q is both" in said[0]


def test_no_default_key_is_used_twice() -> None:
    ids = {b.id: b.key for found in BINDINGS.values() for b in found if isinstance(b, Binding) and b.id}
    assert keymap.usable(ids, BINDINGS) == (ids, [])


async def test_a_persons_keys_work_and_are_shown(settings: Path, probed: Tiny) -> None:
    write(settings, "keys: {mode.trials: z, correlations.other: f5}")
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await shown(pilot, app)
        await pilot.press("z")
        await until(pilot, lambda: app.current_mode == "trials", "the trials")
        await pilot.press("3")
        await until(pilot, lambda: "f5 Statistics" in screen(app), "the footer with the key")
        await pilot.press("f1")
        await until(pilot, lambda: re.search(r"f5 +Statistics/metrics", screen(app)), "the help with the key")


async def test_the_theme_is_remembered_and_the_rest_of_the_file_stays(settings: Path, tmp_path: Path) -> None:
    write(settings, "# mine\nbell: true\ntheme: djsb-dark # night\ndensity: compact\n")
    app = SampleApp(tmp_path)
    async with app.run_test() as pilot:
        app.theme = "djsb-light"
        await pilot.pause()
    assert settings.read_text(encoding="utf-8") == "# mine\nbell: true\ntheme: djsb-light\ndensity: compact\n"
    again = SampleApp(tmp_path)
    assert again.theme == "djsb-light" and again.bell_wanted and again.has_class("-compact")


async def test_a_linked_file_stays_a_link_and_a_broken_one_is_left(settings: Path, tmp_path: Path) -> None:
    real = write(tmp_path / "dotfiles" / "tui.yaml", "bell: true\n")
    settings.parent.mkdir(parents=True)
    settings.symlink_to(real)
    assert config.remember_theme("nord") is None
    assert settings.is_symlink() and real.read_text() == "bell: true\ntheme: nord\n"
    real.write_text("bell: [")
    assert "not kept" in str(config.remember_theme("djsb-light"))
    assert real.read_text() == "bell: ["


def test_a_folder_that_cannot_be_made_is_told(settings: Path) -> None:
    write(settings.parent, "a file where the folder should be")
    assert "not kept" in str(config.remember_theme("nord"))


async def test_only_the_settings_are_written(settings: Path, probed: Tiny) -> None:
    def files() -> dict[str, int]:
        kept = (p for p in probed.root.rglob("*") if p.is_file() and not p.name.startswith("study.db-"))
        return {str(p): p.stat().st_mtime_ns for p in kept}

    before = files()
    app = DjsbApp(probed.study)
    async with app.run_test() as pilot:
        await shown(pilot, app)
        for key in "1234567":
            await pilot.press(key)
            await pilot.pause(0.1)
        app.theme = "djsb-light"
        await pilot.pause()
    assert files() == before
    assert sorted(p.name for p in settings.parent.iterdir()) == ["looks.json", "tui.yaml"]


async def test_what_is_new_since_the_last_look_is_told(probed: Tiny) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await shown(pilot, app)
        assert "since you last looked" not in screen(app)
        first = app.snapshot.board[0] if app.snapshot and app.snapshot.board else {}
    file = config.config_file().with_name("looks.json")
    looks = json.loads(file.read_text())
    looks[str(probed.study)]["event"] -= 1
    looks[str(probed.study)]["board"][first["pool"]] = [7, "hurts"]
    file.write_text(json.dumps(looks))
    app = DjsbApp(probed.study)
    async with app.run_test(size=(120, 36)) as pilot:
        await shown(pilot, app)
        await until(pilot, lambda: "1 event(s)" in screen(app), "the news")
        assert f"hurts → {first['verdict']}, place 7 → 1" in screen(app)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"STUDY": 3}', '{"STUDY": {"event": 1, "board": {"a": 3}}}'])
def test_a_damaged_record_of_looks_is_no_look(settings: Path, tmp_path: Path, text: str) -> None:
    write(settings.with_name("looks.json"), text.replace("STUDY", str(tmp_path)))
    assert config.last_look(tmp_path) == {}


def test_every_binding_and_field_is_documented() -> None:
    text = DOCS.read_text()
    assert not [i for i in keymap.known(BINDINGS) if f"| `{i}` |" not in text]
    assert not [f for f in config.Config.model_fields if f"| `{f}` |" not in text]


def test_every_binding_has_an_id_and_a_description() -> None:
    for name, found in BINDINGS.items():
        for b in found:
            assert isinstance(b, Binding) and b.id and b.description, (name, b)
