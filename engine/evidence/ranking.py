"""The leaderboard: stored results turned into evidence. The command line, the report and proposers read it here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from engine.evidence.effects import Effect, chances, effects
from engine.journal.store import Row, Store
from engine.records.pool import Pool, pool_from_json
from engine.records.trial import FRESH
from engine.study.opened import OpenStudy


@dataclass(frozen=True)
class Ranked:
    """A pool, how it came about, and its effect.

    samples: rows that each of its trials trained on. share: part of a whole training that this is. best: probability
    that it is the best of those that trained as long. dropped: why the race has dropped it, or None.
    """

    pool: Pool
    label: str
    kind: str
    op: str | None
    statistic: str | None
    bucket: str | None
    samples: int
    share: float
    effect: Effect
    best: float | None = None
    dropped: str | None = None

    def to_json(self) -> Row:
        """One entry of `djsb rank --json`."""
        e = self.effect
        return {
            "pool": self.pool.id, "op": self.op, "statistic": self.statistic, "bucket": self.bucket,
            "label": self.label, "kind": self.kind, "size": self.pool.size,
            "share": self.share, "change": e.change, "std": e.std, "ci_low": e.ci_low, "ci_high": e.ci_high,
            "seeds": e.seeds,
            "metrics": dict(e.metrics), "verdict": e.verdict, "p_best": self.best,
            "dropped": self.dropped, "skipped": list(e.skipped),
        }  # fmt: skip


# (pool, samples, horizon) → seed → metric → value
Table = dict[tuple[str, int, int], dict[int, dict[str, float | None]]]


def scores(store: Store, context: str, fresh: bool, stages: Sequence[str]) -> Table:
    """Results of finished trials that the given stages asked for first. fresh: of the confirming seeds."""
    found: Table = {}
    for row in store.query(
        "SELECT t.pool, t.samples, t.horizon, t.seed, m.name, m.value FROM trials t JOIN metrics m ON m.trial = t.id "
        f"WHERE t.context = ? AND t.state = 'COMPLETE' AND t.seed {'>=' if fresh else '<'} ? "
        f"AND t.stage IN ({', '.join('?' * len(stages))}) ORDER BY t.pool, t.seed, m.name",
        (context, FRESH, *stages),
    ):
        runs = found.setdefault((row["pool"], row["samples"], row["horizon"]), {})
        runs.setdefault(row["seed"], {})[row["name"]] = row["value"]
    return found


def rank(
    opened: OpenStudy,
    kinds: Sequence[str] = ("single", "combination", "repetition", "layers"),
    stages: Sequence[str] = ("probe", "combine", "scale"),
    fresh: bool = False,
    against_control: bool = False,
) -> list[Ranked]:
    """Pools of the given kinds against the control that trained as long, best first.

    A pool counts once, where it trained longest. Those that trained longer go before the others, and of those as long
    the ones that the race has not dropped: one more seed humbles a pool, and must not help those that got none.
    stages: whose trials are read; a stage decides on the stages before it only, so that a resumed
    run decides the same. fresh: judge by the confirming seeds instead of the probing ones. Rewritten pools (kind
    `mapper`) are judged against the same rows as they are, or `against_control` against the control like all others.
    """
    table = scores(opened.store, opened.context, fresh, ("confirm",) if fresh else stages)
    known = {
        (r["id"], r["samples"], r["horizon"]): r
        for r in opened.store.query(
            "SELECT DISTINCT p.*, t.samples, t.horizon FROM pools p JOIN trials t ON t.pool = p.id WHERE t.context = ?",
            (opened.context,),
        )
    }
    controls = {key[1:]: key for key, row in known.items() if row["kind"] == "control"}

    def reference(key: tuple[str, int, int]) -> tuple[str, int, int]:
        """What a pool is judged against."""
        if known[key]["kind"] == "mapper" and not against_control:
            plain = (replace(_pool(known[key]["content"]), mappers=()).id, *key[1:])
            return plain if plain in known else controls[key[1:]]
        return controls[key[1:]]

    names = {key: ":".join(map(str, key)) for key in known}
    wanted = [k for k, row in known.items() if row["kind"] in kinds and k[1:] in controls and k in table]
    # a length that some pools still wait for counts only where there is no other: which came first is chance
    open_ = {
        (r["samples"], r["horizon"])
        for r in opened.store.query(
            "SELECT DISTINCT samples, horizon FROM trials WHERE context = ? AND seed = 0 "
            "AND state IN ('WAITING', 'RUNNING')",
            (opened.context,),
        )
    }
    longest: dict[tuple[str, int], float] = {}
    for pool, samples, horizon in sorted(wanted):
        if (samples, horizon) not in open_ or (pool, horizon) not in longest:
            longest[pool, horizon] = samples
    study = opened.study
    found = effects(
        {names[key]: runs for key, runs in table.items() if key in names},
        {names[k]: names[reference(k)] for k in wanted if longest[k[0], k[2]] == k[1]},
        opened.main_metrics,
        aggregate=study.evaluation.aggregate,
        confidence=study.search.confidence,
        anytime=not fresh,  # the confirming seeds are read once, when all are there
    )
    by_name = {names[key]: row for key, row in known.items()}
    share = {e.pool: by_name[e.pool]["samples"] / by_name[e.pool]["horizon"] for e in found}
    furthest = max(share.values(), default=1.0)
    best = chances([e for e in found if share[e.pool] == furthest])
    marks = ", ".join("?" * len(stages))
    drops = {} if fresh else {r["pool"]: r["reason"] for r in opened.store.query(
        f"SELECT pool, reason FROM drops WHERE context = ? AND undone IS NULL AND stage IN ({marks})",
        (opened.context, *stages),
    )}  # fmt: skip
    ranked = [
        replace(_ranked(row, e, share[e.pool], best.get(e.pool)), dropped=drops.get(row["id"]))
        for e in found
        for row in [by_name[e.pool]]
    ]
    return sorted(ranked, key=lambda r: (-r.share, r.dropped is not None))


def degenerate(store: Store, context: str) -> list[Ranked]:
    """Buckets that were left out; what their effects skip is the reason."""
    rows = store.query(
        "SELECT p.id, p.content, p.kind, c.op, c.statistic, c.bucket, c.statistic || ' ' || c.bucket AS label, "
        "c.reason FROM pool_cuts c JOIN pools p ON p.id = c.pool "
        "WHERE c.context = ? AND c.verdict = 'degenerate' ORDER BY c.statistic, c.bucket",
        (context,),
    )
    return [_ranked(r, Effect(r["id"], None, None, None, None, 0, "degenerate", skipped=(r["reason"],))) for r in rows]


@lru_cache(8192)
def _pool(content: str) -> Pool:
    """A stored pool; who ranks again and again reads each once."""
    return pool_from_json(json.loads(content))


def _ranked(row: Row, effect: Effect, share: float = 0.0, best: float | None = None) -> Ranked:
    """A pool's row with its effect and its probability of being the best."""
    return Ranked(
        _pool(row["content"]), row["label"], row["kind"], row["op"], row["statistic"], row["bucket"],
        row.get("samples", 0), share, effect, best,
    )  # fmt: skip


def leaderboard(opened: OpenStudy) -> list[Row]:
    """What `djsb rank` prints: single-OP pools and combinations, best first, degenerate buckets last."""
    return [r.to_json() for r in [*rank(opened, ("single", "combination")), *degenerate(opened.store, opened.context)]]


def best_per_op(ranked: Sequence[Ranked]) -> list[Ranked]:
    """The best bucket of every OP that beats the control, best first."""
    best: dict[str, Ranked] = {}
    for entry in ranked:
        if entry.effect.change is not None and entry.effect.change > 0 and entry.op:
            best.setdefault(entry.op, entry)
    return list(best.values())


def metric_series(opened: OpenStudy) -> dict[str, np.ndarray]:
    """Metric → its value in every finished probing trial of the most common length, in one order of trials."""
    rows = opened.store.query(
        "SELECT t.id, m.name, m.value FROM trials t JOIN metrics m ON m.trial = t.id WHERE t.context = ? "
        "AND t.state = 'COMPLETE' AND t.seed < ? AND t.samples = (SELECT samples FROM trials WHERE context = t.context "
        "AND state = 'COMPLETE' AND stage = 'probe' GROUP BY samples ORDER BY count(*) DESC, samples DESC LIMIT 1) "
        "ORDER BY t.id",
        (opened.context, FRESH),
    )
    trials = {t: i for i, t in enumerate(dict.fromkeys(r["id"] for r in rows))}
    series = {name: np.full(len(trials), np.nan) for name in dict.fromkeys(r["name"] for r in rows)}
    for r in rows:
        if r["value"] is not None:
            series[r["name"]][trials[r["id"]]] = r["value"]
    return series
