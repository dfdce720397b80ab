"""Kind `scale`: a recipe on another model, other data or another amount of training."""

from __future__ import annotations

from dataclasses import replace

from engine.evidence.transfer import STAGE as TRANSFER
from engine.journal import pools
from engine.proposals.arms import control, kind_of, request
from engine.proposals.kinds.contract import Drafted, Refused
from engine.records.experiment import Scale
from engine.records.pool import FEEDBACK
from engine.records.trial import FRESH
from engine.study.opened import OpenStudy
from engine.study.variants import elsewhere


def draft_transfer(opened: OpenStudy, wanted: Scale) -> Drafted:
    """A recipe and the control on fresh seeds, on another model, dataset or amount of training."""
    stored = pools.get(opened.store, wanted.pool)
    if stored is None or stored.kind not in ("single", "combination"):
        raise Refused(f"pool {wanted.pool} is no bucket or combination of this study; djsb rank names them")
    pool, other = stored.pool, elsewhere(opened, wanted)
    if any(s.op == FEEDBACK for s in pool.slices):
        raise Refused(f"{stored.label} is cut by a model's scores, which only the study of that model has")
    if wanted.dataset is not None:
        pool = replace(pool, size=min(other.pool_size, other.kept(pool)))
    if pool.size < (batch := opened.study.train.batch_size):
        raise Refused(f"{stored.label} keeps {pool.size} rows there, fewer than a batch of {batch}")
    epochs = opened.study.train.epochs * wanted.compute
    asked = [
        request(other, control(other, pool.size), "control", "control", epochs),
        request(other, pool, stored.label, kind_of(pool), epochs),
    ]
    return TRANSFER, asked, tuple(FRESH + seed for seed in range(opened.study.confirm.seeds))
