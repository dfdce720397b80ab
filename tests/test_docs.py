"""Every command, option and study field is documented; so is every table of the store."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel

from app.cli.main import app
from engine.journal.store import Store
from engine.settings.study import Study

DOCS = Path(__file__).resolve().parents[1] / "docs"


def commands() -> dict[str, set[str]]:
    """`djsb …` → its options, read from the command line itself."""
    found: dict[str, set[str]] = {}

    def walk(command: object, name: str) -> None:
        for sub, child in getattr(command, "commands", {}).items():
            walk(child, f"{name} {sub}")
        if not getattr(command, "commands", None):
            found[name] = {
                o
                for p in command.params
                for o in p.opts
                if o.startswith("--") and o != "--help"  # type: ignore[attr-defined]
            }

    walk(typer.main.get_command(app), "djsb")
    return found


def test_every_command_and_option_is_documented() -> None:
    lines = (DOCS / "reference" / "commands.md").read_text().splitlines()
    for name, options in commands().items():
        row = next((line for line in lines if re.match(rf"\| `{re.escape(name)}[ `]", line)), None)
        assert row is not None, f"{name} is missing in docs/reference/commands.md"
        missing = {o for o in options if f"`{o}`" not in row}
        assert not missing, f"{name}: {missing} missing in docs/reference/commands.md"


def fields(section: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += fields(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def test_every_field_of_the_study_is_documented() -> None:
    text = (DOCS / "reference" / "study.md").read_text()
    missing = [f for f in fields(Study) if f"| `{f}` |" not in text]
    assert not missing


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
