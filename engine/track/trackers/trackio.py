"""trackio: a project in a SQLite file of the study's folder. `trackio sync` is for whoever wants it elsewhere."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import groupby

from engine.base.confine import inside
from engine.track.contract import Target, named
from engine.track.records import Scalar, StudyRun, TrialRun


class Trackio:
    """A project of trackio. Every row has an id of its own, which the database takes once."""

    live = True

    def __init__(self, target: Target) -> None:
        folder = inside(target.own, "trackio")
        os.environ["TRACKIO_DIR"] = str(folder)  # trackio reads it when it is imported
        from trackio.markdown import Markdown  # after that
        from trackio.sqlite_storage import SQLiteStorage
        from trackio.table import Table

        self._storage, self._markdown, self._table = SQLiteStorage, Markdown, Table
        self.project = named(target.project).replace(".", "-")
        self.look = f"TRACKIO_DIR={folder} trackio show --project {self.project}"
        self._sent: dict[str, int] = {}

    def write(self, run: TrialRun) -> int:
        """Write the steps that are new to this process; those that the database has, it leaves out."""
        steps = [(step, {p.name: p.value for p in at}) for step, at in groupby(run.points, lambda p: p.step)]
        new = [(step, values, f"{run.id}:{step}") for step, values in steps if step > self._sent.get(run.id, -1)]
        if run.ended is not None:
            new.append((run.last, dict(run.scores), f"{run.id}:{run.mark}"))
        before = int(self._storage.get_log_count(self.project, run.name, run_id=run.id))
        times = [datetime.fromtimestamp(run.at(step), UTC).isoformat() for step, _, _ in new]
        config: dict[str, Scalar] = {**run.params, "state": run.state, "note": run.note}
        self._storage.bulk_log(
            self.project, run.name, [values for _, values, _ in new], [step for step, _, _ in new], times, config,
            [key for _, _, key in new], run_id=run.id,
        )  # fmt: skip
        self._sent[run.id] = run.last
        there = int(self._storage.get_log_count(self.project, run.name, run_id=run.id))
        return sum(len(values) for _, values, _ in new[len(new) - (there - before) :]) if there > before else 0

    def summarise(self, study: StudyRun) -> None:
        """Write the numbers, the answer as a report, and the leaderboard as a table."""
        columns = list(study.table[0]) if study.table else []
        rows = [["" if row[c] is None else row[c] for c in columns] for row in study.table]
        values = {**study.numbers, "answer": self._markdown(study.text)._to_dict()}
        if rows:
            table = self._table(columns=columns, data=rows)
            values["leaderboard"] = table._to_dict(self.project, study.id, study.step)
        self._storage.bulk_log(
            self.project, study.name, [values], [study.step], None, {**study.params},
            [f"{study.id}:{study.mark}"], run_id=study.id,
        )  # fmt: skip

    def close(self) -> None:
        """Every row is written when it is given."""
