"""A tracker of experiments: what each must be able to do, and what all need to know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine.settings.track import Kind
from engine.track.records import Scalar, StudyRun, TrialRun

FOLDER = "track"  # in the study's folder: stores of trackers
_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Target:
    """Where results go.

    folder: the study's. project: of the tracker, or its experiment. uri: as a person or the environment gives it; None:
    in the study's folder. options: further ones of the study's section.
    """

    kind: Kind
    folder: Path
    project: str
    uri: str | None = None
    options: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def own(self) -> Path:
        """The folder of the tracker's store in the study's folder."""
        return self.folder / FOLDER


class Tracker(Protocol):
    """A tracker that is open. What it is given twice, it has once, also after it was killed in the middle.

    live: it takes trials that run; else only those that have ended. look: how a person sees the results.
    """

    live: bool
    look: str

    def write(self, run: TrialRun) -> int:
        """Bring a trial's run up to what it is; how many values were new."""

    def summarise(self, study: StudyRun) -> None:
        """Bring the study's own run up to what it is."""

    def close(self) -> None:
        """All that was given is stored when this returns."""


def named(text: str, more: str = "") -> str:
    """A name of letters, digits and `_.-`, for trackers that take no other. more: characters that may stand, too."""
    kept = "".join(c if c in more else _OTHER.sub("-", c) for c in text)
    return re.sub("-{2,}", "-", kept).strip("-") or "djsb"
