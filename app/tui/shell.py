"""What a screen may ask of the app that it stands in; screens and windows know this, not the app."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from textual.dom import DOMNode

    from app.tui.reading.snapshot import Snapshot
    from engine.journal.requests import Kind


class Source(Protocol):
    """What the UI needs of where its data come from; a recording that is played is one, too."""

    def ask(self, what: str, *arguments: Any) -> int:
        """Ask for details; the number under which the answer comes."""
        ...

    def close(self) -> None:
        """End it at once."""
        ...


class Shell(Protocol):
    """The app, as a screen sees it. look: what was there when the study was last looked at, as config.last_look."""

    folder: Path
    snapshot: Snapshot | None
    feed: Source | None
    frozen: bool
    look: Mapping[str, Any]

    def begin(self, trains: bool) -> None:
        """The first study is written: watch it, and start its engine where there is something to train."""

    def request(self, kind: Kind, argument: str | None = None) -> None:
        """Ask the running engine for something."""

    def decide(self, proposals: list[str], verdict: str, why: str) -> Any:
        """Record a decision on each."""

    def undo(self, proposals: list[str]) -> Any:
        """Take decisions back while nothing of them has started."""

    def suggest(self, content: Any) -> Any:
        """Put a person's proposal to the gate and queue it."""

    def edit(self, proposal: str, content: Any) -> Any:
        """Put an edited version in a proposal's place."""


def shell(node: DOMNode) -> Shell:
    """The app that a screen or a widget stands in."""
    return cast("Shell", node.app)
