"""What the UI shows of a study, read from its database in one go: values only, nothing is drawn here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from engine.budget import parse_budget
from engine.cycles import lineage
from engine.errors import DjsbError
from engine.open_study import OpenStudy, engine_pid, view_study
from engine.outcome import insights
from engine.pools import BUCKETS
from engine.ranking import FRESH, leaderboard
from engine.store import Row
from engine.study import STAGES, STATE_FOLDER

EVENTS = 1000  # latest, that the log shows
BURN = 120  # points of the budget's curve
LOSS = 40  # points of a running trial's sparkline
BINS = 48  # of a histogram
EXAMPLES = 3  # rows of each bucket


@dataclass(frozen=True)
class Snapshot:
    """The study as it stood at one moment. board: rows of the leaderboard, None until it was first computed."""

    folder: Path
    name: str = ""
    context: str = ""
    engine: int | None = None
    state: str = "no engine"
    stage: str = "–"
    stages: tuple[Row, ...] = ()
    spent: float = 0.0
    limit: float = 0.0
    rate: float | None = None  # device-seconds a second, of the last minutes
    burn: tuple[float, ...] = ()
    running: tuple[Row, ...] = ()
    waiting: int = 0
    trials: tuple[Row, ...] = ()
    proposals: tuple[Row, ...] = ()
    decisions: tuple[Row, ...] = ()
    events: tuple[Row, ...] = ()
    insights: dict[str, list[Row]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    board: tuple[Row, ...] | None = None
    buckets: tuple[str, ...] = ()
    problem: str = ""

    @property
    def queued(self) -> list[Row]:
        """Proposals that wait for a person."""
        return [p for p in self.proposals if p["status"] in ("queued", "held")]

    @property
    def eta(self) -> float | None:
        """Seconds until the budget is spent at the present rate, or None."""
        return (self.limit - self.spent) / self.rate if self.rate and self.engine else None


def light(view: OpenStudy) -> dict[str, Any]:
    """All fields of a snapshot that take no statistics to compute."""
    store, context = view.store, view.context
    pid = engine_pid(view.folder / STATE_FOLDER)
    states = store.query(
        "SELECT stage, state, count(*) AS n FROM trials WHERE context = ? GROUP BY stage, state", (context,)
    )
    stages = [{"stage": s, **{r["state"]: r["n"] for r in states if r["stage"] == s}} for s in STAGES]
    said = store.result(context, "engine") or "running"
    costs = store.query("SELECT seconds, at FROM costs ORDER BY at")
    names = ("recipe", "unconfirmed", "statistics", "metrics", "scale")
    return {
        "folder": view.folder, "name": view.study.name, "context": context, "engine": pid,
        "state": said if pid else "no engine", "stage": _stage(stages), "stages": tuple(stages),
        "spent": sum(c["seconds"] for c in costs),
        "limit": store.result(context, "budget") or parse_budget(view.study.budget),
        "rate": _rate(costs), "burn": _burn(costs), "running": tuple(_running(view)),
        "waiting": sum(s.get("WAITING", 0) for s in stages), "trials": tuple(_trials(view)),
        "proposals": tuple(_proposals(view)), "decisions": tuple(_decisions(view)),
        "events": tuple(store.query(f"SELECT * FROM events ORDER BY id DESC LIMIT {EVENTS}")),
        "buckets": BUCKETS[view.study.pools.buckets], "insights": insights(view),
        "results": {**{n: store.result(context, n) for n in names}, "lineage": lineage(view)},
    }  # fmt: skip


def board(view: OpenStudy) -> tuple[Row, ...]:
    """The leaderboard's rows, and whatever else takes statistics."""
    return tuple(leaderboard(view))


def opened(folder: Path) -> OpenStudy:
    """The study to look at. Raises: DjsbError."""
    return view_study(folder)


def unreadable(folder: Path, error: DjsbError) -> Snapshot:
    """A snapshot that only says what is wrong."""
    return Snapshot(folder, problem=str(error))


def _stage(stages: Sequence[Row]) -> str:
    """The stage that runs or waits, else the last one with results."""
    busy = [s["stage"] for s in stages if s.get("RUNNING") or s.get("WAITING")]
    done = [s["stage"] for s in stages if s.get("COMPLETE")]
    return str(busy[0] if busy else done[-1] if done else "–")


def _rate(costs: Sequence[Row]) -> float | None:
    """Device-seconds charged per second since five minutes before the last charge."""
    if not costs:
        return None
    times = [datetime.fromisoformat(c["at"]).timestamp() for c in costs]
    start = max(times[0], times[-1] - 300)
    wall = times[-1] - start
    spent = sum(c["seconds"] for c, t in zip(costs, times, strict=True) if t > start)
    return spent / wall if wall > 1 and spent else None


def _burn(costs: Sequence[Row]) -> tuple[float, ...]:
    """Device-seconds spent, over the attempts so far."""
    total = list(accumulate(c["seconds"] for c in costs))
    step = max(1, len(total) // BURN)
    return tuple(total[step - 1 :: step])


def _running(view: OpenStudy) -> list[Row]:
    rows = view.store.query(
        "SELECT t.id, t.device, t.seed, t.samples, t.resumed, p.label, p.kind, t.started, t.estimate, c.seconds "
        "FROM trials t JOIN pools p ON p.id = t.pool LEFT JOIN costs c ON c.id = t.id || ':' || t.attempts "
        "WHERE t.context = ? AND t.state = 'RUNNING' ORDER BY t.device, t.started, t.id",
        (view.context,),
    )
    for row in rows:
        points = view.store.query(
            "SELECT step, value FROM curve_points WHERE trial = ? AND name = 'loss' ORDER BY step DESC LIMIT ?",
            (row["id"], LOSS),
        )
        row["loss"] = [p["value"] for p in reversed(points) if p["value"] is not None]
        row["step"] = points[0]["step"] if points else 0
    return rows


def _trials(view: OpenStudy) -> list[Row]:
    return view.store.query(
        "SELECT t.id, p.label, p.kind, t.pool, t.seed, t.stage, t.state, t.samples, t.horizon, t.seconds, t.device, "
        "t.attempts, t.error, t.started, t.finished FROM trials t JOIN pools p ON p.id = t.pool "
        "WHERE t.context = ? ORDER BY coalesce(t.finished, t.started, 'z'), t.id",
        (view.context,),
    )


def _proposals(view: OpenStudy) -> list[Row]:
    rows = view.store.query(
        "SELECT * FROM proposals WHERE context = ? AND status != 'superseded' ORDER BY at, id", (view.context,)
    )
    return [{**r, "content": json.loads(r["content"])} for r in rows]


def _decisions(view: OpenStudy) -> list[Row]:
    return view.store.query(
        "SELECT d.*, p.kind, p.stage, p.origin FROM decisions d LEFT JOIN proposals p ON p.id = d.proposal "
        "ORDER BY d.id"
    )


def curves(view: OpenStudy, trials: Sequence[str], name: str) -> dict[str, list[tuple[int, float]]]:
    """Curves of a few trials. name: of the value, e.g. loss."""
    found = {}
    for trial in trials:
        points = view.store.query(
            "SELECT step, value FROM curve_points WHERE trial = ? AND name = ? AND value IS NOT NULL ORDER BY step",
            (trial, name),
        )
        found[trial] = [(p["step"], p["value"]) for p in points]
    return found


def trial_details(view: OpenStudy, trial: str) -> Row:
    """Metrics, names of curves and configuration of one trial; those of fresh seeds are a person's to see."""
    metrics = view.store.query("SELECT name, value FROM metrics WHERE trial = ? ORDER BY name", (trial,))
    names = view.store.query("SELECT DISTINCT name FROM curve_points WHERE trial = ? ORDER BY name", (trial,))
    row = view.store.one(
        "SELECT t.*, p.label, p.content FROM trials t JOIN pools p ON p.id = t.pool WHERE t.id = ?", (trial,)
    )
    if row is None:
        return {}
    return {
        **row, "content": json.loads(row["content"]), "metrics": {m["name"]: m["value"] for m in metrics},
        "curves": [n["name"] for n in names], "fresh": row["seed"] >= FRESH,
    }  # fmt: skip


def statistic(view: OpenStudy, name: str) -> Row:
    """One statistic's histogram and buckets, and rows of each bucket; the data are read for it."""
    column = view.columns.get(name)
    if column is None:
        return {}
    values = column.value[view.scan.good]
    values = values[~np.isnan(values)]
    counts, edges = np.histogram(values, BINS)
    field = view.data.fields.text
    examples = {}
    for cut in view.cuts:
        if cut.slice.statistic == name and cut.reason is None:
            rows = view.realise(cut.pool)[:EXAMPLES]
            examples[cut.bucket] = [
                {"row": int(n), "value": float(column.value[n]), "text": str(row.get(field or "") or "")[:300]}
                for n, row in zip(rows, view.data.take(rows), strict=True)
            ]
    bounds = sorted({c.slice.high for c in view.cuts if c.slice.statistic == name and c.slice.high is not None})
    return {
        "name": name, "counts": counts.tolist(), "edges": edges.tolist(), "bounds": bounds, "examples": examples
    }  # fmt: skip


def recipe_yaml(view: OpenStudy, pool: str | None) -> str:
    """A pool's recipe, or the confirmed one."""
    from app.export import recipe

    return recipe(view.folder, pool)


QUESTIONS: dict[str, Callable[..., Any]] = {
    "curves": curves,
    "trial": trial_details,
    "statistic": statistic,
    "recipe": recipe_yaml,
}  # what the UI may ask for by name
