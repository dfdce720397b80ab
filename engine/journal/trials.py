"""The table trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.journal.store import Store


@dataclass(frozen=True)
class TrialStatus:
    """A trial and its state: WAITING, RUNNING, COMPLETE, FAIL or CANCELLED."""

    id: str
    state: str


def unfinished_lengths(store: Store, context: str) -> set[tuple[int, int]]:
    """(samples, horizon) of trials of the first seed that wait or run."""
    rows = store.query(
        "SELECT DISTINCT samples, horizon FROM trials WHERE context = ? AND seed = 0 AND state IN "
        "('WAITING', 'RUNNING')",
        (context,),
    )
    return {(r["samples"], r["horizon"]) for r in rows}


def whole(store: Store, context: str, pool: str, samples: int, seed: int) -> str | None:
    """The id of a pool's whole training on so many samples at a seed."""
    row = store.one(
        "SELECT id FROM trials WHERE context = ? AND pool = ? AND samples = ? AND horizon = samples AND seed = ?",
        (context, pool, samples, seed),
    )
    return row["id"] if row else None


def is_complete(store: Store, trial: str) -> bool:
    """True when the trial ran to its end."""
    return store.one("SELECT 1 FROM trials WHERE id = ? AND state = 'COMPLETE'", (trial,)) is not None


def asked_by(store: Store, trial: str) -> list[str]:
    """Ids of the proposals that ask for a trial."""
    return [
        r["proposal"] for r in store.query("SELECT proposal FROM proposal_trials WHERE trial = ?", (trial,))
    ]  # fmt: skip


def of_proposals(store: Store, proposals: Sequence[str]) -> list[TrialStatus]:
    """All trials that these proposals ask for."""
    rows = store.query(
        "SELECT DISTINCT t.id, t.state FROM proposal_trials x JOIN trials t ON t.id = x.trial "
        f"WHERE x.proposal IN ({', '.join('?' * len(proposals))}) ORDER BY t.id",
        proposals,
    )
    return [TrialStatus(**r) for r in rows]


def failures(store: Store, context: str) -> list[tuple[str, str]]:
    """(id, error) of the trials that failed for good, in the order of their ends."""
    sql = "SELECT id, error FROM trials WHERE context = ? AND state = 'FAIL' ORDER BY finished"
    return [(r["id"], r["error"]) for r in store.query(sql, (context,))]
