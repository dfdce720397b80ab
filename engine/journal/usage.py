"""The table usage: what each trial took of the machine, by what engine/records/usage.py names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.journal.store import Store


@dataclass(frozen=True)
class Reading:
    """What a trial's worker took in so many seconds; the trials of a pack share one worker."""

    trial: str
    seconds: float
    values: dict[str, float]


@dataclass(frozen=True)
class Usage:
    """One measure of a trial: its highest value, its mean over `seconds` of its last attempt, and the last one."""

    trial: str
    name: str
    peak: float
    mean: float
    latest: float
    seconds: float


def add(store: Store, readings: Sequence[Reading]) -> None:
    """Take these into what is kept. Call inside a transaction."""
    for reading in readings:
        for name, value in reading.values.items():
            store.execute(
                "INSERT INTO usage(trial, name, peak, mean, latest, seconds) VALUES(?, ?, ?, ?, ?, ?) "
                "ON CONFLICT(trial, name) DO UPDATE SET peak = max(peak, excluded.peak), latest = excluded.latest, "
                "mean = (mean * seconds + excluded.mean * excluded.seconds) / (seconds + excluded.seconds), "
                "seconds = seconds + excluded.seconds",
                (reading.trial, name, value, value, value, reading.seconds),
            )


def clear(store: Store, trial: str) -> None:
    """Forget what an earlier attempt took."""
    store.execute("DELETE FROM usage WHERE trial = ?", (trial,))


def of_trial(store: Store, trial: str) -> list[Usage]:
    """All measures of a trial, by name."""
    return [Usage(**row) for row in store.query("SELECT * FROM usage WHERE trial = ? ORDER BY name", (trial,))]


def latest(store: Store, setup: str, most: int) -> list[Usage]:
    """All measures of the trials of a setup that began last, the latest trial first."""
    return [
        Usage(**row) for row in store.query(
            "SELECT u.* FROM (SELECT id, started FROM trials WHERE setup = ? AND started IS NOT NULL "
            "ORDER BY started DESC, id LIMIT ?) t JOIN usage u ON u.trial = t.id ORDER BY t.started DESC, t.id, u.name",
            (setup, most),
        )
    ]  # fmt: skip


def over_trials(store: Store, setup: str) -> dict[str, dict[str, float]]:
    """Measure → the highest value of any trial of a setup, and the mean over all the time that they were measured."""
    rows = store.query(
        "SELECT u.name, max(u.peak) AS peak, sum(u.mean * u.seconds) / sum(u.seconds) AS mean FROM usage u "
        "JOIN trials t ON t.id = u.trial WHERE t.setup = ? GROUP BY u.name",
        (setup,),
    )
    return {row["name"]: {"peak": row["peak"], "mean": row["mean"]} for row in rows}
