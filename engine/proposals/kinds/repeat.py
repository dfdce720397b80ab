"""Kind `repeat`: the rows of a recipe several times, against lower layers and the control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.evidence.ranking import Ranked, rank
from engine.proposals.arms import control, request
from engine.proposals.kinds.contract import Drafted, Refused
from engine.records.experiment import Repeat
from engine.records.pool import Layer, Pool
from engine.records.proposal import Proposal
from engine.study.opened import OpenStudy


def draft_repeat(opened: OpenStudy, wanted: Repeat) -> Drafted:
    ranked = rank(opened, ("single", "combination"), ("probe", "combine"))
    best = next((r for r in ranked if r.pool.id == wanted.pool), None)
    if best is None:
        raise Refused(f"pool {wanted.pool} is no bucket or combination with results here; djsb rank names them")
    found = repeat(opened, ranked, best, wanted.rate)
    unwanted = {"repeat": "layers", "layers": "repetition", "both": ""}[wanted.arms]
    return "scale", [p for p in found.pools if p.kind != unwanted], found.seeds


def repeat(opened: OpenStudy, ranked: Sequence[Ranked], best: Ranked, rate: int) -> Proposal:
    """One recipe repeated, lower layers added to it, and the control, at equal trained samples."""
    own = set(best.pool.slices)
    # the pyramid below the recipe: its looser parents, best first, then everything
    lower = [r.pool.slices for r in ranked if set(r.pool.slices) < own]
    layers = (Layer(best.pool.slices), *(Layer(s) for s in lower), Layer())
    distinct = min(best.pool.size * rate, int(opened.scan.good.sum()))
    epochs = opened.study.train.epochs * best.pool.size * rate / distinct
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
        seeds=tuple(range(opened.study.scale.seeds)), evidence=(best.pool.id,), expected=best.effect.change,
        reason=f"{best.label}: repeat ×{rate}, or add lower-ranked rows, at {samples} trained samples",
        fallback="the recipe is used without repetition",
    )  # fmt: skip
