"""The book of trials: every change of a trial's state, each in one transaction, and its checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

import numpy as np

from engine.journal.store import Row, now
from engine.study.opened import OpenStudy
from engine.study.variants import in_cycles

# trials whose checkpoints cycles start from, end with, or are asked to start from, and those that score rows
STARTS = (
    "SELECT init FROM cycles "
    "UNION SELECT json_extract(content, '$.pinned') FROM results WHERE name = 'cycle' "
    "AND json_extract(content, '$.pinned') IS NOT NULL "
    "UNION SELECT json_extract(content, '$.trial') FROM results WHERE name = 'feedback' "
    "UNION SELECT json_extract(content, '$.init') FROM proposals WHERE kind = 'cycle' "
    "AND status IN ('queued', 'held', 'approved') AND json_extract(content, '$.init') IS NOT NULL"
)


class TrialBook:
    """Trials of one study in its store. Only the scheduler writes here."""

    def __init__(self, opened: OpenStudy) -> None:
        self.opened, self.store = opened, opened.store

    def recover(self) -> None:
        """Trials that ran when the last engine ended wait again, as do failed ones; what they used stays charged."""
        with self.store.transaction():
            self.store.execute("UPDATE trials SET state = 'WAITING' WHERE state = 'FAIL'")
            cut = self.store.query("SELECT id FROM trials WHERE state = 'RUNNING'")
            for row in cut:
                self.store.event("recover", "was cut off with its engine; starts anew", row["id"], "warning")
            self.store.execute("UPDATE trials SET state = 'WAITING' WHERE state = 'RUNNING'")
        waits = {r["id"] for r in self.store.query("SELECT id FROM trials WHERE state = 'WAITING'")}
        work = self.opened.state / "command"
        for left in work.iterdir() if work.exists() else ():
            if left.is_dir() and left.name not in waits:  # one that waits may go on with what it has left
                shutil.rmtree(left, ignore_errors=True)
        kept = {r["trial"] for r in self.store.query("SELECT trial FROM checkpoints WHERE kept = 1")}
        done = {r["id"] for r in self.store.query("SELECT id FROM trials WHERE state = 'COMPLETE'")}
        folder = self.opened.state / "checkpoints"
        for left in folder.iterdir() if folder.exists() else ():
            if left.name in done - kept:
                self.keep_best(left.name)  # the engine ended between the trial's end and this
            elif left.name not in kept:
                shutil.rmtree(left, ignore_errors=True)

    def waiting(self, proposals: Sequence[str]) -> list[Row]:
        """Waiting trials of the given proposals, longest first, then in rounds of seeds."""
        marks = ", ".join("?" * len(proposals))
        return self.store.query(
            "SELECT DISTINCT t.*, p.content, p.kind FROM trials t JOIN pools p ON p.id = t.pool "
            "JOIN proposal_trials x ON x.trial = t.id "
            f"WHERE t.state = 'WAITING' AND t.context = ? AND x.proposal IN ({marks}) "
            "ORDER BY t.samples DESC, t.seed, t.id",
            (self.opened.context, *proposals),
        )

    def launch(self, trial: Row, device: str, estimate: float | None, resumed: int) -> Row:
        """The trial as it runs now, with its attempt, device, estimate and the samples that an earlier one trained."""
        started = {"state": "RUNNING", "attempts": trial["attempts"] + 1, "device": device, "estimate": estimate,
                   "resumed": resumed}  # fmt: skip
        self.store.execute(
            "UPDATE trials SET state = 'RUNNING', attempts = ?, device = ?, estimate = ?, resumed = ?, started = ?, "
            "error = NULL WHERE id = ?",
            (started["attempts"], device, estimate, resumed, now(), trial["id"]),
        )
        return {**trial, **started, "charged": 0.0}

    def complete(self, trial: Row, metrics: Mapping[str, float], seconds: float) -> None:
        """Its metrics; one that is not a number is stored as NULL and named. Call inside a transaction."""
        found = [{"trial": trial["id"], "name": n, "value": v if np.isfinite(v) else None} for n, v in metrics.items()]
        self.store.put("metrics", found)
        self.store.execute(
            "UPDATE trials SET state = 'COMPLETE', seconds = ?, finished = ? WHERE id = ?",
            (seconds, now(), trial["id"]),
        )
        for m in found:
            if m["value"] is None:
                self.store.event("metric", f"{m['name']} is not a number; left out", trial["id"], "warning")

    def wants_checkpoint(self, trial: Row) -> bool:
        """True for a whole training that is kept, and for one that scores rows or that a cycle starts from."""
        if trial["samples"] != trial["horizon"]:
            return self._needed(trial["id"])
        if self.opened.study.train.keep_checkpoints > 0 or (trial["stage"] == "confirm" and in_cycles(self.opened)):
            return True
        return self._needed(trial["id"])

    def _needed(self, trial: str) -> bool:
        return self.store.one(f"SELECT 1 WHERE ? IN ({STARTS})", (trial,)) is not None

    def wait_again(self, trial: str) -> None:
        """It will be run anew."""
        self.store.execute("UPDATE trials SET state = 'WAITING' WHERE id = ?", (trial,))

    def fail(self, trial: str, error: str) -> None:
        """It is not tried again by this engine."""
        self.store.execute(
            "UPDATE trials SET state = 'FAIL', error = ?, finished = ? WHERE id = ?", (error, now(), trial)
        )

    def cancel(self, trial: str) -> None:
        """It is never run again."""
        self.store.execute("UPDATE trials SET state = 'CANCELLED', finished = ? WHERE id = ?", (now(), trial))

    def keep_best(self, trial: str) -> None:
        """Keep the checkpoints of the best trials by their first main metric; delete the others."""
        path = self.opened.state / "checkpoints" / trial
        if not path.exists():
            return
        size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        self.store.put(
            "checkpoints",
            {
                "trial": trial,
                "path": str(path.relative_to(self.opened.folder)),
                "bytes": size,
                "kept": 1,
                "at": now(),
            },
        )
        self.prune(candidates=in_cycles(self.opened))

    def prune(self, candidates: bool = False) -> None:
        """Delete the cycle's checkpoints beyond the best, but those that cycles start from or end with.

        candidates: those that this cycle may end with stay, too.
        """
        folder = self.opened.state / "checkpoints"
        metric = self.opened.main_metrics[0]
        order = "DESC" if metric.higher_is_better else "ASC"
        ranked = self.store.query(
            "SELECT c.trial FROM checkpoints c JOIN trials t ON t.id = c.trial "
            "JOIN metrics m ON m.trial = c.trial AND m.name = ? "
            f"WHERE c.kept = 1 AND t.context = ? AND NOT (? AND t.stage = 'confirm') AND c.trial NOT IN ({STARTS}) "
            f"ORDER BY m.value {order}, c.trial",
            (metric.name, self.opened.context, candidates),
        )
        for row in ranked[self.opened.study.train.keep_checkpoints :]:
            shutil.rmtree(folder / row["trial"], ignore_errors=True)
            self.store.execute("UPDATE checkpoints SET kept = 0 WHERE trial = ?", (row["trial"],))
