"""What the report says of pipelines: their jobs, what these gave, the pools that they ranked, their sweeps."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from engine.base.ids import some
from engine.base.paths import DATABASE, STATE_FOLDER, STUDY_FILE
from engine.journal import jobs
from engine.journal.jobs import JobRow
from engine.journal.store import Row, Store
from engine.pipeline import values
from engine.pipeline.board import Board, boards, short
from engine.study.view import store_to_read

SHOWN = 200  # characters of an output
MOST = 500  # jobs of a run


def pipelines(store: Store) -> list[Row]:
    """All runs, the latest first, as the template names them."""
    return [
        {
            **some(run, "project", "experiment", "source", "state", "note"),
            "jobs": [_job(store, row) for row in rows[-MOST:]],
            "several": len({(row.variant, row.iteration, row.seed) for row in rows}) > 1,
            "boards": [_board(board) for board in boards(jobs.scores(store, run.run))],
            "sweep": [asdict(trial) for trial in jobs.sweep(store, run.run)],
        }
        for run in jobs.runs(store)
        for rows in (jobs.jobs_of(store, run.run),)
    ]


def only_pipelines(folder: Path) -> list[Row]:
    """The pipelines of a folder that holds no study; empty where it does, or has neither."""
    state = folder / STATE_FOLDER
    if (folder / STUDY_FILE).exists() or not (state / DATABASE).exists():
        return []
    with store_to_read(state) as store:
        return pipelines(store)


def _job(store: Store, row: JobRow) -> Row:
    names = json.loads(row.outputs)
    given = jobs.outputs(store, row.result) if row.result and row.state == "COMPLETE" else []
    shown = [(name, _short(values.decode(text))) for name, text in zip(names, given, strict=False)]
    fields = some(row, "key", "variant", "iteration", "seed", "component", "state", "reused", "seconds", "error")
    return {**fields, "outputs": shown}


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _board(board: Board) -> Row:
    names = list(board.rows[0].means)
    rows = []
    for row in board.rows:
        metrics = []
        for name in names:
            mean, spread = row.means[name], row.deviations[name]
            metrics.append("–" if mean is None else f"{mean:.4g}" + (f" ± {spread:.2g}" if spread is not None else ""))
        fields = some(row, "change", "ci_low", "ci_high", "seeds", "verdict")
        rows.append({"pool": short(row.pool), "metrics": metrics, **fields})
    return {"metrics": names, "rows": rows, "notes": board.notes}
