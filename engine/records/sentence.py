"""A statement with the evidence that it rests on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sentence:
    """One statement. cites: ids of the pools that it rests on. by: `template`, or `model` with its name."""

    text: str
    cites: tuple[str, ...]
    by: str = "template"
