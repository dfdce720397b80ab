"""Mapped rows of a study: which rows its trials need, their caches, and what the mappers cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.base.amounts import format_seconds
from engine.base.errors import DataError, OpError
from engine.base.ids import content_id
from engine.data import datajuicer
from engine.data.catalogue import mapper_model
from engine.data.mappers import MapperRun, Mappers, Numbers, failures, key_of, weights_of
from engine.data.tars import media_root
from engine.journal import costs, results, trials
from engine.journal.trials import QueuedTrial
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy
from engine.tasks.contract import Rows


@dataclass
class MappedRows:
    """The mapped rows that a scheduler's trials train on, in one cycle."""

    opened: OpenStudy
    accounts: Accounts
    _prepared: dict[Mappers, Path] = field(default_factory=dict)

    def prepared(self, trial: QueuedTrial) -> Path:
        """The folder of the caches that a trial trains on. Its rows must have been mapped."""
        mappers = trial.rows.mappers
        return self._prepared[mappers] if mappers else self.opened.prepared

    def ensure(self, queue: Iterable[QueuedTrial], stopped: Callable[[], bool]) -> str:
        """Map the rows of these trials and make their caches; why it ended before that, or nothing.

        Every part is charged as it is done. Raises: OpError, DataError when a mapper cannot run.
        """
        for mappers in filter(None, dict.fromkeys(t.rows.mappers for t in queue)):
            rows = self._rows(mappers)
            work = self._work(mappers)
            note = self._map(work, rows, stopped)
            if note:
                return note
            self._tell(work, rows)
            self._prepared[mappers] = self._caches(work, rows)
        return ""

    def _rows(self, mappers: Mappers) -> Numbers:
        """The rows that all trials of the cycle with these mappers draw."""
        pools = trials.mapped_pools(self.opened.store, self.opened.setup)
        drawn = [self.opened.realise(pool, seed) for pool, seed in pools if pool.mappers == mappers]
        return np.unique(np.concatenate(drawn))

    def _work(self, mappers: Mappers) -> MapperRun:
        opened = self.opened
        key = content_id([opened.data.fingerprint, opened.data.key, key_of(mappers), datajuicer.version()])
        folder = opened.state / "cache" / "rewritten" / key
        return MapperRun(opened.data, media_root(opened.data.path, opened.state), mappers, opened.folder, folder)

    def _map(self, work: MapperRun, rows: Numbers, stopped: Callable[[], bool]) -> str:
        """Map what is missing within the budget."""
        opened, name = self.opened, " and ".join(m.op for m in work.mappers)
        if not work.missing(rows):
            return ""
        for m in work.mappers:
            if weights_of(m.op, dict(m.params), opened.folder) != m.weights:
                raise OpError(f"{m.op}: its model has changed since it was proposed; propose it again")
        workers = opened.workers
        if any(mapper_model(m.op) for m in work.mappers):
            from engine.base.gpus import gpus

            workers = len(gpus()) or workers
        done = 0
        parts = work.run(rows, workers)
        for start, count, seconds in parts:
            done += count
            opened.notice(f"mapping by {name}", done, len(rows))
            with opened.store.transaction():
                self._charge(work, start, seconds)
            over = self.accounts.spent() > self.accounts.cap
            if over or stopped():
                parts.close()  # type: ignore[attr-defined]
                if work.missing(rows):
                    limit = format_seconds(self.accounts.limit)
                    return f"the budget of {limit} ended while rows were mapped" if over else "stopped"
        return ""

    def _charge(self, work: MapperRun, start: int, seconds: float) -> None:
        """What a part took, on top of what was charged for it before."""
        key = f"mapper:{work.folder.name}:{start}"
        costs.charge(self.opened.store, key, "mapper", seconds + costs.get(self.opened.store, key))

    def _tell(self, work: MapperRun, rows: Numbers) -> None:
        """Store what the mappers did. Raises: DataError when they fail on more rows than may be bad."""
        summary = work.summary(rows)
        results.mapped(key_of(work.mappers)).put(self.opened.store, self.opened.setup, summary)
        failed = failures(summary)
        limit = self.opened.study.dataset.max_bad
        if failed > limit * len(rows) or failed == len(rows):
            reason = max(summary.kept, key=summary.kept.__getitem__)
            raise DataError(
                f"{' and '.join(summary.mappers)} fails on {failed} of {len(rows)} rows (dataset.max_bad is "
                f"{limit:.0%}): {reason}; mend the cause, remove {work.folder}, and the same command goes on"
            )

    def _caches(self, work: MapperRun, rows: Numbers) -> Path:
        """The task's caches of the mapped rows; what they have in common with the study's own is shared."""
        opened = self.opened
        good = np.zeros(len(opened.data), bool)
        good[rows] = True
        same = frozenset({"text", "image", "video"}) - work.changes
        train = Rows(work.dataset(rows), work.root, good, opened.prepared, same, opened.forms.get("train", "raw"))
        return opened.prepare(train)
