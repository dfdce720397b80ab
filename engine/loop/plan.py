"""The plan: trials of every stage and their device time, before anything is spent (Section 3.2.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.base.amounts import parse_budget
from engine.base.gpus import gpu_memory
from engine.journal.store import Row
from engine.runner.accounts import Accounts
from engine.runner.scheduler import scheduler
from engine.search.control import NOISIEST, control_seeds
from engine.search.race import CONTROL_SEEDS, bound
from engine.settings.study import Study
from engine.study.forecast import are_complete, forecast, refuse_if_full
from engine.study.hoeffding import PoolBound
from engine.study.opened import OpenStudy
from engine.study.sample import look_at, skip_search
from engine.tasks.contract import Outside

TAILS = 2  # pools without what is rare, of a statistic of many values


def make_plan(opened: OpenStudy, workers: int | None) -> Row:
    """The most that each stage may ask for. Later stages depend on results, so theirs are upper bounds.

    With a task, a few steps are timed on the first device unless trials were measured already.
    """
    note = skip_search(opened)
    study, size = opened.study, opened.pool_size
    refuse_if_full(opened)
    seen = look_at(opened) if study.task else None
    ahead: Row = {"forecast": {**forecast(opened, seen).to_json(), "notes": [note] if note else []}}
    ahead["pool_bound"] = PoolBound.of(size, study.confirm.seeds).to_json() if study.task else None
    units = _units(opened)
    if study.task is None:
        stage = {"stage": "pools", "trials": 0, "what": units[0].what, "seconds": None}
        return {"stages": [stage], "seconds": None, **ahead}
    if isinstance(opened.task, Outside) and opened.task.expected(study) is None:
        rows: list[Row] = [{"stage": u.stage, "trials": u.trials, "what": u.what, "seconds": None} for u in units]
        unknown = "device time is not known before a trial has run; set command.expected to what one takes"
        return {"stages": rows, "seconds": None, "note": unknown, **ahead}
    limit = parse_budget(study.budget)
    with scheduler(seen.study if seen else opened, limit, workers) as timer:
        timer.calibrate(charge=False)

        def seconds(samples: float) -> float:
            found = timer.accounts.estimate(int(samples))
            assert found is not None
            return found

        per_trial = size * study.train.epochs
        stages: list[Row] = [
            {"stage": u.stage, "trials": u.trials, "what": u.what,
             "seconds": u.trials * seconds(per_trial * u.length / u.trials) if u.trials else 0.0}
            for u in units
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
        "budget": study.budget, "fits": total <= limit, "pool_size": size, "t_full": t_full, "m": m, "r": r,
        "with_sandbox": (1 + m * r) * t_full, "break_even": math.floor(1 + m * r) + 1, **ahead,
    }  # fmt: skip


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


@dataclass(frozen=True)
class _Unit:
    """A stage's part of the plan. length: of all its trials together, in whole trials of the common size."""

    stage: str
    trials: int
    length: float
    what: str


def _pools(opened: OpenStudy) -> tuple[int, int]:
    """(pools of the probe, their OPs); about, before the statistics are computed."""
    if are_complete(opened):
        sound = [c for c in opened.cuts if c.reason is None]
        return len(sound), len({c.slice.op for c in sound})
    runs, _ = opened.op_plan
    each = opened.study.pools.buckets + (TAILS if opened.study.pools.rare else 0)
    return each * sum(len(run.statistics) for run in runs), len({run.name for run in runs})


def _confirming(candidates: int, seeds: int, all_data: bool) -> int:
    """Trials of the confirmation at most, where each candidate has a size and so a control of its own."""
    return candidates * ((1 + all_data) * seeds + control_seeds(seeds, 1, NOISIEST))


def _units(opened: OpenStudy) -> list[_Unit]:
    study, search = opened.study, opened.study.search
    if search.strategy == "mixtures":
        trials = study.mixtures.max + CONTROL_SEEDS
        fresh = (study.confirm.candidates + 1 + study.confirm.all_data) * study.confirm.seeds
        return [
            _Unit("probe", trials, trials, f"at most {study.mixtures.max} mixtures, and the control"),
            *_screening(study, 1),
            _Unit("confirm", fresh, fresh, _fresh(opened)),
        ]
    pools, ops = _pools(opened)
    told = "" if are_complete(opened) else "about "
    top, clusters = min(study.combine.top, ops), min(study.combine.clusters, ops)
    lattice = top + clusters + min(study.combine.max, 2**top - 1 - top + 2**clusters - 1 - clusters + top * clusters)

    def stage(name: str, arms: int, best: int, what: str) -> _Unit:
        if search.strategy == "race":
            trials, length = bound(*opened.course, arms, best)
            return _Unit(name, trials, length, f"{what} in {len(opened.rungs)} rungs")
        trials = arms * search.seeds + control_seeds(search.seeds, arms)
        return _Unit(name, trials, trials, f"{what} × {search.seeds} seeds")

    return [
        stage("probe", pools, search.top, f"{told}{pools} pools and the control"),
        stage("combine", lattice, study.confirm.candidates, f"at most {lattice} combinations and the control"),
        *(
            _Unit("scale", n, float(n * rate), f"×{rate}: repeat, lower layers, control")
            for rate in study.scale.rates
            for n in [3 * study.scale.recipes * study.scale.seeds]
        ),
        *_screening(study, 2),
        *(
            _Unit("confirm", n, float(n), _fresh(opened))
            for n in [_confirming(study.confirm.candidates, study.confirm.seeds, study.confirm.all_data)]
        ),
    ]


def _screening(study: Study, sizes: int) -> list[_Unit]:
    """The recipes that train to the end, with the control of each size; nothing where there is no such stage."""
    section = study.search.screen
    n = (section.top + sizes) * section.seeds
    told = f"at most {section.top} recipes to the end, {section.seeds} seeds, and the control"
    return [_Unit("screen", n, float(n), told)] if section.top else []


def _fresh(opened: OpenStudy) -> str:
    """What the confirmation trains on."""
    section = opened.study.confirm
    return f"{section.seeds} fresh seeds: candidates, control" + (", all rows" if section.all_data else "")
