"""The table model_calls: what the language model was asked, and what that took."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from engine.journal.store import Store, now


@dataclass(frozen=True)
class ModelCall:
    """One call. read, written: tokens, `estimated` where the server counts none. cost: dollars, None without price."""

    setup: str
    purpose: str
    model: str | None
    read: int
    written: int
    estimated: bool
    seconds: float
    cost: float | None
    outcome: str


@dataclass(frozen=True)
class ModelUse:
    """All calls of a study together. cost: dollars, None where no price is set."""

    calls: int
    read: int
    written: int
    cost: float | None


def add(store: Store, call: ModelCall) -> None:
    """Write a call down."""
    store.put("model_calls", {**asdict(call), "at": now()})


def total(store: Store, scores: bool = False) -> ModelUse:
    """What all calls took but those for scores of rows; or these, which have an account of their own."""
    (row,) = store.query(
        "SELECT count(*) AS calls, coalesce(sum(read), 0) AS read, coalesce(sum(written), 0) AS written, "
        "sum(cost) AS cost FROM model_calls WHERE (purpose = 'scores') = ?",
        (scores,),
    )
    return ModelUse(**row)
