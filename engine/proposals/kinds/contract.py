"""What the kinds of experiment have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence

from engine.base.errors import DjsbError
from engine.evidence.ranking import Ranked
from engine.journal.store import Row
from engine.records.proposal import PoolRequest


class Refused(DjsbError):
    """A suggestion that cannot be a proposal; the text is the reason."""


Drafted = tuple[str, list[PoolRequest], Sequence[int]]


def arm_of(row: Row) -> PoolRequest:
    """The request that a stored trial came from."""
    horizon = row["horizon"] if row["horizon"] != row["samples"] else None
    return PoolRequest(
        pool=json.loads(row["content"]), label=row["label"], kind=row["kind"], samples=row["samples"], horizon=horizon
    )


def effect_of(entry: Ranked) -> str:
    change = entry.effect.change
    return "no result" if change is None else f"{change:+.1f} % over {entry.effect.seeds} seed(s)"
