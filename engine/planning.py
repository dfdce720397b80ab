"""The plan: trials of every stage and their device time, before anything is spent (Section 3.2.4)."""

from __future__ import annotations

import math

from engine.budget import parse_budget
from engine.open_study import OpenStudy
from engine.scheduler import scheduler
from engine.search.paper import probe
from engine.slots import devices
from engine.store import Row


def make_plan(opened: OpenStudy, workers: int | None) -> Row:
    """The most that each stage may ask for. Later stages depend on results, so theirs are upper bounds.

    With a task, a few steps are timed on the first device unless trials were measured already.
    """
    study, size = opened.study, opened.pool_size
    sound = [c for c in opened.cuts if c.reason is None]
    n = len(sound) + 1
    ops = len({c.slice.op for c in sound})
    top, clusters = min(study.combine.top, ops), min(study.combine.clusters, ops)
    lattice = top + clusters + min(study.combine.max, 2**top - 1 - top + 2**clusters - 1 - clusters + top * clusters)
    units = [
        ("probe", n * study.search.seeds, f"{n - 1} pools and the control × {study.search.seeds} seeds", 1.0),
        ("combine", (lattice + 1) * study.search.seeds, f"at most {lattice} combinations and the control", 1.0),
        *(
            (
                "scale",
                3 * study.scale.recipes * study.scale.seeds,
                f"×{rate}: repeat, lower layers, control",
                float(rate),
            )
            for rate in study.scale.rates
        ),
        ("confirm", 2 * study.confirm.candidates * study.confirm.seeds, f"{study.confirm.seeds} fresh seeds", 1.0),
    ]
    if study.task is None:
        return {"stages": [{"stage": "pools", "trials": 0, "what": units[0][2], "seconds": None}], "seconds": None}
    named = devices(workers)
    limit = parse_budget(study.budget)
    with scheduler(opened, limit, named) as timer:
        timer.calibrate(charge=False)

        def seconds(samples: float) -> float:
            found = timer.estimate(int(samples))
            assert found is not None
            return found

        per_trial = probe(opened)[0].pools[0].samples
        stages = [
            {"stage": s, "trials": k, "what": w, "seconds": k * seconds(rate * per_trial)} for s, k, w, rate in units
        ]
        t_full = seconds(int(opened.scan.good.sum()) * study.train.epochs)
    total = sum(s["seconds"] for s in stages)
    m = sum(s["trials"] for s in stages)
    r = total / m / t_full
    return {
        "stages": stages, "seconds": total, "wall_seconds": total / len(named), "devices": len(named),
        "budget": study.budget, "fits": total <= limit, "pool_size": size, "t_full": t_full, "m": m, "r": r,
        "with_sandbox": (1 + m * r) * t_full, "break_even": math.floor(1 + m * r) + 1,
    }  # fmt: skip
