"""Checkpoints in their authors' layout, written as those of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.text.printable import say
from engine.tasks.vlm import original


def convert(source: Path, target: Path, vision: Path | None) -> dict[str, Any]:
    """Where it was written, and its tensors."""
    return {"checkpoint": str(target), "weights": original.convert(source, target, vision).line}


def show_converted(found: dict[str, Any]) -> None:
    """As people read it."""
    say(f"{found['weights']}\nwritten    {found['checkpoint']}")
