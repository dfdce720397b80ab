"""The leaderboard: stored results turned into evidence. The command line, the report and proposers read it here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from engine.evidence import Effect, effects
from engine.open_study import OpenStudy
from engine.pools import Pool, pool_from_json
from engine.store import Row, Store

FRESH = 1_000  # seeds from here on confirm; the ranking never reads them


@dataclass(frozen=True)
class Ranked:
    """A pool, how it came about, and its effect. samples: rows that each of its trials trained on."""

    pool: Pool
    label: str
    kind: str
    op: str | None
    statistic: str | None
    bucket: str | None
    samples: int
    effect: Effect

    def to_json(self) -> Row:
        """One entry of `djsb rank --json`."""
        e = self.effect
        return {
            "pool": self.pool.id, "op": self.op, "statistic": self.statistic, "bucket": self.bucket,
            "label": self.label, "kind": self.kind, "size": self.pool.size,
            "change": e.change, "std": e.std, "ci_low": e.ci_low, "ci_high": e.ci_high, "seeds": e.seeds,
            "metrics": dict(e.metrics), "verdict": e.verdict, "skipped": list(e.skipped),
        }  # fmt: skip


Table = dict[tuple[str, int], dict[int, dict[str, float | None]]]


def scores(store: Store, context: str, fresh: bool, stages: Sequence[str]) -> Table:
    """(pool, samples) → seed → metric → value, of finished trials that the given stages asked for first."""
    found: Table = {}
    for row in store.query(
        "SELECT t.pool, t.samples, t.seed, m.name, m.value FROM trials t JOIN metrics m ON m.trial = t.id "
        f"WHERE t.context = ? AND t.state = 'COMPLETE' AND t.seed {'>=' if fresh else '<'} ? "
        f"AND t.stage IN ({', '.join('?' * len(stages))}) ORDER BY t.pool, t.seed, m.name",
        (context, FRESH, *stages),
    ):
        found.setdefault((row["pool"], row["samples"]), {}).setdefault(row["seed"], {})[row["name"]] = row["value"]
    return found


def rank(
    opened: OpenStudy,
    kinds: Sequence[str] = ("single", "combination", "repetition", "layers"),
    stages: Sequence[str] = ("probe", "combine", "scale"),
    fresh: bool = False,
) -> list[Ranked]:
    """Pools of the given kinds against the control of equal samples, best first.

    stages: whose trials are read; a stage decides on the stages before it only, so that a resumed
    run decides the same. fresh: judge by the confirming seeds instead of the probing ones.
    """
    table = scores(opened.store, opened.context, fresh, ("confirm",) if fresh else stages)
    known = {
        (r["id"], r["samples"]): r
        for r in opened.store.query(
            "SELECT DISTINCT p.*, t.samples FROM pools p JOIN trials t ON t.pool = p.id WHERE t.context = ?",
            (opened.context,),
        )
    }
    controls = {key[1]: key for key, row in known.items() if row["kind"] == "control"}
    names = {key: f"{key[0]}:{key[1]}" for key in known}
    wanted = {
        names[key]: names[controls[key[1]]]
        for key, row in known.items()
        if row["kind"] in kinds and key[1] in controls and key in table
    }
    study = opened.study
    found = effects(
        {names[key]: runs for key, runs in table.items() if key in names},
        wanted,
        opened.main_metrics,
        aggregate=study.evaluation.aggregate,
        confidence=study.search.confidence,
        # the confirming seeds are read once, when all are there
        looks=1 if fresh else max(1, study.search.seeds - 1),
    )
    by_name = {names[key]: row for key, row in known.items()}
    return [_ranked(by_name[e.pool], by_name[e.pool]["samples"], e) for e in found]


def degenerate(store: Store, context: str) -> list[Ranked]:
    """Buckets that were left out; what their effects skip is the reason."""
    rows = store.query(
        "SELECT p.id, p.content, p.kind, c.op, c.statistic, c.bucket, c.statistic || ' ' || c.bucket AS label, "
        "c.reason FROM pool_cuts c JOIN pools p ON p.id = c.pool "
        "WHERE c.context = ? AND c.verdict = 'degenerate' ORDER BY c.statistic, c.bucket",
        (context,),
    )
    return [
        _ranked(r, 0, Effect(r["id"], None, None, None, None, 0, "degenerate", skipped=(r["reason"],))) for r in rows
    ]


def _ranked(row: Row, samples: int, effect: Effect) -> Ranked:
    """A pool's row with its effect."""
    pool = pool_from_json(json.loads(row["content"]))
    return Ranked(pool, row["label"], row["kind"], row["op"], row["statistic"], row["bucket"], samples, effect)


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
