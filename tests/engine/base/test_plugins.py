"""Plug-ins by their metadata: nothing is imported that is not named, and what is wrong with one is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.commands.plugins import list_plugins
from engine.base import plugins
from engine.data.catalogue import get_op
from engine.tasks.registry import task_named


def package(site: Path, name: str, points: dict[str, str], module: str | None = None, version: str = "1.0") -> None:
    """An installed package: its metadata, and a module of its name."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    text = "".join(f"[djsb.{group}]\n{entry}\n" for group, entry in points.items())
    (folder / "entry_points.txt").write_text(text)
    if module is not None:
        (site / f"{name}.py").write_text(module)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that this Python sees."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def told(*names: str) -> dict[str, str | None]:
    return {row["name"]: row["problem"] for row in list_plugins(names)}


def test_listing_imports_nothing_and_says_what_is_wrong(site: Path) -> None:
    package(site, "bad_one", {"tasks": "bad = bad_one:TASK"}, "raise RuntimeError('no GPU driver')")
    package(site, "gone", {"hooks": "gone = gone.deep:C"})
    package(site, "odd", {"readers": "odd = odd"}, "")
    package(site, "thief", {"tasks": "clip = thief:T", "ops": "text_length_filter = thief:O"}, "")
    package(site, "thief2", {"proposers": "race = thief2:T", "readers": "gz = thief2:R"}, "")
    package(site, "thief3", {"hooks": "mse = thief3:T", "ops": "text_chunk_mapper = thief3:R"}, "")
    package(site, "left", {"tasks": "twin = left:T"}, "")
    package(site, "right", {"tasks": "twin = right:T"}, "")
    found = told()
    assert not {"bad_one", "odd", "thief", "left"} & set(sys.modules)
    assert found["bad"] is None
    assert found["gone"] == "broken: there is no module gone; install gone again"
    assert found["odd"] == "broken: its entry point is 'odd', not module:name"
    assert found["twin"] == "broken: left and right both give it; uninstall one of them"
    for name in ("clip", "text_length_filter", "race", "gz", "mse", "text_chunk_mapper"):
        assert str(found[name]).startswith("refused: "), name
    assert told("bad")["bad"] == (
        "broken: plug-in task bad of bad_one 1.0 cannot be imported (RuntimeError: no GPU driver); "
        "mend or update bad_one"
    )
    with pytest.raises(plugins.PluginError, match="no installed package gives a plug-in 'none'"):
        list_plugins(["none"])


def test_what_is_built_in_is_never_replaced(site: Path) -> None:
    package(site, "thief", {"tasks": "command = thief:T", "ops": "text_length_filter = thief:O"}, "raise SystemExit(9)")
    assert type(task_named("command")).__module__ == "engine.tasks.command.task"
    assert get_op("text_length_filter").by is None
    assert "thief" not in sys.modules


@pytest.mark.parametrize(
    ("group", "value", "why"),
    [
        ("tasks", "object()", "has no traits of type Traits"),
        ("hooks", "object()", "is no Component; give an object, not its class"),
        ("ops", "3", "is no Op of the name wrong"),
        ("proposers", "3", "cannot be called with the name of a stage"),
        ("readers", "print", "is no FileReader"),
    ],
)
def test_what_is_no_plug_in_is_told_with_the_contract(site: Path, group: str, value: str, why: str) -> None:
    package(site, f"of_{group}", {group: f"wrong = of_{group}:X"}, f"X = {value}")
    problem = told("wrong")["wrong"]
    assert problem is not None and why in problem and "(docs/guides/plugins.md)" in problem


def test_an_attribute_that_is_not_there(site: Path) -> None:
    package(site, "empty_one", {"tasks": "lost = empty_one:TASK"}, "")
    assert "has no attribute 'TASK'" in str(told("lost")["lost"])
