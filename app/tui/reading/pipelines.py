"""What the UI shows of pipelines: their jobs, and of one job its settings, outputs and log."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.text.boards import lines_of
from engine.base.errors import DjsbError
from engine.base.paths import DATABASE, STATE_FOLDER
from engine.journal import jobs
from engine.journal.store import Row, Store
from engine.pipeline import values
from engine.study.view import store_to_read

SHOWN = 4_000  # characters of an output, of settings
LINES = 200  # of a job's log
KEPT = (
    "variant", "iteration", "seed", "pipeline", "place", "label", "phase", "component", "state", "reused", "seconds",
    "started", "error",
)  # fmt: skip


@dataclass
class PipelineView:
    """A folder that holds pipelines and no study."""

    folder: Path
    store: Store

    @property
    def state(self) -> Path:
        """The folder of its database and logs."""
        return self.folder / STATE_FOLDER


def opened(folder: Path, error: DjsbError) -> PipelineView:
    """The pipelines of a folder without a study. Raises: the error where there are none."""
    state = folder / STATE_FOLDER
    if not (state / DATABASE).exists():
        raise error
    store = store_to_read(state)
    if not jobs.runs(store):
        store.close()
        raise error
    return PipelineView(folder, store)


def pipelines(store: Store) -> tuple[Row, ...]:
    """All runs, the latest first, each with its jobs and the variants of its sweep."""
    return tuple(
        {
            **asdict(run),
            "jobs": [{name: getattr(row, name) for name in KEPT} for row in jobs.jobs_of(store, run.run)],
            "sweep": [asdict(trial) for trial in jobs.sweep(store, run.run)],
            "pools": _pools(store, run.run),
        }
        for run in jobs.runs(store)
    )


def _pools(store: Store, run: str) -> list[Row]:
    """The pools that its jobs ranked, a table each: lines and what is not known of them."""
    scores = jobs.scores(store, run)
    if not scores:
        return []
    from engine.pipeline.board import last_boards  # SciPy: most folders have no ranking

    return [
        {"lines": ["  ".join(filter(None, line)) for line in lines_of(asdict(board))[0]], "notes": list(board.notes)}
        for board in last_boards(scores)
    ]


def light(view: PipelineView) -> dict[str, Any]:
    """The fields of a snapshot that a folder without a study has."""
    from engine.journal import costs, events
    from engine.study.lock import engine_pid

    found = pipelines(view.store)
    pid = engine_pid(view.state)
    running = [f"{j['pipeline']}.{j['label']}" for run in found for j in run["jobs"] if j["state"] == "RUNNING"]
    return {
        "folder": view.folder, "name": found[0]["project"], "engine": pid, "state": "running" if pid else "no engine",
        "stage": running[0] if running else "–", "spent": costs.total(view.store), "pipelines": found,
        "events": tuple(asdict(e) for e in events.last(view.store, 1000)),
    }  # fmt: skip


def job(view: Any, run: str, variant: int, iteration: int, place: int, seed: int) -> Row:
    """One job in full."""
    asked = (variant, iteration, place, seed)
    for row in jobs.jobs_of(view.store, run):
        if (row.variant, row.iteration, row.place, row.seed) == asked:
            names = json.loads(row.outputs)
            given = jobs.outputs(view.store, row.result) if row.result else []
            return {
                **{name: getattr(row, name) for name in KEPT}, "hook": row.hook, "after": row.needs,
                "attempts": row.attempts, "finished": row.finished,
                "outputs": [(name, str(values.decode(text))[:SHOWN]) for name, text in zip(names, given, strict=False)],
                "settings": row.settings[:SHOWN],
                "lines": [line.text for line in jobs.lines(view.store, row.result or "", LINES)],
            }  # fmt: skip
    raise DjsbError("this job is no longer there")
