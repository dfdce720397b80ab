"""Cycles (Appendix E.10): ckpt₀ → recipe₁ → ckpt₁ → recipe₂ → … and what changes from one to the next.

A cycle is the whole loop once more, its trials and their control alike going on from the best checkpoint of the cycle
before. It has a context of its own, so that nothing is compared across cycles but what this module compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import StudyError, TrialError
from engine.evidence import Aggregate, Runs, effects, paired_changes
from engine.open_study import OpenStudy, view_study
from engine.ranking import rank, scores
from engine.store import Row, now
from engine.tasks import Metric

if TYPE_CHECKING:
    from engine.scheduler import Scheduler

TOP = 10  # places that Table 14 compares
RESULT = "cycle"  # name of what is stored of a cycle that came to its end

# -- from one cycle to the next ----------------------------------------------------------------


def each(opened: OpenStudy, at_work: Scheduler, whole: bool) -> Iterator[OpenStudy]:
    """The study in its first cycle and in every further one that is due, each once the one before has ended.

    whole: the cycles run to their last stage; otherwise none follows.
    Raises: TrialError when the checkpoint to go on from is gone and cannot be made again.
    """
    while True:
        yield opened
        if not whole:
            return
        conclude(opened)
        at_work.book.prune()
        found = next_start(opened)
        if found is None and opened.cycle < opened.study.cycles.max:
            opened.store.event("cycle", f"no recipe is confirmed in cycle {opened.cycle}, so it is the last")
        if found is None or at_work.stopping:
            return
        opened = _begin(opened, *found, at_work)
        if not _restored(opened, at_work):
            return
        at_work.enter(opened)


def current(opened: OpenStudy) -> OpenStudy:
    """The study in the cycle that the engine was in last."""
    last = opened.store.one(
        "SELECT c.* FROM studies s LEFT JOIN cycles c ON c.context = s.context WHERE s.context = ? OR c.root = ? "
        "ORDER BY s.at DESC LIMIT 1",
        (opened.root, opened.root),
    )
    return opened.at(last["context"], last["init"], last["cycle"]) if last and last["context"] else opened


def view_cycle(folder: Path, cycle: int | None) -> OpenStudy:
    """The study to look at, in one of its cycles; None: the one that the engine was in last. Raises: StudyError."""
    view = view_study(folder)
    if cycle is None:
        return view
    chain = chain_of(view)
    if not 1 <= cycle <= len(chain):
        raise StudyError(f"there is no cycle {cycle}; the study has {len(chain)}")
    link = chain[cycle - 1]
    return view.at(link["context"], link["init"], link["cycle"])


def in_cycles(opened: OpenStudy) -> bool:
    """True where a recipe's best checkpoint is kept, as a further cycle may start from it."""
    return opened.study.cycles.max > 1 or opened.cycle > 1


def best_checkpoint(opened: OpenStudy) -> str | None:
    """The trial of the confirmed recipe that scored best in the main metrics; None while no recipe is confirmed."""
    recipe = opened.store.result(opened.context, "recipe")
    if recipe is None:
        return None
    runs = _confirming(opened, opened.context, recipe)
    seed = best_seed(runs, opened.main_metrics, opened.study.evaluation.aggregate)
    row = opened.store.one(
        "SELECT id FROM trials WHERE context = ? AND pool = ? AND samples = ? AND horizon = samples AND seed = ?",
        (opened.context, recipe["pool"], recipe["samples"], seed),
    )
    return str(row["id"]) if row else None


def best_seed(runs: Runs, metrics: Sequence[Metric], aggregate: Aggregate) -> int:
    """The seed whose run is best by its relative change against the mean of all."""
    known = {m.name: [v for r in runs.values() if (v := r.get(m.name)) is not None] for m in metrics}
    mean = {n: float(np.mean(v)) if v else None for n, v in known.items()}
    changes, _, _ = paired_changes(runs, dict.fromkeys(runs, mean), metrics, aggregate)
    return max(sorted(runs), key=lambda s: changes.get(s, -np.inf))


def next_start(opened: OpenStudy) -> tuple[str, str | None] | None:
    """(trial whose checkpoint the next cycle starts from, the proposal that asked for it), or None at the end.

    An approved `cycle` proposal goes before the best checkpoint, and may lead beyond `cycles.max`.
    """
    chain = {r["context"] for r in chain_of(opened)}
    asked = opened.store.query(
        "SELECT id, json_extract(content, '$.init') AS init FROM proposals WHERE context = ? AND kind = 'cycle' "
        "AND status = 'approved' ORDER BY at DESC, id",
        (opened.context,),
    )
    for row in asked:
        if opened.following(row["init"]).context not in chain:
            return row["init"], row["id"]
    best = best_checkpoint(opened) if opened.cycle < opened.study.cycles.max else None
    return (best, None) if best else None


def _begin(opened: OpenStudy, init: str, proposal: str | None, at_work: Scheduler) -> OpenStudy:
    """The next cycle, written down."""
    store, after = opened.store, opened.following(init)
    with store.transaction():
        new = store.execute(
            "INSERT OR IGNORE INTO cycles(context, root, cycle, parent, init, proposal, spent, at) "
            "VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            (after.context, after.root, after.cycle, opened.context, init, proposal, at_work.accounts.spent(), now()),
        )
        if new:
            store.event("cycle", f"cycle {after.cycle} starts from this trial's checkpoint", init)
            # a step takes as long as before
            store.put_result(after.context, "calibration", store.result(opened.context, "calibration"))
    return after


def _restored(after: OpenStudy, at_work: Scheduler) -> bool:
    """True once the checkpoint that a cycle starts from is there. One that was not kept is trained again, to the bit.

    Raises: TrialError.
    """
    assert after.init is not None
    if (after.state / "checkpoints" / after.init).exists():
        return True
    proposals = after.store.query("SELECT proposal FROM proposal_trials WHERE trial = ?", (after.init,))
    at_work.book.wait_again(after.init)
    how = at_work.run("confirm", [r["proposal"] for r in proposals], at_work.limit)
    if how == "done" and not (after.state / "checkpoints" / after.init).exists():
        raise TrialError(
            f"cycle {after.cycle} starts from the checkpoint of trial {after.init}, which is gone and could not be "
            "made again; see djsb log, mend the cause, and the same command goes on"
        )
    return how == "done"


# -- the change of ranking ---------------------------------------------------------------------


@dataclass(frozen=True)
class Moves:
    """How the ranking changed from one cycle to the next (Table 14).

    both: in the top of both, in the later order. new, gone: in the later or in the earlier top only. up, down: of
    those in the later top whose earlier place is known, with the places that they rose or fell.
    """

    top: int
    both: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]
    up: tuple[tuple[str, int], ...]
    down: tuple[tuple[str, int], ...]

    @property
    def mean_up(self) -> float | None:
        """Places by which those that rose did so on average; None if none did."""
        return float(np.mean([n for _, n in self.up])) if self.up else None

    @property
    def mean_down(self) -> float | None:
        """The same of those that fell."""
        return float(np.mean([n for _, n in self.down])) if self.down else None

    def to_json(self) -> Row:
        """For the store."""
        return {**asdict(self), "mean_up": self.mean_up, "mean_down": self.mean_down}


def moves(first: Sequence[str], second: Sequence[str], top: int = TOP) -> Moves:
    """Compare two rankings, best first, by their `top` first places."""
    place = {name: i for i, name in enumerate(first)}
    early, late = first[:top], second[:top]
    risen = [(name, place[name] - i) for i, name in enumerate(late) if name in place]
    return Moves(
        top,
        both=tuple(n for n in late if n in early),
        new=tuple(n for n in late if n not in early),
        gone=tuple(n for n in early if n not in late),
        up=tuple((n, k) for n, k in risen if k > 0),
        down=tuple((n, -k) for n, k in risen if k < 0),
    )


def standing(opened: OpenStudy) -> list[Row]:
    """Statistics in the order of their best bucket in the probe, each with it and its change."""
    best: dict[str, Row] = {}
    for r in rank(opened, ("single",), ("probe",)):
        if r.statistic is not None and r.effect.change is not None:
            best.setdefault(r.statistic, {"statistic": r.statistic, "label": r.label, "change": r.effect.change})
    return list(best.values())


# -- the lineage -------------------------------------------------------------------------------


def conclude(opened: OpenStudy) -> None:
    """Store what the cycle came to: its best checkpoint, the scores, the change against the first and the moves."""
    store, chain = opened.store, chain_of(opened)
    order = standing(opened)
    before = store.result(chain[-2]["context"], RESULT) if len(chain) > 1 else None
    moved = moves([s["statistic"] for s in before["standing"]], [s["statistic"] for s in order]) if before else None
    recipe = store.result(opened.context, "recipe")
    best = best_checkpoint(opened)
    content = {
        "checkpoint": best,
        "pinned": best if in_cycles(opened) else None,
        "standing": order,
        "moves": moved.to_json() if moved else None,
        "scores": _mean_scores(opened, recipe),
        "against_first": _against_first(opened, [r["context"] for r in chain], recipe),
    }
    store.put_result(opened.context, RESULT, content)


def _confirming(opened: OpenStudy, context: str, recipe: Row) -> Runs:
    """Seed → metric → value of a recipe on its fresh seeds."""
    found = scores(opened.store, context, True, ("confirm",))
    return found.get((recipe["pool"], recipe["samples"], recipe["samples"]), {})


def _mean_scores(opened: OpenStudy, recipe: Row | None) -> dict[str, float]:
    """Metric → mean of the recipe's checkpoints over its fresh seeds."""
    runs = _confirming(opened, opened.context, recipe) if recipe else {}
    names = dict.fromkeys(n for r in runs.values() for n in r)
    known = {n: [v for r in runs.values() if (v := r.get(n)) is not None] for n in names}
    return {n: float(np.mean(v)) for n, v in known.items() if v}


def _against_first(opened: OpenStudy, chain: Sequence[str], recipe: Row | None) -> Row | None:
    """The recipe's checkpoints against those of the first cycle's recipe, at the same fresh seeds; None in the first.

    The interval is corrected for the cycles that are compared so far, and holds for the checkpoints that the cycles
    started from. It includes what the longer training does by itself: what the recipe does is its change against the
    control of its own cycle, which trained as long.
    """
    first = opened.store.result(chain[0], "recipe")
    if first is None or recipe is None or len(chain) < 2:
        return None
    table = {"this": _confirming(opened, opened.context, recipe), "first": _confirming(opened, chain[0], first)}
    (found,) = effects(
        table, {"this": "first"}, opened.main_metrics, aggregate=opened.study.evaluation.aggregate,
        confidence=opened.study.search.confidence, arms=len(chain) - 1, anytime=False,
    )  # fmt: skip
    return {
        "change": found.change, "ci_low": found.ci_low, "ci_high": found.ci_high, "seeds": found.seeds,
        "verdict": found.verdict,
    }  # fmt: skip


def chain_of(view: OpenStudy) -> list[Row]:
    """Rows of the table cycles from the first to this one; the first has no start and no parent."""
    found: list[Row] = []
    context: str | None = view.context
    while context is not None:
        row = view.store.one("SELECT * FROM cycles WHERE context = ?", (context,))
        found.append(row or {"context": context, "cycle": 1, "parent": None, "init": None, "proposal": None})
        context = row["parent"] if row else None
    return found[::-1]


def lineage(view: OpenStudy) -> list[Row]:
    """Every cycle from the first to this one: what it started from, its recipe, checkpoint, scores, ranking and cost.

    What only the end of a cycle shows is None before.
    """
    store = view.store
    nothing: dict[str, Any] = dict.fromkeys(("checkpoint", "standing", "moves", "scores", "against_first"))
    found = []
    for link in chain_of(view):
        context = link["context"]
        row = {
            **{name: link[name] for name in ("cycle", "context", "init", "proposal")},
            "recipe": store.result(context, "recipe"), "unconfirmed": store.result(context, "unconfirmed"),
            **nothing, **(store.result(context, RESULT) or {}),
        }  # fmt: skip
        row.pop("pinned", None)
        kept = store.one("SELECT path FROM checkpoints WHERE trial = ? AND kept = 1", (row["checkpoint"],))
        spent = store.one(
            "SELECT coalesce(sum(c.seconds), 0) AS s, count(DISTINCT t.id) AS n FROM costs c JOIN trials t "
            "ON t.id = c.trial WHERE t.context = ?",
            (context,),
        )
        assert spent is not None
        found.append({**row, "path": kept and kept["path"], "trials": spent["n"], "seconds": spent["s"]})
    return found


def last_recipe(view: OpenStudy) -> Row | None:
    """The confirmed recipe of this cycle or, where it has none, of the one before, with the number of its cycle."""
    for link in reversed(chain_of(view)):
        if recipe := view.store.result(link["context"], "recipe"):
            return {**recipe, "cycle": link["cycle"]}
    return None
