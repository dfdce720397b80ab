"""Is it better than all the data? Candidates against all good rows at as many trained samples, on fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping

from engine.evidence.effects import effects
from engine.journal import metrics, pools
from engine.records.leaderboard import Change
from engine.study.view import StudyView

KIND = "all"  # of the pool of all good rows


def against_all(view: StudyView, setup: str, samples: Mapping[str, int]) -> dict[str, Change]:
    """Pool → its change against all rows, in percent; pools without that comparison are left out.

    samples: pool → samples that each of its confirming trials trained on. Intervals hold for all of them together.
    """
    table = metrics.by_pool(view.store, setup, True, ("confirm",))
    every = {p.samples: p.key for p in pools.trained(view.store, setup) if p.kind == KIND and p.key in table}
    pairs = {(pool, n, n): every[n] for pool, n in samples.items() if n in every and (pool, n, n) in table}
    name = {key: ":".join(map(str, key)) for key in table}
    by_name = {name[key]: key[0] for key in pairs}
    changes = effects(
        {name[key]: runs for key, runs in table.items()}, {name[key]: name[other] for key, other in pairs.items()},
        view.main_metrics, aggregate=view.study.evaluation.aggregate, confidence=view.study.search.confidence,
    )  # fmt: skip
    return {by_name[e.pool]: Change(e.change, e.ci_low, e.ci_high, e.seeds, e.verdict, e.bound) for e in changes}
