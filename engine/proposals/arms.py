"""An arm: a pool with its samples and horizon, the id of its trial, its control."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from engine.base.ids import content_id
from engine.evidence.ranking import Ranked
from engine.journal import trials
from engine.records.pool import ALL_ROWS, Layer, Pool, Slice
from engine.records.proposal import Arm, Proposal
from engine.study.opened import OpenStudy

PoolKind = Literal["control", "single", "combination", "repetition", "layers", "mapper", "mixture", "all"]


def trial_id(opened: OpenStudy, request: Arm, seed: int) -> str:
    """The trial's content hash. Equal arms are one trial, independent of who proposed them."""
    parts = [opened.setup, request.to_pool().id, request.samples, seed, opened.init]
    return content_id([*parts, request.horizon] if request.horizon else parts)


def ended(opened: OpenStudy, requests: Sequence[Arm], seeds: Sequence[int]) -> bool:
    """True when every request's trial at every seed has a result, has failed, or was cancelled."""
    return _over(opened, {trial_id(opened, r, s) for r in requests for s in seeds})


def has_run(opened: OpenStudy, proposal: Proposal) -> bool:
    """The same of all that a proposal asks for."""
    return _over(opened, {trial_id(opened, arm, seed) for arm, seed in proposal.runs})


def _over(opened: OpenStudy, ids: set[str]) -> bool:
    states = trials.states(opened.store, ids)
    return len(states) == len(ids) and not {"WAITING", "RUNNING"} & set(states.values())


def kind_of(pool: Pool) -> PoolKind:
    """The kind of a mixture, or of a pool of one layer that is no control."""
    if pool.max_repeats is not None and not pool.mappers:
        return "mixture"
    return "mapper" if pool.mappers else "combination" if len(pool.slices) > 1 else "single"


def request(opened: OpenStudy, pool: Pool, label: str, kind: PoolKind, epochs: float | None = None) -> Arm:
    """A pool with the samples that the study's epochs give it; with a target, of a probe, with the samples of all."""
    samples = int(pool.samples * (epochs if epochs is not None else opened.epochs))
    if epochs is None and opened.probe.matched and pool.repetition == 1 and pool.size <= opened.pool_size:
        samples = opened.probe.samples
    return Arm.model_validate({"pool": pool.to_json(), "label": label, "kind": kind, "samples": max(1, samples)})


def control(opened: OpenStudy, size: int) -> Pool:
    """The random pool of a size."""
    return Pool((Layer(),), size, seed=opened.study.seed)


def every_row(opened: OpenStudy, samples: int) -> Arm:
    """All good rows, at a number of trained samples."""
    pool = Pool(ALL_ROWS, int(opened.scan.good.sum()), seed=opened.study.seed)
    return Arm.model_validate({"pool": pool.to_json(), "label": "all rows", "kind": "all", "samples": samples})


def compatible(chosen: Sequence[Ranked]) -> bool:
    """False for two buckets of one statistic, which share no row."""
    return len({r.statistic for r in chosen}) == len(chosen)


def label(chosen: Sequence[Ranked]) -> str:
    """`text_len mid + char_rep_ratio low`."""
    return " + ".join(r.label for r in chosen)


def combined(opened: OpenStudy, chosen: Sequence[Ranked], size: int) -> Arm:
    """A combination of slices as a pool of a size."""
    if len(chosen) == 1:
        return request(opened, replace(chosen[0].pool, size=size), label(chosen), "single")
    pool = Pool((Layer(ordered(r.pool.slices[0] for r in chosen)),), size, seed=opened.study.seed)
    if opened.probe.matched:
        pool = replace(pool, size=max(1, opened.rows_of(opened.kept(pool), size)))
    return request(opened, pool, label(chosen), "combination")


def ordered(slices: Iterable[Slice]) -> tuple[Slice, ...]:
    """Slices in one order, so that equal combinations are equal pools."""
    return tuple(sorted(slices, key=lambda s: (s.op, s.statistic, str(s))))


def fewest_rows(opened: OpenStudy) -> int:
    """Rows below which a combination is left out; with a target it may repeat few."""
    if opened.probe.matched:
        return opened.fewest_rows
    return max(int(opened.study.combine.floor * opened.pool_size), opened.fewest_rows)
