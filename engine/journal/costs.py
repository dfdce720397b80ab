"""The table costs: device time that was charged."""

from __future__ import annotations

from dataclasses import dataclass

from engine.journal.store import Store, now


@dataclass(frozen=True)
class CycleCost:
    """What the trials of a cycle took. trials: that were charged. seconds: of device time."""

    trials: int
    seconds: float


def of_cycle(store: Store, context: str) -> CycleCost:
    """What the trials of a cycle took."""
    (row,) = store.query(
        "SELECT count(DISTINCT t.id) AS trials, coalesce(sum(c.seconds), 0) AS seconds FROM costs c JOIN trials t "
        "ON t.id = c.trial WHERE t.context = ?",
        (context,),
    )
    return CycleCost(**row)


def charge(
    store: Store, key: str, kind: str, seconds: float, *, trial: str | None = None, stage: str | None = None,
    device: str | None = None, samples: int | None = None,
) -> None:  # fmt: skip
    """Write a charge, in place of what stands under its key. seconds: of device time."""
    store.put("costs", {
        "id": key, "kind": kind, "trial": trial, "stage": stage, "device": device, "samples": samples,
        "seconds": seconds, "at": now(),
    })  # fmt: skip
