"""Prompts are text files in `prompts/`."""

from __future__ import annotations

from string import Template

from engine.base.errors import DjsbError
from engine.base.paths import HOME


def prompt(name: str, **values: object) -> str:
    """A prompt with its `$names` filled in. What is filled in is not looked at again."""
    file = HOME / "prompts" / f"{name}.md"
    if not file.exists():
        raise DjsbError(f"the prompt {name} is missing from the installation; install djsb again")
    return Template(file.read_text(encoding="utf-8")).substitute({k: str(v) for k, v in values.items()})
