"""Cycles compared: where each started, what it confirmed, how the ranking moved (Table 14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.evidence.effects import Aggregate, Runs, effects, paired_changes
from engine.evidence.ranking import rank, scores
from engine.journal.store import Row
from engine.records.metric import Metric
from engine.study.opened import OpenStudy
from engine.study.variants import chain_of

TOP = 10  # places that Table 14 compares
RESULT = "cycle"  # name of what is stored of a cycle that came to its end


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


def _confirming(opened: OpenStudy, context: str, recipe: Row) -> Runs:
    """Seed → metric → value of a recipe on its fresh seeds."""
    found = scores(opened.store, context, True, ("confirm",))
    return found.get((recipe["pool"], recipe["samples"], recipe["samples"]), {})


def mean_scores(opened: OpenStudy, recipe: Row | None) -> dict[str, float]:
    """Metric → mean of the recipe's checkpoints over its fresh seeds."""
    runs = _confirming(opened, opened.context, recipe) if recipe else {}
    names = dict.fromkeys(n for r in runs.values() for n in r)
    known = {n: [v for r in runs.values() if (v := r.get(n)) is not None] for n in names}
    return {n: float(np.mean(v)) for n, v in known.items() if v}


def against_first(opened: OpenStudy, chain: Sequence[str], recipe: Row | None) -> Row | None:
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
