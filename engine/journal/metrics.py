"""The table metrics: the scores of finished trials. None stands for a value that is not a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.journal.store import Row, Store
from engine.records.trial import FRESH

Scores = dict[str, float | None]  # metric → value
Runs = dict[int, Scores]  # seed → its scores
Key = tuple[str, int, int]  # (pool, samples, horizon)
Table = dict[Key, Runs]


def of_trial(store: Store, trial: str) -> Scores:
    """The scores of one trial; empty until it has finished."""
    return _scores(store.query("SELECT name, value FROM metrics WHERE trial = ?", (trial,)))


def _scores(rows: Sequence[Row]) -> Scores:
    return {r["name"]: r["value"] for r in rows}


def of_control(store: Store, trial: str) -> Scores:
    """The scores of the control that trained as long as a trial, with its seed."""
    return _scores(store.query(
        "SELECT m.name, m.value FROM trials t JOIN trials c ON c.setup = t.setup AND c.seed = t.seed "
        "AND c.samples = t.samples AND c.horizon = t.horizon JOIN pools p ON p.id = c.pool AND p.kind = 'control' "
        "JOIN metrics m ON m.trial = c.id WHERE t.id = ? AND c.state = 'COMPLETE'",
        (trial,),
    ))  # fmt: skip


def by_pool(store: Store, setup: str, fresh: bool, stages: Sequence[str]) -> Table:
    """Scores of finished trials that the given stages asked for first. fresh: of the confirming seeds."""
    table: Table = {}
    for row in store.query(
        "SELECT t.pool, t.samples, t.horizon, t.seed, m.name, m.value FROM trials t JOIN metrics m ON m.trial = t.id "
        f"WHERE t.setup = ? AND t.state = 'COMPLETE' AND t.seed {'>=' if fresh else '<'} ? "
        f"AND t.stage IN ({', '.join('?' * len(stages))}) ORDER BY t.pool, t.seed, m.name",
        (setup, FRESH, *stages),
    ):
        runs = table.setdefault((row["pool"], row["samples"], row["horizon"]), {})
        runs.setdefault(row["seed"], {})[row["name"]] = row["value"]
    return table


def of_probe(store: Store, setup: str) -> list[Scores]:
    """The scores of every finished probing trial of the most common length, in one order of trials."""
    rows = store.query(
        "SELECT t.id, m.name, m.value FROM trials t JOIN metrics m ON m.trial = t.id WHERE t.setup = ? "
        "AND t.state = 'COMPLETE' AND t.seed < ? AND t.samples = (SELECT samples FROM trials WHERE setup = t.setup "
        "AND state = 'COMPLETE' AND stage = 'probe' GROUP BY samples ORDER BY count(*) DESC, samples DESC LIMIT 1) "
        "ORDER BY t.id",
        (setup, FRESH),
    )
    trials: dict[str, Scores] = {}
    for row in rows:
        trials.setdefault(row["id"], {})[row["name"]] = row["value"]
    return list(trials.values())


@dataclass(frozen=True)
class Measured:
    """One value of a finished trial. pool: `control`, or its id. seconds: device time of the trial."""

    pool: str
    label: str
    seed: int
    stage: str
    samples: int
    horizon: int
    metric: str
    value: float | None
    seconds: float | None
    device: str | None
    trial: str


def every(store: Store, setup: str) -> list[Measured]:
    """All values of a setup's finished trials."""
    rows = store.query(
        "SELECT p.id AS pool, p.kind, p.label, t.seed, t.stage, t.samples, t.horizon, m.name AS metric, m.value, "
        "t.seconds, t.device, t.id AS trial FROM trials t JOIN pools p ON p.id = t.pool "
        "JOIN metrics m ON m.trial = t.id WHERE t.setup = ? AND t.state = 'COMPLETE' "
        "ORDER BY t.stage, p.id, t.seed, m.name",
        (setup,),
    )
    named = [{**row, "pool": "control"} if row.pop("kind") == "control" else row for row in rows]
    return [Measured(**row) for row in named]


@dataclass(frozen=True)
class ProposalRuns:
    """Runs of the finished trials of one proposal. setup: theirs, None before the first has finished."""

    setup: str | None = None
    control: Runs = field(default_factory=dict)
    others: Runs = field(default_factory=dict)


def of_proposal(store: Store, proposal: str) -> ProposalRuns:
    """The runs of a proposal's control and of its one other pool."""
    rows = store.query(
        "SELECT t.setup, t.seed, p.kind, m.name, m.value FROM proposal_trials x "
        "JOIN trials t ON t.id = x.trial JOIN pools p ON p.id = t.pool JOIN metrics m ON m.trial = t.id "
        "WHERE x.proposal = ? AND t.state = 'COMPLETE' ORDER BY t.seed, m.name",
        (proposal,),
    )
    runs = ProposalRuns(rows[0]["setup"] if rows else None)
    for row in rows:
        arm = runs.control if row["kind"] == "control" else runs.others
        arm.setdefault(row["seed"], {})[row["name"]] = row["value"]
    return runs
