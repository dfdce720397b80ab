"""Kind `repeat`: the rows of a recipe several times, against lower layers and the control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from engine.evidence.ranking import Ranked, rank
from engine.proposals.arms import control, request
from engine.proposals.best import recipes
from engine.proposals.kinds.contract import Drafted, FormField, Kind, Refused, own_pools
from engine.records.experiment import Experiment, Id
from engine.records.pool import Layer, Pool
from engine.records.proposal import Proposal
from engine.study.opened import OpenStudy


class Repeat(Experiment):
    """A pool's rows several times over, or lower-ranked rows added, at equal trained samples (Section 3.2.3)."""

    place = 30
    kind: Literal["repeat"]
    pool: Id
    rate: int = Field(strict=True, ge=2, le=64)
    arms: Literal["repeat", "layers", "both"] = "both"


class RepeatKind(Kind[Repeat]):
    """A recipe repeated, against lower-ranked rows."""

    schema = Repeat
    form = (
        FormField("pool", "pool"),
        FormField("rate", "number", "2 … 64 times"),
        FormField("arms", "choice", choices=("both", "repeat", "layers"), start="both"),
    )
    fields = "`pool`, `rate` (2 … 64), `arms`: `repeat`, `layers` or `both`"
    asks = "the pool repeated, lower-ranked rows added instead, the control: equal trained samples"
    brief = "a pool's rows several times over, or lower-ranked rows added, at equal trained samples."

    def draft(self, opened: OpenStudy, experiment: Repeat) -> Drafted:
        ranked = rank(opened, ("single", "combination"), ("probe", "combine"))
        best = next((r for r in ranked if r.pool.id == experiment.pool), None)
        if best is None:
            raise Refused(f"pool {experiment.pool} is no bucket or combination with results here; djsb rank names them")
        drafted = repeat(opened, ranked, best, experiment.rate)
        unwanted = {"repeat": "layers", "layers": "repetition", "both": ""}[experiment.arms]
        return Drafted("scale", [p for p in drafted.pools if p.kind != unwanted], drafted.seeds)

    def objection(self, opened: OpenStudy, proposal: Proposal) -> str | None:
        """The pool is one of the best recipes, or not."""
        best = {r.pool.slices for r in recipes(opened)[: opened.study.scale.recipes]}
        return (
            None
            if any(p.to_pool().slices in best for p in own_pools(proposal))
            else ("the pool is not one of the best recipes")
        )


def repeat(opened: OpenStudy, ranked: Sequence[Ranked], best: Ranked, rate: int) -> Proposal:
    """One recipe repeated, lower layers added to it, and the control, at equal trained samples."""
    own = set(best.pool.slices)
    # the pyramid below the recipe: its looser parents, best first, then everything
    lower = [r.pool.slices for r in ranked if set(r.pool.slices) < own]
    layers = (Layer(best.pool.slices), *(Layer(s) for s in lower), Layer())
    distinct = min(best.pool.size * rate, int(opened.scan.good.sum()))
    epochs = opened.epochs * best.pool.size * rate / distinct
    added = Pool(layers, distinct, seed=best.pool.seed)
    pools = (
        request(opened, control(opened, distinct), "control", "control", epochs),
        request(opened, replace(best.pool, repetition=rate), f"{best.label} ×{rate}", "repetition"),
        request(opened, added, f"{best.label} + lower layers", "layers", epochs),
    )
    samples = pools[1].samples
    return Proposal(
        origin="paper", kind="repeat", stage="scale",
        pools=tuple(p.model_copy(update={"samples": samples}) for p in pools),
        seeds=tuple(range(opened.study.scale.seeds)), cites=(best.pool.id,), expected=best.effect.change,
        reason=f"{best.label}: repeat ×{rate}, or add lower-ranked rows, at {samples} trained samples",
        fallback="the recipe is used without repetition",
    )  # fmt: skip


KINDS = (RepeatKind(),)
