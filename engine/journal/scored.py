"""The table scored: what a language model said of a text, by what it was asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from engine.journal.store import Store, now

MOST = 500  # names of one query


@dataclass(frozen=True)
class Scored:
    """One answer. id: hash of all that was asked. value: None where the reply holds no score, for the reason."""

    id: str
    value: float | None
    reason: str | None


def put(store: Store, answers: Iterable[Scored]) -> None:
    """Keep answers."""
    for answer in answers:
        store.put("scored", {**asdict(answer), "at": now()})


def among(store: Store, ids: Sequence[str]) -> dict[str, Scored]:
    """Those of the answers that are kept, by id."""
    found: dict[str, Scored] = {}
    for at in range(0, len(ids), MOST):
        some = ids[at : at + MOST]
        marks = ",".join("?" * len(some))
        rows = store.query(f"SELECT id, value, reason FROM scored WHERE id IN ({marks})", tuple(some))
        found |= {row["id"]: Scored(**row) for row in rows}
    return found
