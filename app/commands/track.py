"""`djsb track`: what a study has come to, in trackers of experiments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.text.printable import say
from engine.journal.store import Row
from engine.settings.track import Kind
from engine.study.view import view_study
from engine.track.process import Trackers
from engine.track.targets import targets


def track(folder: Path, kinds: Sequence[Kind], project: str | None, uri: str | None) -> list[Row]:
    """Export a study to its trackers, or to these; what each came to, and what went wrong."""
    view = view_study(folder)
    with view.store:
        chosen = targets(view.study, view.folder, kinds, uri, project)
    trackers = Trackers(chosen)
    trackers.close()
    return [
        {"tracker": c.target.kind, "project": c.target.project, "trials": c.result.get("trials", 0),
         "values": c.result.get("values", 0), "look": c.result.get("look", ""), "faults": c.faults}
        for c in trackers.children
    ]  # fmt: skip


def show_track(found: list[Row]) -> None:
    """As people read it."""
    for one in found:
        for fault in one["faults"]:
            say(f"{one['tracker']}: FAILED: {fault}", err=True)
        if not one["faults"]:
            news = f"{one['trials']} trial(s), {one['values']} values" if one["trials"] else "nothing new"
            say(f"{one['tracker']}: {news}" + (f"; look: {one['look']}" if one["look"] else ""))
