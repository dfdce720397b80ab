"""What the reference takes from the code is as the code says; every command and table is explained."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import typer.main

from app.cli.main import app
from engine.journal.store import Store
from engine.settings.study import Study

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize("page", ["commands.md", "study.md", "store.md"])
def test_the_reference_says_what_the_code_says(page: str) -> None:
    space: dict[str, Any] = runpy.run_path(str(DOCS / "reference" / "make.py"))
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert space["with_part"](page) == text, "run python docs/reference/make.py"
    assert {name.partition(".")[0] for name in space["SEE"]} <= set(Study.model_fields)


def test_every_command_is_explained() -> None:
    space: dict[str, Any] = runpy.run_path(str(DOCS / "reference" / "make.py"))
    text = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    names = [name for name, _ in space["leaves"](typer.main.get_command(app), "djsb")]
    assert len(names) > 30
    assert not [n for n in names if not re.search(rf"^\| \[`{n}[ `].*\(#{n.replace(' ', '-')}\) \|", text, re.M)]


def test_every_table_of_the_store_is_documented(tmp_path: Path) -> None:
    text = (DOCS / "reference" / "store.md").read_text()
    with Store(tmp_path / "s.db") as store:
        tables = [t for t in store.db.table_names() if not t.startswith(("_", "sqlite_"))]
    assert tables
    assert not [t for t in tables if f"| `{t}` |" not in text]


def test_every_op_is_documented() -> None:
    space: dict[str, Any] = runpy.run_path(str(DOCS / "guides" / "ops.py"))
    text = (DOCS / "guides" / "ops.md").read_text(encoding="utf-8")
    assert space["table"]() in text, "run python docs/guides/ops.py"
