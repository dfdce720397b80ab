"""The table trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.base.lines import storable
from engine.journal.pools import stored_pool
from engine.journal.store import Store, now
from engine.records.pool import Pool
from engine.records.trial import FRESH, Trial, TrialState

TRIALS = "SELECT t.*, p.label, p.kind FROM trials t JOIN pools p ON p.id = t.pool "


@dataclass(frozen=True)
class QueuedTrial(Trial):
    """A trial that the engine is to run. rows: its pool. charged: device-seconds that this attempt has used."""

    rows: Pool = field(default_factory=Pool)
    charged: float = 0.0


@dataclass(frozen=True)
class RunningTrial(Trial):
    """A trial that runs. charged: device-seconds that this attempt has used. step: of its last curve point."""

    charged: float | None = None
    step: int | None = None


def _trials(store: Store, rest: str, parameters: Sequence[Any]) -> list[Trial]:
    return [Trial(**row) for row in store.query(TRIALS + rest, parameters)]


def get(store: Store, trial: str) -> Trial | None:
    """A trial by its id, or None."""
    return next(iter(_trials(store, "WHERE t.id = ?", (trial,))), None)


def beginning(store: Store, start: str) -> list[Trial]:
    """Trials whose ids begin so."""
    return _trials(store, "WHERE substr(t.id, 1, length(?)) = ? ORDER BY t.id", (start, start))


def of_setup(store: Store, setup: str) -> list[Trial]:
    """All trials of a setup."""
    return _trials(store, "WHERE t.setup = ?", (setup,))


def changing(store: Store, setup: str, since: str) -> list[Trial]:
    """Trials of a setup that may change, and those that ended since a time (UTC, ISO 8601)."""
    return _trials(
        store, "WHERE t.setup = ? AND (t.state NOT IN ('COMPLETE', 'CANCELLED') OR t.finished >= ?)", (setup, since)
    )


def of_pool(store: Store, pool: str) -> list[Trial]:
    """All trials on a pool, of whatever setup."""
    return _trials(store, "WHERE t.pool = ?", (pool,))


def of_proposal(store: Store, proposal: str) -> list[Trial]:
    """All trials that a proposal asks for."""
    ids = "WHERE t.id IN (SELECT trial FROM proposal_trials WHERE proposal = ?)"
    return _trials(store, ids, (proposal,))


def begun(store: Store) -> list[Trial]:
    """All trials of the study that were ever started, in that order."""
    return _trials(store, "WHERE t.started IS NOT NULL ORDER BY t.started, t.id", ())


def failed(store: Store, setup: str) -> list[Trial]:
    """Trials of a setup that were given up, by id."""
    return _trials(store, "WHERE t.setup = ? AND t.state = 'FAIL' ORDER BY t.id", (setup,))


def running(store: Store, setup: str, others: Sequence[str] = ()) -> list[RunningTrial]:
    """Trials of a setup that run, by device. others: ids of trials of other setups to look for, too."""
    rows = store.query(
        "SELECT t.*, p.label, p.kind, c.seconds AS charged, "
        "(SELECT max(step) FROM curve_points x WHERE x.trial = t.id) AS step "
        "FROM trials t JOIN pools p ON p.id = t.pool LEFT JOIN costs c ON c.id = t.id || ':' || t.attempts "
        f"WHERE t.state = 'RUNNING' AND (t.setup = ? OR t.id IN ({', '.join('?' * len(others))})) "
        "ORDER BY t.device, t.started, t.id",
        (setup, *others),
    )
    return [RunningTrial(**row) for row in rows]


def waiting(store: Store, setup: str, proposals: Sequence[str]) -> list[QueuedTrial]:
    """Waiting trials of the given proposals, longest first, then in rounds of seeds; fresh seeds in rounds first."""
    rows = store.query(
        "SELECT DISTINCT t.*, p.label, p.kind, p.content FROM trials t JOIN pools p ON p.id = t.pool "
        "JOIN proposal_trials x ON x.trial = t.id "
        f"WHERE t.state = 'WAITING' AND t.setup = ? AND x.proposal IN ({', '.join('?' * len(proposals))}) "
        "ORDER BY CASE WHEN t.seed >= ? THEN t.seed ELSE 0 END, t.samples DESC, t.seed, t.id",
        (setup, *proposals, FRESH),
    )
    return [QueuedTrial(rows=stored_pool(row.pop("content")), **row) for row in rows]


def counts(store: Store, setup: str) -> dict[str, dict[TrialState, int]]:
    """Stage → state → how many trials of a setup."""
    stages: dict[str, dict[TrialState, int]] = {}
    for row in store.query(
        "SELECT stage, state, count(*) AS n FROM trials WHERE setup = ? GROUP BY stage, state", (setup,)
    ):
        stages.setdefault(row["stage"], {})[row["state"]] = row["n"]
    return stages


def counted(store: Store, setup: str, state: TrialState) -> int:
    """How many trials of a setup are in a state."""
    row = store.one("SELECT count(*) AS n FROM trials WHERE setup = ? AND state = ?", (setup, state))
    return int(row["n"]) if row else 0


def in_state(store: Store, state: TrialState) -> list[str]:
    """Ids of all trials of the study in a state."""
    return [row["id"] for row in store.query("SELECT id FROM trials WHERE state = ?", (state,))]


def mapped_pools(store: Store, setup: str) -> list[tuple[Pool, int]]:
    """(pool, seed) of the trials of a setup whose rows mappers change, by pool and seed."""
    rows = store.query(
        "SELECT DISTINCT p.content, t.seed FROM trials t JOIN pools p ON p.id = t.pool WHERE t.setup = ? "
        "AND json_extract(p.content, '$.mappers') IS NOT NULL ORDER BY p.id, t.seed",
        (setup,),
    )
    return [(stored_pool(row["content"]), row["seed"]) for row in rows]


def durations(store: Store, setup: str) -> list[tuple[int, float]]:
    """(samples that it trained itself, device-seconds) of every finished trial; one mean for each number of samples."""
    rows = store.query(
        "SELECT samples - resumed AS samples, avg(seconds) AS seconds, count(*) AS n FROM trials "
        "WHERE setup = ? AND state = 'COMPLETE' GROUP BY samples - resumed",
        (setup,),
    )
    return [(row["samples"], row["seconds"]) for row in rows for _ in range(row["n"])]


def launch(store: Store, trial: Trial) -> None:
    """It runs: with its attempt, device, estimate and the samples that an earlier one trained."""
    store.execute(
        "UPDATE trials SET state = 'RUNNING', attempts = ?, device = ?, estimate = ?, resumed = ?, started = ?, "
        "error = NULL WHERE id = ?",
        (trial.attempts, trial.device, trial.estimate, trial.resumed, trial.started, trial.id),
    )


def describe(store: Store, trial: str, procedure: str) -> None:
    """How it is trained. procedure: as JSON."""
    store.execute("UPDATE trials SET procedure = ? WHERE id = ?", (procedure, trial))


def complete(store: Store, trial: str, metrics: Mapping[str, float | None], seconds: float) -> None:
    """It ended with these scores. seconds: of device time. Call inside a transaction."""
    store.put("metrics", [{"trial": trial, "name": name, "value": value} for name, value in metrics.items()])
    store.execute(
        "UPDATE trials SET state = 'COMPLETE', seconds = ?, finished = ? WHERE id = ?", (seconds, now(), trial)
    )


def wait_again(store: Store, trial: str) -> None:
    """It will be run anew."""
    store.execute("UPDATE trials SET state = 'WAITING' WHERE id = ?", (trial,))


def fail(store: Store, trial: str, error: str) -> None:
    """It is not tried again by this engine."""
    store.execute(
        "UPDATE trials SET state = 'FAIL', error = ?, finished = ? WHERE id = ?", (storable(error), now(), trial)
    )


def cancel(store: Store, trial: str) -> None:
    """It is never run again."""
    store.execute("UPDATE trials SET state = 'CANCELLED', finished = ? WHERE id = ?", (now(), trial))


def unfinished_lengths(store: Store, setup: str, stages: Sequence[str]) -> set[tuple[int, int]]:
    """(samples, horizon) of trials of the first seed that wait or run, of those that these stages asked for first."""
    rows = store.query(
        "SELECT DISTINCT samples, horizon FROM trials WHERE setup = ? AND seed = 0 AND state IN ('WAITING', 'RUNNING') "
        f"AND stage IN ({', '.join('?' * len(stages))})",
        (setup, *stages),
    )
    return {(r["samples"], r["horizon"]) for r in rows}


def unsettled(store: Store, setup: str, fresh: bool) -> dict[tuple[int, int], int]:
    """(samples, horizon) → the first seed of which trials wait or run. fresh: of the confirming seeds."""
    rows = store.query(
        "SELECT samples, horizon, min(seed) AS seed FROM trials WHERE setup = ? AND state IN ('WAITING', 'RUNNING') "
        f"AND seed {'>=' if fresh else '<'} ? GROUP BY samples, horizon",
        (setup, FRESH),
    )
    return {(r["samples"], r["horizon"]): r["seed"] for r in rows}


def whole(store: Store, setup: str, pool: str, samples: int, seed: int) -> str | None:
    """The id of a pool's whole training on so many samples at a seed."""
    row = store.one(
        "SELECT id FROM trials WHERE setup = ? AND pool = ? AND samples = ? AND horizon = samples AND seed = ?",
        (setup, pool, samples, seed),
    )
    return row["id"] if row else None


def is_complete(store: Store, trial: str) -> bool:
    """True when the trial ran to its end."""
    return store.one("SELECT 1 FROM trials WHERE id = ? AND state = 'COMPLETE'", (trial,)) is not None


def asked_by(store: Store, trial: str) -> list[str]:
    """Ids of the proposals that ask for a trial."""
    return [
        r["proposal"] for r in store.query("SELECT proposal FROM proposal_trials WHERE trial = ?", (trial,))
    ]  # fmt: skip


def of_proposals(store: Store, proposals: Sequence[str]) -> list[Trial]:
    """All trials that these proposals ask for, by id."""
    marks = ", ".join("?" * len(proposals))
    ids = f"WHERE t.id IN (SELECT trial FROM proposal_trials WHERE proposal IN ({marks})) ORDER BY t.id"
    return _trials(store, ids, proposals)


def states(store: Store, ids: Collection[str]) -> dict[str, TrialState]:
    """Trial → state, of those of these ids that were ever asked for."""
    rows = store.query(f"SELECT id, state FROM trials WHERE id IN ({', '.join('?' * len(ids))})", tuple(ids))
    return {row["id"]: row["state"] for row in rows}


def add(store: Store, trial: Trial) -> None:
    """Write a trial that waits, and that its proposal asks for it; one that is there stays as it is."""
    store.execute(
        "INSERT OR IGNORE INTO trials(id, setup, pool, seed, init, samples, horizon, stage, proposal, state) "
        "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (trial.id, trial.setup, trial.pool, trial.seed, trial.init, trial.samples, trial.horizon, trial.stage,
         trial.proposal, trial.state),
    )  # fmt: skip
    store.put("proposal_trials", {"proposal": trial.proposal, "trial": trial.id})


def has_others(store: Store, setup: str, proposals: Sequence[str]) -> bool:
    """True when a trial of a setup has a result that other proposals than these asked for first."""
    marks = ", ".join("?" * len(proposals))
    sql = f"SELECT 1 FROM trials WHERE setup = ? AND state = 'COMPLETE' AND proposal NOT IN ({marks}) LIMIT 1"
    return store.one(sql, (setup, *proposals)) is not None


def longest_part(store: Store, setup: str, key: tuple[str, int, int], seed: int) -> int:
    """Samples of the longest finished trial that is the beginning of another. key: (pool, samples, horizon) of that."""
    pool, samples, horizon = key
    row = store.one(
        "SELECT max(samples) AS n FROM trials WHERE setup = ? AND pool = ? AND horizon = ? AND seed = ? "
        "AND samples < ? AND state = 'COMPLETE'",
        (setup, pool, horizon, seed, samples),
    )
    return int(row["n"] or 0) if row else 0


def finished(store: Store, setup: str, pool: str) -> list[Trial]:
    """Finished trials on a pool in a setup, the longest first; those of fresh seeds aside."""
    rest = "WHERE t.setup = ? AND t.pool = ? AND t.seed < ? AND t.state = 'COMPLETE' ORDER BY t.samples DESC, t.horizon"
    return _trials(store, rest, (setup, pool, FRESH))


def control_of(store: Store, trial: Trial) -> str | None:
    """The pool of the control that trained as long as a trial."""
    row = store.one(
        "SELECT p.id FROM trials t JOIN pools p ON p.id = t.pool "
        "WHERE t.setup = ? AND p.kind = 'control' AND t.samples = ? AND t.horizon = ?",
        (trial.setup, trial.samples, trial.horizon),
    )
    return row["id"] if row else None


def main_pool(store: Store, setup: str, stage: str) -> Pool | None:
    """The pool, no control, that most trials of a stage train on."""
    row = store.one(
        "SELECT p.content FROM trials t JOIN pools p ON p.id = t.pool WHERE t.setup = ? AND t.stage = ? "
        "AND p.kind != 'control' GROUP BY p.id ORDER BY count(*) DESC LIMIT 1",
        (setup, stage),
    )
    return stored_pool(row["content"]) if row else None


def progress(store: Store, setup: str) -> tuple[int, int, str | None]:
    """(trials, those that are complete, when the last one ended): the same while no result has come."""
    (row,) = store.query(
        "SELECT count(*) AS n, coalesce(sum(state = 'COMPLETE'), 0) AS complete, max(finished) AS last FROM trials "
        "WHERE setup = ?",
        (setup,),
    )
    return row["n"], row["complete"], row["last"]
