"""A decision: who made what of a proposal, when and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """verdict: approve, reject, hold, edit, undo, or readmit. at: UTC, ISO 8601."""

    id: int
    proposal: str
    verdict: str
    who: str
    why: str
    at: str
