"""What the study's database says of trials and leaderboard, as trackers get it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from engine.base.ids import content_id, json_text
from engine.base.secrets import redact
from engine.evidence.answer import answer
from engine.evidence.ranking import leaderboard
from engine.journal import costs, curves, cycles, metrics, setups, trials
from engine.records.leaderboard import Entry, in_percent
from engine.records.trial import Trial
from engine.study.lock import engine_pid
from engine.study.view import StudyView
from engine.track.records import STATES, Point, Scalar, StudyRun, TrialRun

SCORES = "eval/"  # how the names of scores begin
SHOWN = 30  # pools of the table in the text
COLUMNS = (
    "pool", "label", "kind", "size", "share", "verdict", "change", "ci_low", "ci_high", "std", "shrunk", "bound",
    "p_best", "p", "q", "seeds", "dropped",
)  # fmt: skip


def mark_of(trial: Trial) -> str:
    """What a trial has when it has ended, and another one when it has ended anew."""
    return f"{trial.state}:{trial.attempts}:{trial.finished}"


def trial_run(view: StudyView, trial: Trial) -> TrialRun:
    """A trial with its curves and, once it has ended, its scores and cost."""
    points = tuple(
        Point(f"train/{p.name}", p.step, p.value)
        for p in sorted(curves.of_trial(view.store, trial.id), key=lambda p: (p.step, p.name)) if p.value is not None
    )  # fmt: skip
    over = trial.state in ("COMPLETE", "FAIL", "CANCELLED")
    scores: dict[str, float] = {}
    if over:
        measured = metrics.of_trial(view.store, trial.id)
        scores = {f"{SCORES}{name}": value for name, value in measured.items() if value is not None}
        scores["cost/device_seconds"] = sum(c.seconds for c in costs.of_trial(view.store, trial.id))
        scores["cost/attempts"] = float(trial.attempts)
    began, ended = (seconds(t) if t else None for t in (trial.started, trial.finished if over else None))
    return TrialRun(
        trial.id, _study_of(view, trial), redact(f"{trial.label}, seed {trial.seed}"), trial.stage,
        _params(view, trial), points, scores, STATES[trial.state], redact(trial.error or ""), began or 0.0, ended,
        mark_of(trial),
    )  # fmt: skip


def _study_of(view: StudyView, trial: Trial) -> str:
    """The run that a trial belongs to: that of its setting; a recipe elsewhere belongs to the study as it is."""
    return cycles.get(view.store, trial.setup).root if setups.get(view.store, trial.setup) else view.root


def _params(view: StudyView, trial: Trial) -> dict[str, Scalar]:
    facts: dict[str, Any] = {
        "pool": "control" if trial.kind == "control" else trial.pool, "pool_id": trial.pool, "label": trial.label,
        "kind": trial.kind, "seed": trial.seed, "stage": trial.stage, "samples": trial.samples,
        "horizon": trial.horizon, "setup": trial.setup, "cycle": cycles.get(view.store, trial.setup).cycle,
        "study": view.study.name, "task": view.study.task, "init": trial.init, "proposal": trial.proposal,
        "device": trial.device,
    }  # fmt: skip
    procedure = json.loads(trial.procedure) if trial.procedure else {}
    if isinstance(procedure, dict):
        facts |= {f"procedure/{name}": value for name, value in procedure.items()}
    return plain(facts)


def plain(facts: Mapping[str, Any]) -> dict[str, Scalar]:
    """Facts without those that are none; what is no number or text as JSON; keys blacked out."""
    made: dict[str, Scalar] = {}
    for name, value in facts.items():
        if isinstance(value, str):
            made[name] = redact(value)
        elif isinstance(value, bool | int | float):
            made[name] = value
        elif value is not None:
            made[name] = redact(json_text(value))
    return made


def study_run(view: StudyView) -> StudyRun:
    """The study as it stands: answer, leaderboard, what was spent."""
    store, told, entries = view.store, answer(view), leaderboard(view)
    made, complete, _ = trials.progress(store, view.setup)
    numbers = {
        "trials": float(made), "trials_complete": float(complete), "cost/device_seconds": costs.total(store),
        "cost/budget_seconds": view.limit,
    } | _of_best(entries)  # fmt: skip
    text = redact("\n\n".join([told.text, *told.reasons, *([told.remedy] if told.remedy else []), _markdown(entries)]))
    table = tuple({name: getattr(e, name) for name in COLUMNS} for e in entries)
    config = json.loads(view.study.model_dump_json(exclude={"agent", "notify", "guard", "track"}))
    params = plain({"answer": told.kind, "cycle": view.cycle, **_flat("", config)})
    first = setups.get(store, view.root)
    began = seconds(first.at) if first else 0.0
    return StudyRun(
        view.root, redact(view.study.name), params, text, table, numbers, complete, began,
        engine_pid(view.state) is None,
        content_id([text, json_text(table), json_text(numbers), json_text(params)]),
    )  # fmt: skip


def _of_best(entries: list[Entry]) -> dict[str, float]:
    best = next((e for e in entries if e.change is not None), None)
    if best is None:
        return {}
    values = {"best/change": best.change, "best/ci_low": best.ci_low, "best/ci_high": best.ci_high,
              "best/p_best": best.p_best}  # fmt: skip
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def _markdown(entries: list[Entry]) -> str:
    lines = ["| verdict | pool | change against the control | P(best) | seeds |", "|---|---|---|---|---|"]
    for e in entries[:SHOWN]:
        best = "–" if e.p_best is None else f"{e.p_best:.2f}"
        label = e.label.replace("|", "\\|")
        lines.append(f"| {e.verdict} | {label} | {in_percent(e.change, e.ci_low, e.ci_high)} | {best} | {e.seeds} |")
    more = [f"\n… and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return "\n".join([*lines, *more]) if entries else "No pool was cut yet."


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    """`train.epochs` → 4, of a nested mapping."""
    if not isinstance(value, dict):
        return {prefix: value}
    parts = [_flat(f"{prefix}.{name}" if prefix else name, part) for name, part in value.items()]
    return {name: one for part in parts for name, one in part.items()}


def seconds(at: str) -> float:
    """A time of the database as seconds since 1970."""
    return datetime.fromisoformat(at).timestamp()
