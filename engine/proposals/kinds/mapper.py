"""Kind `mapper`: a pool whose rows mappers rewrite, against the same rows as they are."""

from __future__ import annotations

from dataclasses import replace

from engine.base.errors import OpError
from engine.data.catalogue import check_mapper, mapper_fields, mapper_needs
from engine.data.mappers import Mappers, weights_of
from engine.journal import pools
from engine.proposals.arms import control, kind_of, request
from engine.proposals.kinds.contract import Drafted, Refused
from engine.records.experiment import Mapper
from engine.records.pool import Rewrite
from engine.study.opened import OpenStudy, last_rung

MAPPERS_MOST = 4


def draft_mapper(opened: OpenStudy, wanted: Mapper) -> Drafted:
    """A pool whose rows a mapper rewrites, and the same rows as they are."""
    if wanted.pool is None:
        base, name = control(opened, opened.pool_size), "all rows"
    else:
        stored = pools.get(opened.store, wanted.pool)
        if stored is None or stored.kind not in ("single", "combination", "mapper"):
            raise Refused(f"pool {wanted.pool} is no bucket, combination or mapped pool here; djsb rank names them")
        base, name = stored.pool, stored.label
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
