"""What the report shows, read from the study's database and put into values; nothing is drawn or formatted here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import zip_longest
from string import ascii_uppercase

from engine.base.errors import DjsbError
from engine.base.ids import some
from engine.evidence.comparison import paired_changes
from engine.evidence.contents import contents
from engine.evidence.effects import Effect
from engine.evidence.mixtures import response, surface
from engine.evidence.ranking import Ranked
from engine.evidence.recipe import confirmed as on_fresh_seeds
from engine.journal import costs, curves, decisions, pools, proposals, results, trials
from engine.journal import metrics as measured
from engine.journal.curves import PoolPoint
from engine.journal.store import Row
from engine.records.answer import Answer
from engine.records.mixture import Surface
from engine.records.pool import BUCKETS, Slice
from engine.records.proposal import StoredProposal
from engine.records.trial import FRESH
from engine.settings.study import STAGES
from engine.study.opened import with_data
from engine.study.view import StudyView

BESIDE = "best beside"  # the column of the best pool beside the buckets of a statistic
BINS = 240  # points of a drawn curve


@dataclass(frozen=True)
class Buckets:
    """The probe as statistic × bucket. statistics: statistic → OP, best first; names: of the buckets.

    columns: those of the chart: the buckets, and `BESIDE` where pools stand beside them, which holds the best of those.
    """

    cells: Mapping[tuple[str, str], Row]
    statistics: Mapping[str, str]
    names: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Sequence[Row]


def probed(opened: StudyView, ranked: Sequence[Ranked], left_out: Sequence[Row]) -> Buckets:
    """Every bucket that was cut. Its entries are the leaderboard's, so that a pool has one interval everywhere."""
    names = BUCKETS[opened.study.pools.buckets]
    samples = {t.samples for t in trials.of_setup(opened.store, opened.setup) if t.stage == "probe"}
    entries = {r.pool.id: r.entry().to_json() for r in ranked if r.kind == "single" and r.samples in samples}
    out = {(r["statistic"], r["bucket"]): r for r in left_out}
    terms = results.TERMS.get(opened.store, opened.setup) or {}
    nothing = {"change": None, "verdict": "unclear"}
    rows: list[Row] = [
        {"pool": c.pool.id, "op": c.op, "statistic": c.statistic, "bucket": c.bucket, "kept": c.kept,
         "entropy": c.entropy, "slice": str(c.pool.slices[0]) if c.pool.slices else "all rows",
         "terms": [asdict(t) for t in terms.get(c.pool.id, ())],
         "entry": out.get((c.statistic, c.bucket)) or entries.get(c.pool.id) or nothing}
        for c in pools.cuts(opened.store, opened.setup)
    ]  # fmt: skip
    cells = {(r["statistic"], r["bucket"]): r["entry"] for r in rows}
    best: dict[str, float] = {}
    for (statistic, _), cell in cells.items():
        best[statistic] = max(best.get(statistic, -math.inf), _change(cell))
    beside = [r for r in rows if r["bucket"] not in names and r["entry"]["verdict"] != "degenerate"]
    for r in sorted(beside, key=lambda r: _change(r["entry"])):
        cells[r["statistic"], BESIDE] = {**r["entry"], "bucket": r["bucket"]}
    ops = {r["statistic"]: r["op"] or "" for r in rows}
    order = {s: ops[s] for s in sorted(best, key=lambda s: (-best[s], s))}
    place = {s: i for i, s in enumerate(order)}
    rows.sort(key=lambda r: (place[r["statistic"]], names.index(r["bucket"]) if r["bucket"] in names else len(names)))
    return Buckets(cells, order, names, (*names, BESIDE) if beside else names, rows)


def _change(entry: Row) -> float:
    return -math.inf if entry["change"] is None else float(entry["change"])


def alike(ranked: Sequence[Ranked]) -> list[tuple[tuple[int, float], list[Row]]]:
    """((size, part of the steps), the leaderboard's lines of it): only what is alike stands in one table."""
    tables: dict[tuple[int, float], list[Row]] = {}
    for r in ranked:
        tables.setdefault((r.pool.size, r.share), []).append(r.entry().to_json())
    return list(tables.items())


SHOWN = 3  # pools whose contents the report has


def kept_and_dropped(opened: StudyView, told: Answer, ranked: Sequence[Ranked]) -> tuple[list[Row], str]:
    """(what the answer's pool and those that lead keep and drop, why that cannot be told)."""
    leaders = [r.pool.id for r in ranked if r.effect.change is not None]
    chosen = list(dict.fromkeys([*([told.recipe.pool] if told.recipe else []), *leaders]))[:SHOWN]
    try:
        data = with_data(opened)
        stored = [p for p in (pools.get(opened.store, key) for key in chosen) if p is not None]
        return [contents(data, pool, pictures=True).to_json() for pool in stored], ""
    except DjsbError as error:
        return [], str(error)


def unprobed(opened: StudyView) -> list[str]:
    """OPs of the study that no pool was cut for."""
    used = {cut.op for cut in pools.cuts(opened.store, opened.setup)}
    return [op for op in opened.study.ops if op not in used] if used else []


@dataclass(frozen=True)
class Node:
    """A combination in the lattice. letters: of its slices. change: percent, None when it was not tried."""

    letters: tuple[str, ...]
    change: float | None
    verdict: str


@dataclass(frozen=True)
class Lattice:
    """levels: nodes by number of slices. letters: letter → label of the slice. rows: of every pool in it."""

    levels: Sequence[Sequence[Node]]
    letters: Mapping[str, str]
    rows: int


def combined(ranked: Sequence[Ranked]) -> Lattice | None:
    """The lattice at the size that most combinations were tried at; None without combinations."""
    combos = [r for r in ranked if r.kind == "combination" and len(r.pool.slices) > 1]
    if not combos:
        return None
    size, _ = max(Counter(r.pool.size for r in combos).items(), key=lambda item: (item[1], item[0]))
    combos = [r for r in combos if r.pool.size == size]
    singles = [r for r in ranked if len(r.pool.slices) == 1]
    labels = {r.pool.slices[0]: r.label for r in singles}
    changes = {r.pool.slices[0]: r.effect for r in singles if r.pool.size == size}
    slices = {s for r in combos for s in r.pool.slices}

    def place(s: Slice) -> tuple[float, str]:
        change = changes[s].change if s in changes else None
        return (math.inf if change is None else -change, str(s))

    letters = {s: _letter(i) for i, s in enumerate(sorted(slices, key=place))}
    levels: dict[int, list[Node]] = {1: [_lattice_node((letter,), changes.get(s)) for s, letter in letters.items()]}
    for r in combos:
        names = sorted((letters[s] for s in r.pool.slices), key=_by_length)
        levels.setdefault(len(names), []).append(_lattice_node(tuple(names), r.effect))
    ordered = [sorted(levels[n], key=lambda node: [_by_length(x) for x in node.letters]) for n in sorted(levels)]
    return Lattice(ordered, {letter: labels.get(s, str(s)) for s, letter in letters.items()}, combos[0].pool.size)


def _lattice_node(letters: tuple[str, ...], effect: Effect | None) -> Node:
    return Node(letters, effect.change, effect.verdict) if effect else Node(letters, None, "unclear")


def _by_length(letter: str) -> tuple[int, str]:
    return len(letter), letter


def _letter(i: int) -> str:
    return ascii_uppercase[i % 26] + (str(i // 26) if i >= 26 else "")


def mixed(opened: StudyView) -> Surface | None:
    """What the regression on the mixtures expects by now; None below three of them with results."""
    found = response(opened)
    return surface(found) if found else None


def scaled(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of the stored result `scale` by the recipe that was repeated."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["kind"] == "repetition":
            base = row["label"].rsplit(" ×", 1)[0]
        else:
            base = row["label"].removesuffix(" + lower layers")
        groups.setdefault(base, []).append(row)
    return groups


@dataclass(frozen=True)
class MetricChange:
    """One metric on fresh seeds: mean change and that of each seed, percent; mean scores of pool and control."""

    mean: float
    seeds: tuple[float, ...]
    score: float
    control: float


@dataclass(frozen=True)
class Candidate:
    """A recipe on fresh seeds."""

    label: str
    pool: str
    rows: int
    effect: Effect
    metrics: Mapping[str, MetricChange]


def confirmed(opened: StudyView) -> list[Candidate]:
    """The candidates on fresh seeds, best first, metric by metric (of all measured metrics, main ones first)."""
    table = measured.by_pool(opened.store, opened.setup, True, ("confirm",))
    found = []
    main = list(opened.main_metrics)
    metrics = [*main, *(m for m in opened.metrics if m not in main)]
    for entry in on_fresh_seeds(opened):
        control = _control(opened, entry.samples)
        runs, base = (table.get((p or "", entry.samples, entry.samples), {}) for p in (entry.pool.id, control))
        by_metric = {}
        for metric in metrics:
            changes, _, _ = paired_changes(runs, base, [metric], "mean-of-changes")
            if changes:
                by_metric[metric.name] = MetricChange(
                    sum(changes.values()) / len(changes), tuple(changes.values()),
                    *(sum(side[s][metric.name] or 0.0 for s in changes) / len(changes) for side in (runs, base)),
                )  # fmt: skip
        found.append(Candidate(entry.label, entry.pool.id, entry.pool.size, entry.effect, by_metric))
    return found


def _control(opened: StudyView, samples: int) -> str | None:
    trained = pools.trained(opened.store, opened.setup)
    return min((p.id for p in trained if p.kind == "control" and p.samples == samples), default=None)


@dataclass(frozen=True)
class Spent:
    """hours: since the first trial began, one entry a charge. stages: stage → cumulative device-seconds at each."""

    hours: tuple[float, ...]
    stages: Mapping[str, tuple[float, ...]]
    total: float
    limit: float | None


def spent(opened: StudyView) -> Spent | None:
    """The costs of every setup, as the budget counts it; None when nothing was charged."""
    rows = costs.since(opened.store)
    if not rows:
        return None
    times = [datetime.fromisoformat(r.at).timestamp() for r in rows]
    began = times[0] - rows[0].seconds
    names = [r.stage or r.kind for r in rows]
    order = [n for n in ("calibration", *STAGES) if n in names]
    order += [n for n in dict.fromkeys(names) if n not in order]
    stages = {}
    for name in order:
        total, series = 0.0, [0.0]
        for row, own in zip(rows, names, strict=True):
            total += row.seconds if own == name else 0.0
            series.append(total)
        stages[name] = tuple(series)
    hours = (0.0, *((t - began) / 3600 for t in times))
    limit = results.BUDGET.get(opened.store, opened.setup)
    return Spent(hours, stages, sum(r.seconds for r in rows), limit)


def progress(opened: StudyView) -> list[Row]:
    """Stage → trials by state and device-seconds."""
    counts = trials.counts(opened.store, opened.setup)
    seconds = costs.by_stage(opened.store, opened.setup)
    return [{"stage": s, "trials": counts.get(s) or {}, "seconds": seconds.get(s, 0.0)} for s in opened.study.stages]


@dataclass(frozen=True)
class Curve:
    """A quantity over steps: mean, least and greatest over the seeds."""

    label: str
    steps: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int


def trained(opened: StudyView, pool: str, samples: int, label: str) -> tuple[str, list[Curve]]:
    """(quantity, curves of the control and of a pool) over the seeds that both were trained on; fresh ones if any."""
    control, name = _control(opened, samples), curves.first_name(opened.store, opened.setup)
    if control is None or name is None:
        return "", []
    rows = curves.of_pools(opened.store, opened.setup, samples, name, (control, pool))
    seeds = {p: {r.seed for r in rows if r.pool == p} for p in (control, pool)}
    shared = seeds[control] & seeds[pool]
    shared = {s for s in shared if s >= FRESH} or shared
    if not shared:
        return name, []
    return name, [
        _curve([r for r in rows if r.pool == p and r.seed in shared], text, len(shared))
        for p, text in ((control, "control"), (pool, label))
    ]


def _curve(rows: Sequence[PoolPoint], label: str, seeds: int) -> Curve:
    """Steps in equal bins, so that a long run has no more points than can be seen."""
    width = max(1.0, max(r.step for r in rows) / BINS)
    bins: dict[int, dict[int, list[tuple[int, float]]]] = {}
    for r in rows:
        bins.setdefault(math.ceil(r.step / width), {}).setdefault(r.seed, []).append((r.step, r.value))
    points = []
    for by_seed in (bins[b] for b in sorted(bins)):
        values = [sum(v for _, v in pairs) / len(pairs) for pairs in by_seed.values()]
        if len(values) == seeds:
            steps = [s for pairs in by_seed.values() for s, _ in pairs]
            points.append((sum(steps) / len(steps), sum(values) / len(values), min(values), max(values)))
    steps_, means, lows, highs = (tuple(p[i] for p in points) for i in range(4))
    return Curve(label, steps_, means, lows, highs, seeds)


def decided(opened: StudyView) -> list[Row]:
    """Decisions on this cycle's proposals, oldest first, each with what was decided on."""
    asked = {p.id: p for p in proposals.of_setup(opened.store, opened.setup)}
    return [
        {**_proposal(asked[d.proposal]), **some(d, "at", "who", "verdict", "why")}
        for d in (made.decision for made in decisions.with_proposals(opened.store)) if d.proposal in asked
    ]  # fmt: skip


def undecided(opened: StudyView) -> list[Row]:
    """Proposals that wait for a person, and those that the gate refused."""
    waiting = proposals.of_setup(opened.store, opened.setup, (*proposals.OPEN, "refused"))
    return [_proposal(p) for p in waiting]


def _proposal(p: StoredProposal) -> Row:
    return {**asdict(p), "trials": len(p.content.get("pools", ())) * len(p.content.get("seeds", ()))}


def places(lineage: Sequence[Row], cycle: Row) -> list[tuple[Row | None, Row | None]]:
    """The first places of a cycle's ranking beside those of the cycle before (Table 14)."""
    before = lineage[cycle["cycle"] - 2]
    top = cycle["moves"]["top"]
    return list(zip_longest(before["standing"][:top], cycle["standing"][:top]))
