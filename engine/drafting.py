"""Drafting: a suggestion becomes a proposal with pools, lengths and seeds, or is refused with the reason.

Suggested pools run straight at the last rung of the study, against the control at the same seeds and steps, so that
they stand beside what the race or the grid has kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from engine import catalogue, prompting
from engine.accounts import Accounts
from engine.bounds import parse
from engine.cycles import chain_of
from engine.errors import DjsbError
from engine.experiments import Bucket, Combine, Cycle, Interval, Mapper, Prompt, Repeat, Scale, Seeds, Suggestion
from engine.open_study import OpenStudy
from engine.pools import FEEDBACK, Layer, Pool, Rewrite, Slice, pool_from_json
from engine.proposal_queue import stored_id, submit, trial_id, where
from engine.proposals import Origin, PoolRequest, Proposal
from engine.ranking import FRESH, Ranked, rank
from engine.rewriting import weights_of
from engine.rewritten import mappers_problem
from engine.scaling import STAGE as TRANSFER
from engine.scaling import elsewhere
from engine.search.paper import PoolKind, control, fewest_rows, kind_of, ordered, repeat, request
from engine.store import Row, now
from engine.study import digest
from engine.tasks import Task

MAPPERS_MOST = 4


class Refused(DjsbError):
    """A suggestion that cannot be a proposal; the text is the reason."""


def suggest(
    opened: OpenStudy, suggestion: Suggestion, origin: Origin, accounts: Accounts, parent: str | None = None
) -> tuple[str, str, str]:
    """Draft a suggestion, check it at the gate and queue it: (id, status, the gate's reason).

    One that cannot be drafted is kept too, refused, with the reason.
    """
    try:
        proposal = draft(opened, suggestion, origin, parent)
    except DjsbError as error:
        return _refuse(opened, suggestion, origin, str(error)), "refused", str(error)
    status, reason = submit(opened, proposal, accounts)
    return stored_id(opened, proposal), status, reason


def _refuse(opened: OpenStudy, suggestion: Suggestion, origin: Origin, reason: str) -> str:
    """Keep a suggestion that is no proposal; its id."""
    asked = suggestion.experiment.model_dump(mode="json")
    key = digest([opened.context, "refused", asked], 12)
    content = {"suggestion": suggestion.model_dump(mode="json"), "reason": suggestion.reason, "gate": reason}
    known = opened.store.one("SELECT content FROM proposals WHERE id = ?", (key,))
    with opened.store.transaction():
        opened.store.put(
            "proposals",
            {"id": key, "context": opened.context, "origin": origin, "kind": suggestion.experiment.kind,
             "stage": "none", "content": json.dumps(content), "status": "refused", "cost": None, "at": now()},
        )  # fmt: skip
        if known is None or json.loads(known["content"])["gate"] != reason:
            opened.store.event("refused", reason, key, "warning")
    return key


def draft(opened: OpenStudy, suggestion: Suggestion, origin: Origin, parent: str | None = None) -> Proposal:
    """The proposal that a suggestion asks for.

    Raises: Refused with the reason, in words that the one who suggested can act on.
    """
    wanted = suggestion.experiment
    if isinstance(wanted, Mapper):
        catalogue.check_mapper(wanted.op, wanted.params, opened.folder)
    if isinstance(wanted, Scale) and wanted.dataset is not None:
        catalogue.inside(opened.folder, wanted.dataset)
    runs = runnable(opened.task)
    if wanted.kind not in runs:
        raise Refused(f"task {opened.study.task} runs no {wanted.kind} proposals; it runs {', '.join(sorted(runs))}")
    if isinstance(wanted, Combine | Bucket):
        stage, pools, seeds = _slices(opened, wanted)
    elif isinstance(wanted, Repeat):
        stage, pools, seeds = _repetition(opened, wanted)
    elif isinstance(wanted, Seeds):
        stage, pools, seeds = _more_seeds(opened, wanted)
    elif isinstance(wanted, Cycle):
        stage, pools, seeds = _probes(opened, wanted)
    elif isinstance(wanted, Mapper):
        stage, pools, seeds = _rewritten(opened, wanted)
    elif isinstance(wanted, Scale):
        stage, pools, seeds = _elsewhere(opened, wanted)
    elif isinstance(wanted, Prompt):
        stage, pools, seeds = _prompts(opened, wanted)
    else:
        raise Refused(f"no way is known to run {wanted.kind}")
    found = Proposal(
        origin=origin, kind=wanted.kind, stage=stage, pools=tuple(pools), seeds=tuple(seeds), reason=suggestion.reason,
        evidence=suggestion.evidence, expected=suggestion.expected, fallback=suggestion.fallback,
        suggestion=suggestion, parent=parent, init=wanted.checkpoint if isinstance(wanted, Cycle) else None,
    )  # fmt: skip
    if pools:
        _refuse_repetition(where(opened, found), pools, seeds)
    return found


def runnable(task: Task) -> frozenset[str]:
    """Kinds of proposals that can run: those of the task, and those that ask nothing of it but to train."""
    return task.runs | {"cycle", "scale"}


Drafted = tuple[str, list[PoolRequest], Sequence[int]]


def last_rung(opened: OpenStudy) -> tuple[float, int]:
    """(share of a training's steps, seeds) that pools have at the end of the search."""
    search = opened.study.search
    return opened.rungs[-1] if search.strategy == "race" else (1.0, search.seeds)


def _slices(opened: OpenStudy, wanted: Combine | Bucket) -> Drafted:
    """One pool of the rows in all intervals, at the common size of its stage if they are enough."""
    parts = wanted.slices if isinstance(wanted, Combine) else (wanted.slice,)
    named = [_slice(opened, part) for part in parts]
    slices, name = ordered(s for s, _ in named), " + ".join(text for _, text in named)
    pool = Pool((Layer(slices),), opened.pool_size, seed=opened.study.seed)
    kept, stage, floor = opened.kept(pool), "probe", opened.pool_size
    if isinstance(wanted, Combine):
        stage, floor = "combine", fewest_rows(opened)
        size = min(kept, _size_of_stage(opened, "combine") or opened.pool_size)
        pool = replace(pool, size=size)
    if kept < floor:
        raise Refused(f"{name} keeps {kept} rows, and a pool needs {floor}; widen it")
    share, seeds = last_rung(opened)
    for other in rank(opened, ("single", "combination"), ("probe", "combine")):
        if set(other.pool.slices) == set(slices) and other.share >= share and other.effect.seeds >= seeds:
            raise Refused(f"a repetition: pool {other.pool.id} ran with these slices ({_told(other)})")
    kind: PoolKind = "single" if len(slices) == 1 else "combination"
    wholes = [request(opened, control(opened, pool.size), "control", "control"), request(opened, pool, name, kind)]
    return stage, [r.part(share) for r in wholes], range(seeds)


def _slice(opened: OpenStudy, part: Interval) -> tuple[Slice, str]:
    """The slice that an interval means, and its name."""
    source = next((c for c in opened.statistic_columns if c.statistic == part.statistic), None)
    if source is None:
        known = ", ".join(c.statistic for c in opened.statistic_columns)
        raise Refused(f"statistic {part.statistic!r} is not computed in this study; it has {known}")
    if part.bucket is None:
        ends = ["" if b is None else b if isinstance(b, str) else f"{b:g}" for b in (part.low, part.high)]
        values = source.column.value[opened.scan.good]
        low, high = (parse(b).value(values) if isinstance(b, str) else b for b in (part.low, part.high))
        if low is not None and high is not None and low >= high:
            raise Refused(f"{part.statistic} {'…'.join(ends)} is empty: {low:g} is not below {high:g}")
        return Slice(source.op, source.statistic, low, high, params=source.params), f"{part.statistic} {'…'.join(ends)}"
    cut = next((c for c in opened.cuts if c.slice.statistic == part.statistic and c.bucket == part.bucket), None)
    if cut is None or cut.reason:
        raise Refused(f"{part.statistic} has no bucket {part.bucket}: {cut.reason if cut else 'the study cuts others'}")
    return cut.slice, cut.label


def _size_of_stage(opened: OpenStudy, stage: str) -> int | None:
    """Rows of the control that a stage ran against, so that one control serves all its pools."""
    rows = opened.store.query(
        "SELECT p.content FROM trials t JOIN pools p ON p.id = t.pool WHERE t.context = ? AND t.stage = ? "
        "AND p.kind != 'control' GROUP BY p.id ORDER BY count(*) DESC LIMIT 1",
        (opened.context, stage),
    )
    return int(json.loads(rows[0]["content"])["size"]) if rows else None


def _repetition(opened: OpenStudy, wanted: Repeat) -> Drafted:
    ranked = rank(opened, ("single", "combination"), ("probe", "combine"))
    best = next((r for r in ranked if r.pool.id == wanted.pool), None)
    if best is None:
        raise Refused(f"pool {wanted.pool} is no bucket or combination with results here; djsb rank names them")
    found = repeat(opened, ranked, best, wanted.rate)
    unwanted = {"repeat": "layers", "layers": "repetition", "both": ""}[wanted.arms]
    return "scale", [p for p in found.pools if p.kind != unwanted], found.seeds


def _more_seeds(opened: OpenStudy, wanted: Seeds) -> Drafted:
    """The next seeds of a pool at the longest training that it has, and of the control at the same."""
    trials = opened.store.query(
        "SELECT t.seed, t.samples, t.horizon, t.stage, p.content, p.label, p.kind FROM trials t "
        "JOIN pools p ON p.id = t.pool WHERE t.context = ? AND t.pool = ? AND t.seed < ? AND t.state = 'COMPLETE' "
        "ORDER BY t.samples DESC, t.horizon",
        (opened.context, wanted.pool, FRESH),
    )
    if not trials or trials[0]["kind"] == "control":
        raise Refused(f"pool {wanted.pool} has no finished trial to add seeds to")
    at = trials[0]
    control_row = opened.store.one(
        "SELECT p.content, p.label, p.kind, ? AS samples, ? AS horizon FROM trials t JOIN pools p ON p.id = t.pool "
        "WHERE t.context = ? AND p.kind = 'control' AND t.samples = ? AND t.horizon = ?",
        (at["samples"], at["horizon"], opened.context, at["samples"], at["horizon"]),
    )
    if control_row is None:
        raise Refused(f"pool {wanted.pool} has no control that trained as long")
    had = {t["seed"] for t in trials if (t["samples"], t["horizon"]) == (at["samples"], at["horizon"])}
    seeds = [s for s in range(len(had) + wanted.seeds) if s not in had][: wanted.seeds]
    return at["stage"], [_request_of(control_row), _request_of(at)], seeds


def _rewritten(opened: OpenStudy, wanted: Mapper) -> Drafted:
    """A pool whose rows a mapper rewrites, and the same rows as they are."""
    if wanted.pool is None:
        base, name = control(opened, opened.pool_size), "all rows"
    else:
        row = opened.store.one(
            "SELECT * FROM pools WHERE id = ? AND kind IN ('single', 'combination', 'mapper')", (wanted.pool,)
        )
        if row is None:
            raise Refused(f"pool {wanted.pool} is no bucket, combination or rewritten pool here; djsb rank names them")
        base, name = pool_from_json(json.loads(row["content"])), row["label"]
    if len(base.mappers) >= MAPPERS_MOST:
        raise Refused(f"pool {base.id} has {len(base.mappers)} mappers; a pool may have {MAPPERS_MOST}")
    step = Rewrite(wanted.op, tuple(sorted(wanted.params.items())))
    if problem := mappers_problem(opened, (step,)):
        raise Refused(problem)
    step = replace(step, weights=weights_of(wanted.op, dict(wanted.params), opened.folder))
    mapped = replace(base, mappers=(*base.mappers, step))
    plain = replace(base, mappers=())  # that it is judged against
    share, seeds = last_rung(opened)
    plain_name = name.split(" → ", maxsplit=1)[0]
    wholes = [
        request(opened, control(opened, base.size), "control", "control"),
        *([] if plain.is_control else [request(opened, plain, plain_name, kind_of(plain))]),
        request(opened, mapped, f"{name} → {step}", "mapper"),
    ]
    return "scale", [r.part(share) for r in wholes], range(seeds)


def _prompts(opened: OpenStudy, wanted: Prompt) -> Drafted:
    """Prompts for the checkpoints of all cycles; nothing is trained."""
    if problem := prompting.lacking(opened):
        raise Refused(problem)
    if not prompting.to_ask(opened, wanted.prompts):
        raise Refused("a repetition: all of these prompts were asked before; djsb show prompts has them")
    return prompting.STAGE, [], ()


def _probes(opened: OpenStudy, wanted: Cycle) -> Drafted:
    """The first round of a next cycle: all buckets and the control, going on from a trial's checkpoint."""
    held = opened.store.one(
        "SELECT 1 FROM checkpoints c JOIN trials t ON t.id = c.trial WHERE c.trial = ? AND c.kept = 1 AND t.context IN "
        "(SELECT ? UNION SELECT context FROM cycles WHERE root = ?)",
        (wanted.checkpoint, opened.root, opened.root),
    )
    if held is None:
        raise Refused(f"no checkpoint of trial {wanted.checkpoint} is kept here; djsb show lineage names some")
    if opened.following(wanted.checkpoint).context in {link["context"] for link in chain_of(opened)}:
        raise Refused(f"a repetition: a cycle started from the checkpoint of trial {wanted.checkpoint} before")
    share = opened.rungs[0][0] if opened.study.search.strategy == "race" else 1.0
    wholes = [request(opened, control(opened, opened.pool_size), "control", "control")]
    wholes += [request(opened, c.pool, c.label, "single") for c in opened.cuts if c.reason is None]
    return "probe", [r.part(share) for r in wholes], (0,)


def _elsewhere(opened: OpenStudy, wanted: Scale) -> Drafted:
    """A recipe and the control on fresh seeds, on another model, dataset or amount of training."""
    row = opened.store.one("SELECT * FROM pools WHERE id = ? AND kind IN ('single', 'combination')", (wanted.pool,))
    if row is None:
        raise Refused(f"pool {wanted.pool} is no bucket or combination of this study; djsb rank names them")
    pool, other = pool_from_json(json.loads(row["content"])), elsewhere(opened, wanted)
    if any(s.op == FEEDBACK for s in pool.slices):
        raise Refused(f"{row['label']} is cut by a model's feedback, which is known of this model's own study only")
    if wanted.dataset is not None:
        pool = replace(pool, size=min(other.pool_size, other.kept(pool)))
    if pool.size < (batch := opened.study.train.batch_size):
        raise Refused(f"{row['label']} keeps {pool.size} rows there, fewer than a batch of {batch}")
    epochs = opened.study.train.epochs * wanted.compute
    asked = [
        request(other, control(other, pool.size), "control", "control", epochs),
        request(other, pool, row["label"], row["kind"], epochs),
    ]
    return TRANSFER, asked, tuple(FRESH + seed for seed in range(opened.study.confirm.seeds))


def _request_of(row: Row) -> PoolRequest:
    """The request that a stored trial came from."""
    horizon = row["horizon"] if row["horizon"] != row["samples"] else None
    return PoolRequest(
        pool=json.loads(row["content"]), label=row["label"], kind=row["kind"], samples=row["samples"], horizon=horizon
    )


def _refuse_repetition(opened: OpenStudy, pools: Sequence[PoolRequest], seeds: Sequence[int]) -> None:
    """Refuse what asks for no trial that is new, the control's aside."""
    ids = [trial_id(opened, r, seed) for r in pools if r.kind != "control" for seed in seeds]
    marks = ", ".join("?" * len(ids))
    asked = opened.store.query(f"SELECT id FROM trials WHERE id IN ({marks})", ids)
    if len(asked) == len(ids):
        raise Refused(f"a repetition: {', '.join(r.label for r in pools if r.kind != 'control')} was asked for before")


def _told(entry: Ranked) -> str:
    change = entry.effect.change
    return "no result" if change is None else f"{change:+.1f} % over {entry.effect.seeds} seed(s)"
