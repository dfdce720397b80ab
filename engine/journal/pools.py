"""The tables pools and pool_cuts: descriptions of data, and the buckets that a study was cut into."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from engine.base.errors import PoolError, damaged
from engine.journal.store import Row, Store, now
from engine.records.pool import Pool, pool_from_json
from engine.records.trial import FRESH


@dataclass(frozen=True)
class StoredPool:
    """A pool and what it is called.

    kind: control, single, combination, repetition, layers, mapper or mixture. op, statistic: of a pool of one slice.
    bucket: of kind single.
    """

    pool: Pool
    label: str
    kind: str
    op: str | None
    statistic: str | None
    bucket: str | None
    at: str

    @property
    def id(self) -> str:
        """Its content hash."""
        return self.pool.id

    def to_json(self) -> dict[str, Any]:
        """As `djsb show --json` prints it."""
        return {
            "id": self.id, "content": self.pool.to_json(), "label": self.label, "kind": self.kind,
            "op": self.op, "statistic": self.statistic, "bucket": self.bucket, "at": self.at,
        }  # fmt: skip


@dataclass(frozen=True)
class TrainedPool(StoredPool):
    """A pool as trials train on it. samples: of each trial. horizon: of the whole learning-rate schedule."""

    samples: int
    horizon: int

    @property
    def key(self) -> tuple[str, int, int]:
        """(pool, samples, horizon): what results are compared under."""
        return self.id, self.samples, self.horizon


@dataclass(frozen=True)
class PoolCut:
    """A statistic's bucket. kept: rows of its slice. entropy: of its words, in nats. reason: why it is degenerate."""

    op: str
    statistic: str
    bucket: str
    pool: Pool
    kept: int
    entropy: float | None = None
    reason: str | None = None

    @property
    def verdict(self) -> str:
        """ok, or degenerate: no pool of it can be trained on."""
        return "degenerate" if self.reason else "ok"


@lru_cache(8192)
def stored_pool(content: str) -> Pool:
    """A stored pool; who ranks again and again reads each once."""
    try:
        return pool_from_json(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, PoolError) as error:
        raise damaged("a pool", f"{type(error).__name__}: {error}") from error


def _stored(row: Row) -> StoredPool:
    names = ("label", "kind", "op", "statistic", "bucket", "at")
    return StoredPool(stored_pool(row["content"]), *(row[n] for n in names))


def add(store: Store, pool: Pool, label: str, kind: str) -> None:
    """Write a pool's description once."""
    content = json.dumps(pool.to_json(), allow_nan=False)
    one = pool.slices[0] if len(pool.slices) == 1 else None
    bucket = label.rsplit(" ", 1)[-1] if one is not None and kind == "single" else None
    store.execute(
        "INSERT OR IGNORE INTO pools(id, content, label, kind, op, statistic, bucket, at) "
        "VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (pool.id, content, label, kind, one and one.op, one and one.statistic, bucket, now()),
    )


def get(store: Store, pool: str) -> StoredPool | None:
    """A pool by its id, or None."""
    row = store.one("SELECT * FROM pools WHERE id = ?", (pool,))
    return _stored(row) if row else None


def every(store: Store) -> list[StoredPool]:
    """All pools of the study, oldest first."""
    return [_stored(row) for row in store.query("SELECT * FROM pools ORDER BY rowid")]


def beginning(store: Store, start: str) -> list[StoredPool]:
    """Pools whose ids begin so."""
    return [p for p in every(store) if p.id.startswith(start)]


def with_results(store: Store, setup: str) -> list[StoredPool]:
    """Pools of a cycle that a probing trial has finished on, the latest last; no controls."""
    rows = store.query(
        "SELECT p.* FROM pools p JOIN trials t ON t.pool = p.id WHERE t.setup = ? AND t.seed < ? "
        "AND t.state = 'COMPLETE' AND p.kind != 'control' GROUP BY p.id ORDER BY min(t.finished), p.id",
        (setup, FRESH),
    )
    return [_stored(row) for row in rows]


def trained(store: Store, setup: str) -> list[TrainedPool]:
    """Every pool that trials of a cycle ask for, once for each length of its trials."""
    rows = store.query(
        "SELECT DISTINCT p.*, t.samples, t.horizon FROM pools p JOIN trials t ON t.pool = p.id WHERE t.setup = ?",
        (setup,),
    )
    return [
        TrainedPool(stored_pool(r["content"]), r["label"], r["kind"], r["op"], r["statistic"], r["bucket"], r["at"],
                    r["samples"], r["horizon"])
        for r in rows
    ]  # fmt: skip


def cuts(store: Store, setup: str, sort: bool = True) -> list[PoolCut]:
    """The buckets of a cycle, by the names of statistic and bucket. sort: else in the order in which they were cut."""
    rows = _cuts(store, "c.setup = ?", setup)
    return sorted(rows, key=lambda c: (c.statistic, c.bucket)) if sort else rows


def _cuts(store: Store, where: str, value: str) -> list[PoolCut]:
    """Buckets in the order in which they were cut."""
    rows = store.query(
        "SELECT c.op, c.statistic, c.bucket, p.content, c.kept, c.entropy, c.reason FROM pool_cuts c "
        f"JOIN pools p ON p.id = c.pool WHERE {where} ORDER BY c.rowid",
        (value,),
    )
    return [
        PoolCut(r["op"], r["statistic"], r["bucket"], stored_pool(r["content"]), r["kept"], r["entropy"], r["reason"])
        for r in rows
    ]


def cut(store: Store, pool: str) -> PoolCut | None:
    """The bucket whose pool this is, of whatever cycle; None where it is of none."""
    return next(iter(_cuts(store, "c.pool = ?", pool)), None)


def are_cut(store: Store, setup: str) -> bool:
    """True once the buckets of a cycle are stored."""
    return store.one("SELECT 1 FROM pool_cuts WHERE setup = ?", (setup,)) is not None


def replace_cuts(store: Store, setup: str, buckets: Iterable[PoolCut]) -> None:
    """Store the buckets of a cycle with their pools, in place of what was there. One transaction."""
    with store.transaction():
        store.execute("DELETE FROM pool_cuts WHERE setup = ?", (setup,))
        for cut in buckets:
            add(store, cut.pool, f"{cut.statistic} {cut.bucket}", "single")
            store.put("pool_cuts", {
                "setup": setup, "op": cut.op, "statistic": cut.statistic, "bucket": cut.bucket,
                "pool": cut.pool.id, "kept": cut.kept, "entropy": cut.entropy, "verdict": cut.verdict,
                "reason": cut.reason,
            })  # fmt: skip


def put_entropy(store: Store, setup: str, pool: str, entropy: float) -> None:
    """The word entropy of a bucket's rows, in nats."""
    store.execute("UPDATE pool_cuts SET entropy = ? WHERE setup = ? AND pool = ?", (entropy, setup, pool))
