"""Checkpoints in their authors' layout, written as those of transformers and diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.text.printable import say
from engine.tasks.t2v import videocrafter
from engine.tasks.vlm import original


def convert(source: Path, target: Path, vision: Path | None, tokenizer: Path | None, fps: int) -> dict[str, Any]:
    """Where it was written, and its tensors."""
    if videocrafter.is_videocrafter(source):
        found = videocrafter.convert(source, target, tokenizer, fps)
    else:
        found = original.convert(source, target, vision)
    return {"checkpoint": str(target), "weights": found.line}


def show_converted(found: dict[str, Any]) -> None:
    """As people read it."""
    say(f"{found['weights']}\nwritten    {found['checkpoint']}")
