"""What the reader keeps between two looks at a study, so that only what is new is read.

Rows that are as they were stay the same objects: whoever compares them by identity sees what has changed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from sys import intern
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.journal.store import Row
    from engine.study.opened import OpenStudy

EVENTS = 1000  # latest, that the log shows
TRIALS = (
    "SELECT id, pool, seed, stage, state, samples, horizon, seconds, device, attempts, error, started, finished "
    "FROM trials WHERE setup = ?"
)


def in_order(trial: Row) -> tuple[str, str]:
    """Trials go by when they ended or began; those that wait come last."""
    return trial["finished"] or trial["started"] or "z", trial["id"]


class Memory:
    """Of one opened study."""

    def __init__(self) -> None:
        self._pools: dict[str, Row] = {}
        self._trials: dict[str, Row] = {}
        self._costs: dict[str, Row] = {}
        self._contents: dict[str, tuple[Row, Row]] = {}
        self._events: dict[int, Row] = {}
        self._ended = self._charged = ""

    def trials(self, view: OpenStudy, states: Sequence[Row]) -> tuple[Row, ...]:
        """All trials. states: how many there are now of each stage and state."""
        # a trial that has ended well never changes, so those that are open and those that ended lately are enough
        self._take(view, f"{TRIALS} AND (state NOT IN ('COMPLETE', 'CANCELLED') OR finished >= ?)", self._ended)
        known = Counter((t["stage"], t["state"]) for t in self._trials.values())
        if known != {(s["stage"], s["state"]): s["n"] for s in states}:
            self._trials.clear()
            self._take(view, TRIALS)
        return tuple(sorted(self._trials.values(), key=in_order))

    def _take(self, view: OpenStudy, sql: str, *more: str) -> None:
        for row in view.store.query(sql, (view.setup, *more)):
            pool = self._pool(view, row["pool"])
            for name in ("stage", "state", "device"):
                row[name] = row[name] and intern(row[name])
            row |= {"pool": pool["id"], "label": pool["label"], "kind": pool["kind"]}
            if self._trials.get(row["id"]) != row:
                self._trials[row["id"]] = row
            self._ended = max(self._ended, row["finished"] or "")

    def _pool(self, view: OpenStudy, pool: str) -> Row:
        if pool not in self._pools:
            self._pools |= {r["id"]: r for r in view.store.query("SELECT id, label, kind FROM pools")}
        return self._pools[pool]

    def costs(self, view: OpenStudy) -> list[Row]:
        """All costs, the latest last; a running trial's is written anew as it grows."""
        for row in view.store.query("SELECT id, seconds, at FROM costs WHERE at >= ? ORDER BY at", (self._charged,)):
            self._costs.pop(row["id"], None)
            self._costs[row["id"]] = row
            self._charged = row["at"]
        return list(self._costs.values())

    def proposals(self, view: OpenStudy) -> tuple[Row, ...]:
        """Proposals with their content read."""
        rows = view.store.query(
            "SELECT * FROM proposals WHERE setup = ? AND status != 'superseded' ORDER BY at, id", (view.setup,)
        )
        for row in rows:
            if self._contents.get(row["id"], (None,))[0] != row:
                self._contents[row["id"]] = row, {**row, "content": json.loads(row["content"])}
        return tuple(self._contents[row["id"]][1] for row in rows)

    def events(self, view: OpenStudy) -> tuple[Row, ...]:
        """The latest events, the last first."""
        last = max(self._events, default=0)
        rows = view.store.query("SELECT * FROM events WHERE id > ? ORDER BY id DESC LIMIT ?", (last, EVENTS))
        kept = list({**{r["id"]: r for r in rows}, **self._events}.items())[:EVENTS]
        self._events = dict(kept)
        return tuple(self._events.values())
