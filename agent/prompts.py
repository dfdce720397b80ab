"""Prompts are text files in `prompts/` (in a wheel: of the package)."""

from __future__ import annotations

from pathlib import Path
from string import Template

from engine.base.errors import DjsbError

HERE = Path(__file__).resolve().parent


def prompt(name: str, **values: object) -> str:
    """A prompt with its `$names` filled in. What is filled in is not looked at again."""
    for folder in (HERE / "_prompts", HERE.parent / "prompts"):
        file = folder / f"{name}.md"
        if file.exists():
            return Template(file.read_text(encoding="utf-8")).substitute({k: str(v) for k, v in values.items()})
    raise DjsbError(f"the prompt {name} is missing from the installation; install djsb again")
