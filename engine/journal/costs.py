"""The table costs: device time that was charged."""

from __future__ import annotations

from dataclasses import dataclass

from engine.journal.store import Store, now


@dataclass(frozen=True)
class Cost:
    """A charge.

    kind: trial, calibration, mapper, model_scores, prompt, or allocation: what a job of Slurm took beside those.
    seconds: of device time. at: UTC, ISO 8601.
    """

    id: str
    kind: str
    trial: str | None
    stage: str | None
    device: str | None
    samples: int | None
    seconds: float
    at: str


@dataclass(frozen=True)
class CycleCost:
    """What the trials of a cycle took. trials: that were charged. seconds: of device time."""

    trials: int
    seconds: float


def of_cycle(store: Store, setup: str) -> CycleCost:
    """What the trials of a cycle took."""
    (row,) = store.query(
        "SELECT count(DISTINCT t.id) AS trials, coalesce(sum(c.seconds), 0) AS seconds FROM costs c JOIN trials t "
        "ON t.id = c.trial WHERE t.setup = ?",
        (setup,),
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


def total(store: Store) -> float:
    """Device-seconds charged so far, of the whole study."""
    (row,) = store.query("SELECT coalesce(sum(seconds), 0) AS seconds FROM costs")
    return float(row["seconds"])


def get(store: Store, key: str) -> float:
    """Device-seconds of one charge; 0 where there is none."""
    row = store.one("SELECT seconds FROM costs WHERE id = ?", (key,))
    return float(row["seconds"]) if row else 0.0


def since(store: Store, time: str = "") -> list[Cost]:
    """Charges of this time (UTC, ISO 8601) and later, oldest first."""
    return [Cost(**row) for row in store.query("SELECT * FROM costs WHERE at >= ? ORDER BY at, id", (time,))]


def of_trial(store: Store, trial: str) -> list[Cost]:
    """The charges of a trial's attempts."""
    return [Cost(**row) for row in store.query("SELECT * FROM costs WHERE trial = ?", (trial,))]


def by_stage(store: Store, setup: str) -> dict[str, float]:
    """Stage → device-seconds of its trials in a setup."""
    rows = store.query(
        "SELECT t.stage, sum(c.seconds) AS seconds FROM costs c JOIN trials t ON t.id = c.trial "
        "WHERE t.setup = ? GROUP BY t.stage",
        (setup,),
    )
    return {row["stage"]: row["seconds"] for row in rows}
