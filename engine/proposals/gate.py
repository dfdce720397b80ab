"""The gate: what a proposal must pass before anyone may approve it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.base.amounts import format_seconds
from engine.base.errors import DjsbError, OpError
from engine.data.catalogue import check_mapper, check_params, mapper_fields, mapper_needs
from engine.data.cuts import too_few
from engine.data.mappers import Mappers
from engine.journal import pools, proposals, trials
from engine.records.pool import MODEL_SCORE, Pool
from engine.records.proposal import Proposal
from engine.study.opened import OpenStudy

MAX_REPETITION = 64
MAX_SAMPLES_FACTOR = 1000


@dataclass(frozen=True)
class Passed:
    """ok: may be decided on. reason: why not. cost: estimated device-seconds of what is not yet run."""

    ok: bool
    reason: str
    cost: float | None


def check(proposal: Proposal, opened: OpenStudy, cost: float | None, available: float, new_trials: int) -> Passed:
    """Check OPs, parameters, bounds, evidence, novelty and budget, in that order.

    cost: estimate of the trials that are not yet run. available: device-seconds that the stage may
    still spend. new_trials: how many of its trials were never asked for.
    """
    for request in proposal.pools:
        problem = _pool_problem(request.to_pool(), opened)
        if problem:
            return Passed(False, f"{request.label}: {problem}", cost)
        if request.samples > MAX_SAMPLES_FACTOR * len(opened.data) * max(1.0, opened.epochs):
            return Passed(False, f"{request.label}: {request.samples} samples is beyond any use of the data", cost)
    if unknown := _unknown(proposal, opened):
        return Passed(False, f"cites {', '.join(unknown)}: no such pool, trial or proposal in this study", cost)
    if proposal.origin in ("model", "agent") and not proposal.cites:
        return Passed(False, "it cites no ids; name those of the pools that it follows from", cost)
    if not new_trials:
        return Passed(False, "all of its trials were asked for before", cost)
    if cost is not None and cost > available:
        return Passed(
            False,
            f"budget: it would take {format_seconds(cost)} and {format_seconds(available)} may be spent on this stage",
            cost,
        )
    return Passed(True, "passes", cost)


def _unknown(proposal: Proposal, opened: OpenStudy) -> list[str]:
    """Ids that the proposal cites and the study does not have; trials of fresh seeds are no evidence to choose by."""

    def has(cited: str) -> bool:
        trial = trials.get(store, cited)
        known = pools.get(store, cited) or proposals.get(store, cited) or (trial and not trial.fresh)
        return bool(known)

    store = opened.store
    return [cited for cited in proposal.cites if not has(cited)]


def _pool_problem(pool: Pool, opened: OpenStudy) -> str | None:
    """Why a pool may not be trained on, or None."""
    if pool.size < 1 or not 1 <= pool.repetition <= MAX_REPETITION or not pool.layers:
        return f"size {pool.size} must be at least 1, repetition {pool.repetition} between 1 and {MAX_REPETITION}"
    known = {c.statistic: (c.op, c.params) for c in opened.statistic_columns}
    for layer in pool.layers:
        if layer.source is not None and layer.source not in opened.data.spans:
            return f"the study has no source {layer.source!r}"
        if layer.weight is not None and not 0 < layer.weight <= 1:
            return f"weight {layer.weight} is not between 0 and 1"
        for s in layer.slices:
            if s.statistic not in known:
                return f"statistic {s.statistic!r} is not computed in this study"
            if known[s.statistic] != (s.op, s.params):
                return f"{s.statistic} comes from {known[s.statistic][0]} with other parameters"
            if s.op == MODEL_SCORE:
                continue  # its one parameter, the checkpoint, is compared above
            try:
                check_params(s.op, dict(s.params), opened.folder)
            except DjsbError as error:
                return str(error)
    if problem := mappers_problem(opened, pool.mappers):
        return problem
    if sum(layer.weight or 0 for layer in pool.layers) > 1 + 1e-9:
        return "the layers' weights add up to more than 1"
    if pool.max_repeats is not None:
        return _mixture_problem(pool, opened)
    kept = opened.kept(pool)
    if kept < pool.size:
        return f"its slices keep {kept} rows, fewer than its {pool.size}"
    return None


def _mixture_problem(pool: Pool, opened: OpenStudy) -> str | None:
    """Why the weights of a mixture cannot be had, or None."""
    if not 1 <= (pool.max_repeats or 0) <= MAX_REPETITION:
        return f"max_repeats {pool.max_repeats} is not between 1 and {MAX_REPETITION}"
    weights = [layer.weight for layer in pool.layers]
    if None in weights or abs(sum(w or 0.0 for w in weights) - 1) > 1e-6:
        return "the weights of a mixture must add up to 1"
    lacking = [
        too_few(pool, layer, want, have)
        for layer, (want, have) in zip(pool.layers, opened.shares_of(pool), strict=True)
        if want > have * (pool.max_repeats or 1)
    ]
    return f"it wants {'; '.join(lacking)}" if lacking else None


def mappers_problem(opened: OpenStudy, mappers: Mappers) -> str | None:
    """Why a pool may not be rewritten by these, or None."""
    for mapper in mappers:
        try:
            params = check_mapper(mapper.op, dict(mapper.params), opened.folder)
        except OpError as error:
            return str(error)
        if lacking := mapper_fields(mapper.op)[0] - opened.data.modalities:
            return f"{mapper.op}: the data has no {', '.join(sorted(lacking))}"
        if problem := mapper_needs(mapper.op, params):
            return f"{mapper.op} {problem}"
    return None
