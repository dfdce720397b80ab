"""The table checkpoints: the weights of finished trials, of which the best are kept."""

from __future__ import annotations

from dataclasses import dataclass

from engine.journal.store import Store, now
from engine.records.metric import Metric


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of a trial. path: its folder, relative to the study's. kept: 1, or 0 once it is deleted."""

    trial: str
    path: str
    bytes: int
    kept: int


def get(store: Store, trial: str) -> Checkpoint | None:
    """The checkpoint of a trial, kept or deleted; None where there was none."""
    row = store.one("SELECT trial, path, bytes, kept FROM checkpoints WHERE trial = ?", (trial,))
    return Checkpoint(**row) if row else None


def kept(store: Store, trial: str) -> Checkpoint | None:
    """The checkpoint of a trial where it is kept."""
    checkpoint = get(store, trial)
    return checkpoint if checkpoint and checkpoint.kept else None


def best_kept(store: Store, setup: str, metric: Metric | None, first: str | None) -> Checkpoint | None:
    """The kept checkpoint of trial `first` or, where it is not kept, the best of its cycle, a control's last."""
    order = "DESC" if metric is None or metric.higher_is_better else "ASC"
    row = store.one(
        "SELECT c.trial, c.path, c.bytes, c.kept FROM checkpoints c JOIN trials t ON t.id = c.trial "
        "JOIN pools p ON p.id = t.pool LEFT JOIN metrics m ON m.trial = t.id AND m.name = ? "
        "WHERE c.kept = 1 AND t.setup = ? "
        f"ORDER BY c.trial = ? DESC, p.kind = 'control', m.value {order}, c.trial LIMIT 1",
        (metric.name if metric else "", setup, first),
    )
    return Checkpoint(**row) if row else None


# trials whose checkpoints cycles start from, end with, or are asked to start from, and those that score rows
STARTS = (
    "SELECT init FROM cycles "
    "UNION SELECT json_extract(content, '$.pinned') FROM results WHERE name = 'cycle' "
    "AND json_extract(content, '$.pinned') IS NOT NULL "
    "UNION SELECT json_extract(content, '$.trial') FROM results WHERE name = 'model_scores' "
    "UNION SELECT json_extract(content, '$.init') FROM proposals WHERE kind = 'cycle' "
    "AND status IN ('queued', 'held', 'approved') AND json_extract(content, '$.init') IS NOT NULL"
)


def is_needed(store: Store, trial: str) -> bool:
    """True when a cycle starts from or ends with a trial's checkpoint, or it scores rows."""
    return store.one(f"SELECT 1 WHERE ? IN ({STARTS})", (trial,)) is not None


def every_kept(store: Store) -> set[str]:
    """The trials whose checkpoints are kept."""
    return {row["trial"] for row in store.query("SELECT trial FROM checkpoints WHERE kept = 1")}


def keep(store: Store, trial: str, path: str, size: int) -> None:
    """Write that a checkpoint is kept. path: relative to the study's folder. size: bytes."""
    store.put("checkpoints", {"trial": trial, "path": path, "bytes": size, "kept": 1, "at": now()})


def deleted(store: Store, trial: str) -> None:
    """Write that a checkpoint is no longer kept."""
    store.execute("UPDATE checkpoints SET kept = 0 WHERE trial = ?", (trial,))


def ranked(store: Store, setup: str, metric: Metric, without_confirmed: bool) -> list[str]:
    """Trials of a setup whose checkpoints are kept and that nothing needs, the best by a metric first.

    without_confirmed: leave those of the stage `confirm` out.
    """
    order = "DESC" if metric.higher_is_better else "ASC"
    rows = store.query(
        "SELECT c.trial FROM checkpoints c JOIN trials t ON t.id = c.trial "
        "JOIN metrics m ON m.trial = c.trial AND m.name = ? "
        f"WHERE c.kept = 1 AND t.setup = ? AND NOT (? AND t.stage = 'confirm') AND c.trial NOT IN ({STARTS}) "
        f"ORDER BY m.value {order}, c.trial",
        (metric.name, setup, without_confirmed),
    )
    return [row["trial"] for row in rows]
