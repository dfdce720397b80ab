"""The scheduler: trials over worker subprocesses, one slot per GPU or per CPU core.

It is the only writer of trials and costs. What a trial has used is charged as it runs, under
(trial, attempt), so that a kill at any moment charges nothing twice.
"""

from __future__ import annotations

import json
import queue
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.budget import Ledger, estimate_cost, format_seconds
from engine.errors import BudgetError, TrialError
from engine.open_study import OpenStudy
from engine.pools import pool_from_json
from engine.slots import Slot
from engine.store import Row, now
from engine.tasks import Job

SILENCE = 300.0  # seconds without a heartbeat after which a worker counts as lost
START = 600.0  # seconds that a worker may take to import its libraries
RETRIES = 1
HUNG = 10.0  # times its estimate, and at least SILENCE, after which a trial that still beats counts as hung


@dataclass
class Scheduler:
    """Runs approved trials until none is left, the budget is spent, or a stop is asked for.

    limit: device-seconds that may be spent in all. watch: called after every event, for progress.
    stopping: start nothing more; aborting: also end what runs. note: why the budget ended the run.
    """

    opened: OpenStudy
    limit: float
    devices: list[str]
    watch: Callable[[Scheduler], None] = lambda _: None
    stopping: bool = False
    aborting: bool = False
    note: str = ""
    stage: str = ""
    finished: int = 0

    def __post_init__(self) -> None:
        self.store = self.opened.store
        self._events: queue.Queue[tuple[Slot, dict[str, Any] | None]] = queue.Queue()
        logs = self.opened.state / "logs"
        self.slots = [Slot(d, logs / f"worker-{d}.log", self._events) for d in self.devices]
        self._waiting: deque[Row] = deque()
        self._micro: int | None = None
        self._cap = self.limit
        self._failures: Counter[str] = Counter()  # of this run: a later one tries again

    # -- costs ---------------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        """What is spent, what runs, what is left."""
        row = self.store.one("SELECT coalesce(sum(seconds), 0) AS spent FROM costs")
        assert row is not None
        running = [s for s in self.slots if s.trial is not None]
        reserved = sum(max(0.0, (s.trial["estimate"] or 0.0) - s.seconds) for s in running if s.trial)
        return Ledger(self._cap, row["spent"], reserved)

    def estimate(self, samples: int) -> float | None:
        """Device-seconds of a trial, from finished trials of this study, else from the calibration."""
        rows = self.store.query(
            "SELECT samples, seconds FROM trials WHERE context = ? AND state = 'COMPLETE'",
            (self.opened.context,),
        )
        if rows:
            return estimate_cost(samples, [(r["samples"], r["seconds"]) for r in rows])
        calibration = self.store.result(self.opened.context, "calibration")
        return calibration["fixed"] + calibration["per_sample"] * samples if calibration else None

    def calibrate(self, charge: bool = True) -> None:
        """Measure a few steps on the first device, once per study; the time is charged, unless only a plan is made."""
        if self.store.result(self.opened.context, "calibration") is not None:
            return
        slot = self.slots[0]
        slot.start()
        message = {"do": "calibrate", "study": self._study(), "prepared": str(self.opened.prepared)}
        while True:
            event = self._events.get(timeout=START)[1]
            if event is None:
                raise TrialError(f"the calibration's worker died; see {slot.log}")
            if event["event"] == "ready":
                slot.ready = True
                slot.send(message)
            elif event["event"] == "failed":
                raise TrialError(f"the calibration failed: {event['error']}; see {slot.log}")
            elif event["event"] == "done":
                break
        content = {"per_sample": event["per_sample"], "fixed": event["fixed"], "device": slot.device}
        cost = {"id": f"calibration:{self.opened.context}", "kind": "calibration", "trial": None, "stage": None,
                "device": slot.device, "samples": None, "seconds": event["seconds"], "at": now()}  # fmt: skip
        with self.store.transaction():
            self.store.put_result(self.opened.context, "calibration", content)
            if charge:
                self.store.put("costs", cost)

    # -- running -------------------------------------------------------------------------------

    def recover(self) -> None:
        """Trials that ran when the last engine ended wait again, as do failed ones; what they used stays charged."""
        with self.store.transaction():
            self.store.execute("UPDATE trials SET state = 'WAITING' WHERE state = 'FAIL'")
            cut = self.store.query("SELECT id FROM trials WHERE state = 'RUNNING'")
            for row in cut:
                self.store.event("recover", "was cut off with its engine; starts anew", row["id"], "warning")
            self.store.execute("UPDATE trials SET state = 'WAITING' WHERE state = 'RUNNING'")
        kept = {r["trial"] for r in self.store.query("SELECT trial FROM checkpoints WHERE kept = 1")}
        folder = self.opened.state / "checkpoints"
        for left in folder.iterdir() if folder.exists() else ():
            if left.name not in kept:
                shutil.rmtree(left, ignore_errors=True)

    @property
    def unfinished(self) -> int:
        """Trials that run or wait."""
        return len(self._waiting) + len(self._running())

    def run(self, stage: str, proposals: list[str], cap: float) -> str:
        """Run the waiting trials of the given proposals; why it ended: `done`, `budget` or `stopped`.

        cap: device-seconds that may be spent in all when the stage ends; at most the limit.
        """
        self.stage, self.finished, self._cap = stage, 0, min(cap, self.limit)
        marks = ", ".join("?" * len(proposals))
        self._waiting = deque(
            self.store.query(
                "SELECT DISTINCT t.*, p.content FROM trials t JOIN pools p ON p.id = t.pool "
                "JOIN proposal_trials x ON x.trial = t.id "
                f"WHERE t.state = 'WAITING' AND t.context = ? AND x.proposal IN ({marks}) "
                "ORDER BY t.seed, t.samples DESC, t.id",
                (self.opened.context, *proposals),
            )
        )
        self.note = ""
        try:
            while (self._waiting and not self.stopping and not self.note) or (self._running() and not self.aborting):
                if not self.stopping and not self.note:
                    self._fill()
                self._turn()
                self.watch(self)
        finally:
            for slot in self.slots:
                self._rescind(slot, "the engine was stopped")
        return "stopped" if self.stopping else "budget" if self.note else "done"

    def _running(self) -> list[Slot]:
        return [s for s in self.slots if s.trial is not None]

    def _fill(self) -> None:
        """Start waiting trials on idle devices, while the budget allows."""
        for slot in self.slots:
            if not self._waiting:
                return
            if slot.trial is not None:
                continue
            if slot.process is None:
                slot.start()
            if not slot.ready:
                continue
            row = self._waiting[0]
            estimate = self.estimate(row["samples"])
            if not self.ledger().fits(estimate or 0.0):
                if not self._running():
                    left = self.ledger().left
                    self.note = (
                        f"the budget ends here: a trial takes about {format_seconds(estimate or 0)} "
                        f"and {format_seconds(left)} of {format_seconds(self.limit)} are left"
                    )
                return
            self._waiting.popleft()
            self._launch(slot, row, estimate)

    def _launch(self, slot: Slot, row: Row, estimate: float | None) -> None:
        attempt = row["attempts"] + 1
        started = {"state": "RUNNING", "attempts": attempt, "device": slot.device, "estimate": estimate}
        with self.store.transaction():
            self.store.execute(
                "UPDATE trials SET state = 'RUNNING', attempts = ?, device = ?, estimate = ?, started = ?, "
                "error = NULL WHERE id = ?",
                (attempt, slot.device, estimate, now(), row["id"]),
            )
        slot.trial = {**row, **started}
        rows = self.opened.realise(pool_from_json(json.loads(row["content"])), row["seed"])
        file = self.opened.state / "rows" / f"{row['id']}.npy"
        file.parent.mkdir(exist_ok=True)
        np.save(file, rows)
        keep = self.opened.study.train.keep_checkpoints > 0
        output = self.opened.state / "checkpoints" / row["id"]
        output.parent.mkdir(exist_ok=True)
        shutil.rmtree(output, ignore_errors=True)
        job = Job(
            row["id"],
            str(file),
            row["samples"],
            row["seed"],
            row["init"],
            str(output) if keep else "",
            self._micro,
        )
        slot.send({"do": "trial", "study": self._study(), "prepared": str(self.opened.prepared), "job": asdict(job)})

    def _study(self) -> dict[str, Any]:
        return self.opened.study.model_dump(mode="json")

    def _turn(self) -> None:
        """Handle one event, or find that a worker has gone silent."""
        try:
            slot, event = self._events.get(timeout=0.2)
        except queue.Empty:
            for slot in self.slots:
                quiet = time.monotonic() - slot.heard
                if (
                    slot.process is not None
                    and quiet > (SILENCE if slot.ready else START)
                    and (slot.trial or not slot.ready)
                ):
                    self._lost(slot, f"no sign of life for {quiet:.0f} s")
            return
        slot.heard = time.monotonic()
        if event is None:
            if slot.process is not None and slot.process.poll() is not None:
                self._lost(slot, f"the worker died (exit code {slot.process.returncode})")
        elif event["event"] == "ready":
            slot.ready = True
        elif slot.trial is None:
            return  # the last words of a trial that was cancelled
        elif event["event"] == "curve":
            points = [
                {"trial": slot.trial["id"], "name": n, "step": event["step"], "value": v}
                for n, v in event["values"].items()
            ]
            with self.store.transaction():
                self.store.put("curve_points", points)
        elif event["event"] == "beat":
            self._charge(slot, event["seconds"])
            if event["seconds"] > max(SILENCE, HUNG * (slot.trial["estimate"] or SILENCE)):
                self._lost(slot, f"the trial hangs: {event['seconds']:.0f} s, estimated {slot.trial['estimate']:.0f} s")
            elif self.ledger().spent > self.limit:
                self.note = f"the budget of {format_seconds(self.limit)} is spent"
                self._rescind(slot, "the budget is spent")
        elif event["event"] == "done":
            self._finish(slot, event)
        elif event["event"] == "failed":
            self._failed(slot, event)

    def _charge(self, slot: Slot, seconds: float) -> None:
        """What this attempt has used so far, in place of what it had used before."""
        trial = slot.trial
        assert trial is not None
        slot.seconds = seconds
        self.store.put(
            "costs",
            {
                "id": f"{trial['id']}:{trial['attempts']}", "kind": "trial", "trial": trial["id"],
                "stage": trial["stage"], "device": slot.device, "samples": trial["samples"],
                "seconds": seconds, "at": now(),
            },
        )  # fmt: skip

    def _finish(self, slot: Slot, event: dict[str, Any]) -> None:
        trial = slot.trial
        assert trial is not None
        metrics = [
            {"trial": trial["id"], "name": n, "value": v if np.isfinite(v) else None}
            for n, v in event["metrics"].items()
        ]
        with self.store.transaction():
            self._charge(slot, event["seconds"])
            self.store.put("metrics", metrics)
            self.store.execute(
                "UPDATE trials SET state = 'COMPLETE', seconds = ?, finished = ? WHERE id = ?",
                (event["seconds"], now(), trial["id"]),
            )
            for m in metrics:
                if m["value"] is None:
                    self.store.event("metric", f"{m['name']} is not a number; left out", trial["id"], "warning")
        self.finished += 1
        self._free(slot)
        self._keep_best(trial["id"])

    def _failed(self, slot: Slot, event: dict[str, Any]) -> None:
        """Out of memory: a smaller micro-batch; anything else: one retry."""
        trial = slot.trial
        assert trial is not None
        self._charge(slot, event["seconds"])
        batch = self.opened.study.train.batch_size
        micro = (self._micro or self.opened.study.train.micro_batch or batch) // 2
        if event["memory"] and micro >= 1:
            self.store.event("memory", f"out of memory; goes on with micro-batches of {micro}", trial["id"], "warning")
            slot.kill()  # gives the memory back
            self._micro = micro  # for the trials that follow too
            self._again(slot, trial)
        else:
            self._retry(slot, event["error"])

    def _lost(self, slot: Slot, why: str) -> None:
        slot.kill()
        if slot.trial is None:
            raise TrialError(f"{why} before its first trial; see {slot.log}")
        self._retry(slot, why)

    def _retry(self, slot: Slot, error: str) -> None:
        trial = slot.trial
        assert trial is not None
        self._failures[trial["id"]] += 1
        final = self._failures[trial["id"]] > RETRIES
        with self.store.transaction():
            self.store.event("crash", f"{error}; see {slot.log}", trial["id"], "error")
            if final:
                self.store.execute(
                    "UPDATE trials SET state = 'FAIL', error = ?, finished = ? WHERE id = ?",
                    (error, now(), trial["id"]),
                )
        if final:
            self._free(slot)
        else:
            self._again(slot, trial)

    def _again(self, slot: Slot, trial: Row) -> None:
        self.store.execute("UPDATE trials SET state = 'WAITING' WHERE id = ?", (trial["id"],))
        self._free(slot)
        self._waiting.appendleft(trial)

    def _rescind(self, slot: Slot, why: str) -> None:
        """Stop a running trial; it waits again and what it used stays charged."""
        trial = slot.trial
        slot.kill()
        if trial is not None:
            with self.store.transaction():
                self.store.execute("UPDATE trials SET state = 'WAITING' WHERE id = ?", (trial["id"],))
                self.store.event("stop", why, trial["id"])
            self._free(slot)

    def _free(self, slot: Slot) -> None:
        assert slot.trial is not None
        (self.opened.state / "rows" / f"{slot.trial['id']}.npy").unlink(missing_ok=True)
        slot.trial, slot.seconds = None, 0.0

    def _keep_best(self, trial: str) -> None:
        """Keep the checkpoints of the best trials by their first main metric; delete the others."""
        folder = self.opened.state / "checkpoints"
        path = folder / trial
        if not path.exists():
            return
        size = sum(f.stat().st_size for f in path.iterdir())
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
        metric = self.opened.main_metrics[0]
        order = "DESC" if metric.higher_is_better else "ASC"
        ranked = self.store.query(
            "SELECT c.trial FROM checkpoints c JOIN trials t ON t.id = c.trial "
            "JOIN metrics m ON m.trial = c.trial AND m.name = ? "
            f"WHERE c.kept = 1 AND t.context = ? ORDER BY m.value {order}, c.trial",
            (metric.name, self.opened.context),
        )
        for row in ranked[self.opened.study.train.keep_checkpoints :]:
            shutil.rmtree(folder / row["trial"], ignore_errors=True)
            self.store.execute("UPDATE checkpoints SET kept = 0 WHERE trial = ?", (row["trial"],))


@contextmanager
def scheduler(opened: OpenStudy, limit: float, devices: list[str]) -> Iterator[Scheduler]:
    """A scheduler whose workers end with the block."""
    made = Scheduler(opened, limit, devices)
    if limit <= 0:
        raise BudgetError("the budget must be above 0")
    try:
        yield made
    finally:
        for slot in made.slots:
            slot.kill()
