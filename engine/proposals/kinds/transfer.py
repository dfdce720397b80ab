"""Kind `scale`: a recipe on another model, other data or another amount of training."""

from __future__ import annotations

import json
from dataclasses import replace

from engine.evidence.transfer import STAGE as TRANSFER
from engine.proposals.arms import control, request
from engine.proposals.kinds.contract import Drafted, Refused
from engine.records.experiment import Scale
from engine.records.pool import FEEDBACK, pool_from_json
from engine.records.trial import FRESH
from engine.study.opened import OpenStudy
from engine.study.variants import elsewhere


def draft_transfer(opened: OpenStudy, wanted: Scale) -> Drafted:
    """A recipe and the control on fresh seeds, on another model, dataset or amount of training."""
    row = opened.store.one("SELECT * FROM pools WHERE id = ? AND kind IN ('single', 'combination')", (wanted.pool,))
    if row is None:
        raise Refused(f"pool {wanted.pool} is no bucket or combination of this study; djsb rank names them")
    pool, other = pool_from_json(json.loads(row["content"])), elsewhere(opened, wanted)
    if any(s.op == FEEDBACK for s in pool.slices):
        raise Refused(f"{row['label']} is cut by a model's scores, which only the study of that model has")
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
