"""The table checkpoints: the weights of finished trials, of which the best are kept."""

from __future__ import annotations

from dataclasses import dataclass

from engine.journal.store import Store
from engine.records.metric import Metric


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of a trial. path: its folder, relative to the study's."""

    trial: str
    path: str


def kept(store: Store, trial: str) -> Checkpoint | None:
    """The checkpoint of a trial where it is kept."""
    row = store.one("SELECT trial, path FROM checkpoints WHERE trial = ? AND kept = 1", (trial,))
    return Checkpoint(**row) if row else None


def best_kept(store: Store, context: str, metric: Metric | None, first: str | None) -> Checkpoint | None:
    """The kept checkpoint of trial `first` or, where it is not kept, the best of its cycle, a control's last."""
    order = "DESC" if metric is None or metric.higher_is_better else "ASC"
    row = store.one(
        "SELECT c.trial, c.path FROM checkpoints c JOIN trials t ON t.id = c.trial JOIN pools p ON p.id = t.pool "
        "LEFT JOIN metrics m ON m.trial = t.id AND m.name = ? WHERE c.kept = 1 AND t.context = ? "
        f"ORDER BY c.trial = ? DESC, p.kind = 'control', m.value {order}, c.trial LIMIT 1",
        (metric.name if metric else "", context, first),
    )
    return Checkpoint(**row) if row else None
