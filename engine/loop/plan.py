"""The plan: trials of every stage and their device time, before anything is spent (Section 3.2.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.base.amounts import parse_budget
from engine.base.gpus import gpu_memory
from engine.journal.store import Row
from engine.loop import fitting
from engine.runner.accounts import Accounts
from engine.runner.scheduler import scheduler
from engine.search.units import units
from engine.settings.target import TargetSection
from engine.study.forecast import forecast, refuse_if_full
from engine.study.hoeffding import PoolBound
from engine.study.opened import OpenStudy
from engine.study.sample import Seen, look_at, skip_search
from engine.study.target import remarks
from engine.tasks.contract import Outside


def make_plan(opened: OpenStudy, workers: int | None, budget: str | None = None) -> Row:
    """The most that each stage may ask for. Later stages depend on results, so theirs are upper bounds.

    With a task, a few steps are timed on the first device unless trials were measured already. Then a study that leaves
    its sizes open is designed, to `budget` or to its own, unless it was before and no other is asked for.
    """
    note = skip_search(opened)
    study = opened.study
    refuse_if_full(opened)
    seen = look_at(opened) if study.task else None
    ahead: Row = {"forecast": {**forecast(opened, seen).to_json(), "notes": [note] if note else []}, "design": []}
    ahead["pool_bound"] = None
    ahead["target"] = list[str]()
    if study.task is None:
        stage = {"stage": "pools", "trials": 0, "what": units(opened)[0].what, "seconds": None}
        return {"stages": [stage], "seconds": None, **ahead}
    if isinstance(opened.task, Outside) and opened.task.expected(study) is None:
        ahead["pool_bound"] = PoolBound.of(opened.pool_size, study.confirm.seeds).to_json()
        rows: list[Row] = [
            {"stage": u.stage, "trials": u.trials, "what": u.what, "seconds": None} for u in units(opened)
        ]
        unknown = "device time is not known before a trial has run; set command.expected to what one takes"
        return {"stages": rows, "seconds": None, "note": unknown, **ahead}
    anew, budget = budget is not None, budget or study.budget
    limit = parse_budget(budget)
    with scheduler(seen.study if seen else opened, limit, workers) as timer:
        timer.calibrate(charge=False)
        ahead["design"] = fitting.look(opened, timer.accounts, anew)
        study, size = opened.study, opened.pool_size
        ahead["pool_bound"] = PoolBound.of(size, study.confirm.seeds).to_json()
        ahead["target"] = _target(opened, seen)

        def seconds(samples: float) -> float:
            found = timer.accounts.estimate(int(samples))
            assert found is not None
            return found

        per_trial = size * opened.epochs
        stages: list[Row] = [
            {"stage": u.stage, "trials": u.trials, "what": u.what,
             "seconds": u.trials * seconds(per_trial * u.length / u.trials) if u.trials else 0.0}
            for u in units(opened)
        ]  # fmt: skip
        if study.cycles.max > 1:
            stages.append(_further(study.cycles.max, stages))
        devices = sum(slot.width for slot in timer.slots)
        ahead["forecast"]["training"] = _memory(timer.accounts)
        t_full = seconds(int(opened.scan.good.sum()) * study.train.epochs)
    total = sum(float(s["seconds"]) for s in stages)
    m = sum(int(s["trials"]) for s in stages)
    r = total / m / t_full
    return {
        "stages": stages, "seconds": total, "wall_seconds": total / devices, "devices": devices,
        "devices_per_trial": study.devices_per_trial,
        "budget": budget, "fits": total <= limit, "pool_size": size, "t_full": t_full, "m": m, "r": r,
        "with_sandbox": (1 + m * r) * t_full, "break_even": math.floor(1 + m * r) + 1, **ahead,
    }  # fmt: skip


def _target(opened: OpenStudy, seen: Seen | None) -> list[str]:
    """What of the target lies far beyond the probes, and how they repeat their rows."""
    if opened.study.target == TargetSection():
        return []
    parameters = opened.task.parameters(seen.study.study, seen.study.prepared) if seen else None
    probe = opened.probe
    told = (
        [f"a probe has {probe.rows:,} rows and sees each {probe.epochs:.3g} times, as the target"]
        if probe.matched
        else []
    )
    return [*told, *(f"WARNING: {text}" for text in remarks(opened.study, probe, parameters))]


def _further(cycles: int, stages: Sequence[Row]) -> Row:
    """What the cycles after the first take at most, in one line."""
    last = f" to {cycles}" if cycles > 2 else ""
    return {
        "stage": "cycles", "trials": (cycles - 1) * sum(s["trials"] for s in stages),
        "what": f"cycle 2{last}: all stages again, from the best checkpoint, while a recipe is confirmed",
        "seconds": (cycles - 1) * sum(s["seconds"] for s in stages),
    }  # fmt: skip


def _memory(accounts: Accounts) -> Row | None:
    """Bytes that a training is forecast to take on each device, and those of the smallest GPU here; None: unknown."""
    calibration = accounts.calibration
    if calibration is None or calibration.memory is None:
        return None
    sizes = calibration.memory
    return {
        **sizes, "total": sum(sizes.values()), "device": min(gpu_memory(), default=None),
        "micro_batch": calibration.micro, "activation_checkpointing": calibration.checkpointing,
    }  # fmt: skip
