"""The tables of pipelines: pipeline_runs, jobs, job_results, job_outputs, job_lines, job_points, sweep_trials."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from engine.journal.store import Store, now

State = Literal["WAITING", "RUNNING", "COMPLETE", "FAIL"]
LINES = 2000  # of a job's log that are kept


@dataclass(frozen=True)
class PipelineRun:
    """One configuration. run: its id. source: its file. config: as JSON.

    state: running, done, budget, stopped or failed. folder: that its relative paths start from.
    """

    run: str
    source: str
    project: str
    experiment: str
    config: str
    state: str
    note: str | None
    at: str
    ended: str | None = None
    folder: str = ""


@dataclass(frozen=True)
class JobRow:
    """A job as it stands. variant: of a sweep, 0 without one. result: id of what it gives, once its settings are known.

    place: among all jobs of the run, from 0. settings: as JSON. after: keys of the jobs that it needs, as JSON.
    reused: its result was there already.
    """

    run: str
    variant: int
    iteration: int
    pipeline: str
    place: int
    seed: int
    label: str
    phase: str
    hook: str
    component: str
    state: State = "WAITING"
    result: str | None = None
    settings: str = "{}"
    after: str = "[]"
    outputs: str = "[]"
    attempts: int = 0
    reused: int = 0
    seconds: float | None = None
    started: str | None = None
    finished: str | None = None
    error: str | None = None

    @property
    def key(self) -> str:
        """PIPELINE.LABEL."""
        return f"{self.pipeline}.{self.label}"

    @property
    def needs(self) -> list[str]:
        """The keys of the jobs that it needs."""
        return list(json.loads(self.after))


@dataclass(frozen=True)
class JobResult:
    """What a job gave. files: path → [size, time] of what it wrote, as JSON. tracked, outputs: as `values.encode`."""

    result: str
    component: str
    seconds: float
    tracked: str
    files: str
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A line of a job's log."""

    id: int
    at: str
    text: str


@dataclass(frozen=True)
class SweepTrial:
    """A variant of a sweep. params: as JSON. objective: its metric. steps: the metric after each iteration, as JSON.

    state: RUNNING, COMPLETE, FAIL or PRUNED.
    """

    run: str
    variant: int
    params: str
    state: str
    objective: float | None = None
    steps: str = "[]"
    note: str | None = None
    at: str = ""


def begin_run(store: Store, run: PipelineRun) -> None:
    """Record that a configuration runs; its jobs that ran when an engine ended wait again."""
    with store.transaction():
        store.put("pipeline_runs", asdict(run))
        for row in store.query("SELECT pipeline, label FROM jobs WHERE run = ? AND state = 'RUNNING'", (run.run,)):
            text = f"{row['pipeline']}.{row['label']} was cut off with its engine; it starts anew"
            store.event("recover", text, run.run, "warning")
        store.execute("UPDATE jobs SET state = 'WAITING' WHERE run = ? AND state IN ('RUNNING', 'FAIL')", (run.run,))


def end_run(store: Store, run: str, state: str, note: str) -> None:
    """Record how it ended."""
    sql = "UPDATE pipeline_runs SET state = ?, note = ?, ended = ? WHERE run = ?"
    store.execute(sql, (state, note, now(), run))


def runs(store: Store) -> list[PipelineRun]:
    """All runs, the latest first."""
    return [PipelineRun(**row) for row in store.query("SELECT * FROM pipeline_runs ORDER BY at DESC, run")]


def plan(store: Store, rows: list[JobRow]) -> None:
    """Write the jobs of an iteration, which wait, in place of what stands there. Their last results stay known."""
    sql = "DELETE FROM jobs WHERE run = ? AND variant = ? AND iteration = ?"
    with store.transaction():
        for run, variant, iteration in {(row.run, row.variant, row.iteration) for row in rows}:
            there = [r for r in jobs_of(store, run) if (r.variant, r.iteration) == (variant, iteration)]
            last = {(r.key, r.component, r.seed): r.result for r in there}
            store.execute(sql, (run, variant, iteration))
            rows = [replace(row, result=last.get((row.key, row.component, row.seed))) for row in rows]
        store.put("jobs", [asdict(row) for row in rows])


def forget_after(store: Store, run: str, variant: int, iteration: int) -> None:
    """Drop the rows of iterations after this one, which a run that ends earlier now had before."""
    store.execute("DELETE FROM jobs WHERE run = ? AND variant = ? AND iteration > ?", (run, variant, iteration))


def save(store: Store, row: JobRow) -> JobRow:
    """Write a job's row."""
    store.put("jobs", asdict(row))
    return row


def started(store: Store, row: JobRow) -> JobRow:
    """It runs now."""
    return save(
        store, replace(row, state="RUNNING", attempts=row.attempts + 1, started=now(), finished=None, error=None)
    )


def finished(store: Store, row: JobRow, result: JobResult, reused: bool) -> JobRow:
    """It has ended well; its result is kept with it."""
    with store.transaction():
        if not reused:
            content = asdict(result)
            outputs = content.pop("outputs")
            store.put("job_results", {**content, "at": now()})
            store.execute("DELETE FROM job_outputs WHERE result = ?", (result.result,))
            store.put("job_outputs", [
                {"result": result.result, "place": place, "content": text} for place, text in enumerate(outputs)
            ])  # fmt: skip
        return save(store, replace(
            row, state="COMPLETE", result=result.result, seconds=result.seconds, finished=now(), reused=int(reused),
            error=None,
        ))  # fmt: skip


def failed(store: Store, row: JobRow, error: str) -> JobRow:
    """It has ended with an error."""
    return save(store, replace(row, state="FAIL", finished=now(), error=error))


def jobs_of(store: Store, run: str) -> list[JobRow]:
    """All jobs of a run, in the order of their run."""
    sql = "SELECT * FROM jobs WHERE run = ? ORDER BY variant, iteration, place, seed"
    return [JobRow(**row) for row in store.query(sql, (run,))]


def result(store: Store, key: str) -> JobResult | None:
    """A stored result."""
    row = store.one("SELECT result, component, seconds, tracked, files FROM job_results WHERE result = ?", (key,))
    return None if row is None else JobResult(**row, outputs=tuple(outputs(store, key)))


def outputs(store: Store, key: str) -> list[str]:
    """The outputs of a result, in order, as `values.encode` wrote them."""
    sql = "SELECT content FROM job_outputs WHERE result = ? ORDER BY place"
    return [str(row["content"]) for row in store.query(sql, (key,))]


def forget(store: Store, keys: Iterable[str]) -> int:
    """Drop results, so that their jobs run again; how many there were."""
    count = 0
    with store.transaction():
        for key in keys:
            store.execute("DELETE FROM job_outputs WHERE result = ?", (key,))
            count += store.execute("DELETE FROM job_results WHERE result = ?", (key,))
    return count


def add_lines(store: Store, key: str, texts: Iterable[str]) -> None:
    """Add to a job's log; beyond LINES the oldest go."""
    with store.transaction():
        store.put("job_lines", [{"result": key, "text": text, "at": now()} for text in texts])
        sql = "DELETE FROM job_lines WHERE result = ? AND id <= (SELECT max(id) - ? FROM job_lines WHERE result = ?)"
        store.execute(sql, (key, LINES, key))


def lines(store: Store, key: str, count: int = LINES) -> list[Line]:
    """The last lines of a job's log, oldest first."""
    sql = "SELECT id, at, text FROM job_lines WHERE result = ? ORDER BY id DESC LIMIT ?"
    return [Line(**row) for row in store.query(sql, (key, count))][::-1]


def add_points(store: Store, key: str, points: Iterable[tuple[str, int, float]]) -> None:
    """Add to a job's curves."""
    store.put("job_points", [{"result": key, "name": n, "step": s, "value": v} for n, s, v in points])


def points(store: Store, key: str) -> dict[str, list[tuple[int, float]]]:
    """Name → (step, value) of a job's curves."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in store.query("SELECT name, step, value FROM job_points WHERE result = ? ORDER BY name, step", (key,)):
        found.setdefault(row["name"], []).append((row["step"], row["value"]))
    return found


def durations(store: Store, component: str) -> list[float]:
    """Seconds that jobs of a component took."""
    sql = "SELECT seconds FROM job_results WHERE component = ? ORDER BY at"
    return [float(row["seconds"]) for row in store.query(sql, (component,))]


def put_scores(store: Store, row: JobRow, scored: Iterable[tuple[str, int, str, float | None]]) -> None:
    """Write what pools were evaluated to: (pool, seed, metric, value), in place of what the job had before."""
    with store.transaction():
        sql = "DELETE FROM pool_scores WHERE run = ? AND variant = ? AND iteration = ? AND place = ?"
        store.execute(sql, (row.run, row.variant, row.iteration, row.place))
        store.put("pool_scores", [
            {"run": row.run, "variant": row.variant, "iteration": row.iteration, "place": row.place, "label": pool,
             "seed": seed, "name": name, "value": value}
            for pool, seed, name, value in scored
        ])  # fmt: skip


@dataclass(frozen=True)
class PoolScore:
    """A pool's metric at a seed, as a ranking job had it. label: the pool's path."""

    variant: int
    iteration: int
    place: int
    label: str
    seed: int
    name: str
    value: float | None


def scores(store: Store, run: str) -> list[PoolScore]:
    """All that pools of a run were evaluated to."""
    sql = (
        "SELECT variant, iteration, place, label, seed, name, value FROM pool_scores WHERE run = ? "
        "ORDER BY variant, iteration, place, label, name, seed"
    )
    return [PoolScore(**row) for row in store.query(sql, (run,))]


def put_trial(store: Store, trial: SweepTrial) -> None:
    """Write a variant of a sweep."""
    store.put("sweep_trials", asdict(replace(trial, at=now())))


def sweep(store: Store, run: str) -> list[SweepTrial]:
    """The variants of a sweep, in order."""
    return [
        SweepTrial(**row) for row in store.query("SELECT * FROM sweep_trials WHERE run = ? ORDER BY variant", (run,))
    ]


def files_of(stored: str) -> Mapping[str, list[int]]:
    """The files of a result."""
    found: Mapping[str, list[int]] = json.loads(stored)
    return found
