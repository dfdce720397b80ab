"""What the kinds of experiment have in common."""

from __future__ import annotations

from collections.abc import Sequence

from engine.base.errors import DjsbError
from engine.evidence.ranking import Ranked
from engine.records.proposal import Arm


class Refused(DjsbError):
    """A suggestion that cannot be a proposal; the text is the reason."""


Drafted = tuple[str, list[Arm], Sequence[int]]


def effect_of(entry: Ranked) -> str:
    change = entry.effect.change
    return "no result" if change is None else f"{change:+.1f} % over {entry.effect.seeds} seed(s)"
