"""Table `proposals`: what is asked for, and its status."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from engine.base.errors import damaged
from engine.journal.store import Row, Store, now
from engine.records.proposal import Proposal, Status, StoredProposal

OPEN = ("queued", "held")


@lru_cache(1024)
def _content(text: str) -> Mapping[str, Any]:
    """Stored content; who looks again and again reads each once."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise damaged("a proposal", error) from error
    if not isinstance(content, dict):
        raise damaged("a proposal", "it is no object of JSON")
    return content


def _read(row: Row) -> StoredProposal:
    return StoredProposal(**{**row, "content": _content(row["content"])})


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))


def get(store: Store, key: str) -> StoredProposal | None:
    """A proposal by its stored id."""
    row = store.one("SELECT * FROM proposals WHERE id = ?", (key,))
    return _read(row) if row else None


def beginning(store: Store, start: str) -> list[StoredProposal]:
    """Proposals whose ids begin so."""
    return [_read(r) for r in store.query("SELECT * FROM proposals WHERE substr(id, 1, length(?)) = ?", (start, start))]


def by_ids(store: Store, ids: Collection[str]) -> list[StoredProposal]:
    """These proposals, the oldest first."""
    rows = store.query(f"SELECT * FROM proposals WHERE id IN ({_marks(ids)}) ORDER BY at, id", tuple(ids))
    return [_read(r) for r in rows]


def of_setup(store: Store, setup: str, statuses: Collection[str] | None = None) -> list[StoredProposal]:
    """Proposals of a setup, the oldest first; statuses: only these, None: all."""
    where = f" AND status IN ({_marks(statuses)})" if statuses is not None else ""
    rows = store.query(f"SELECT * FROM proposals WHERE setup = ?{where} ORDER BY at, id", (setup, *(statuses or ())))
    return [_read(r) for r in rows]


def approved_of_kind(store: Store, root: str, kind: str) -> list[StoredProposal]:
    """The approved proposals of one kind in all cycles that began with this setup, the oldest first."""
    rows = store.query(
        "SELECT * FROM proposals WHERE kind = ? AND status = 'approved' AND (setup = ? OR setup IN "
        "(SELECT setup FROM cycles WHERE root = ?)) ORDER BY at, id",
        (kind, root, root),
    )
    return [_read(r) for r in rows]


def put(
    store: Store,
    key: str,
    setup: str,
    proposal: Proposal,
    status: Status,
    cost: float | None,
    notes: Mapping[str, Any],
) -> None:
    """Store a proposal, or put it in the place of an earlier one. notes: what the gate adds to its content."""
    content = {**proposal.model_dump(mode="json"), **notes}
    put_content(store, key, setup, proposal.origin, proposal.kind, proposal.stage, status, cost, content)


def put_content(
    store: Store, key: str, setup: str, origin: str, kind: str, stage: str, status: Status, cost: float | None,
    content: Mapping[str, Any],
) -> None:  # fmt: skip
    """Store content that may be no whole proposal: a suggestion that could not be drafted."""
    store.put(
        "proposals",
        {"id": key, "setup": setup, "origin": origin, "kind": kind, "stage": stage,
         "content": json.dumps(content, allow_nan=False), "status": status, "cost": cost, "at": now()},
    )  # fmt: skip


def supersede(store: Store, setup: str, stage: str, origin: str, current: Collection[str]) -> None:
    """Undecided proposals of a stage and origin become superseded, but for the current ones."""
    store.execute(
        "UPDATE proposals SET status = 'superseded' WHERE setup = ? AND stage = ? AND origin = ? "
        f"AND status IN ('queued', 'held', 'refused') AND id NOT IN ({_marks(current)})",
        (setup, stage, origin, *current),
    )


def approved(store: Store, setup: str) -> list[StoredProposal]:
    """Approved proposals of a setup, and the one that began it where it is a later cycle; the oldest first."""
    rows = store.query(
        "SELECT * FROM proposals WHERE status = 'approved' AND ((setup = ? AND kind != 'cycle') "
        "OR id = (SELECT proposal FROM cycles WHERE setup = ?)) ORDER BY at, id",
        (setup, setup),
    )
    return [_read(r) for r in rows]


def set_decided(store: Store, key: str, status: Status) -> bool:
    """Give an open proposal another status; False: it is not open."""
    sql = f"UPDATE proposals SET status = ? WHERE id = ? AND status IN ({_marks(OPEN)})"
    return bool(store.execute(sql, (status, key, *OPEN)))


def reopen(store: Store, key: str) -> bool:
    """Queue a decided proposal again; False: it was not decided on, or has trials."""
    return bool(
        store.execute(
            "UPDATE proposals SET status = 'queued' WHERE id = ? AND status IN ('approved', 'rejected', 'held') "
            "AND NOT EXISTS (SELECT 1 FROM proposal_trials x WHERE x.proposal = proposals.id)",
            (key,),
        )
    )
