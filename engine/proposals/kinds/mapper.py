"""Kind `mapper`: a pool whose rows mappers rewrite, against the same rows as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from engine.data.catalogue import check_mapper
from engine.data.mappers import weights_of
from engine.journal import pools
from engine.proposals.arms import control, kind_of, request
from engine.proposals.gate import mappers_problem
from engine.proposals.kinds.contract import Drafted, FormField, Kind, Refused
from engine.records.experiment import Experiment, Id, Name
from engine.records.pool import MapperStep
from engine.study.opened import OpenStudy, last_rung

MAPPERS_MOST = 4


class Mapper(Experiment):
    """A pool with rewritten captions or images (Appendix E.11); only OPs and parameters of the catalogue."""

    place = 50
    kind: Literal["mapper"]
    op: Name
    params: dict[Name, Any] = Field(default_factory=dict, max_length=8)
    pool: Id | None = None


class MapperKind(Kind[Mapper]):
    """Rows that a mapper rewrites."""

    schema = Mapper
    form = (FormField("op", hint="a mapper"), FormField("params", "yaml", "{name: value}"), FormField("pool", "pool"))
    fields = "`op`; `params`, `pool`"
    asks = "the pool's rows (or all) mapped, against the same rows as they are ([mappers.md](mappers.md))"
    brief = (
        "the rows of a pool (or, without `pool`, of all) mapped, against the same rows as they are. `op` is a"
        " text mapper without parameters (clean_html_mapper, clean_links_mapper, clean_email_mapper, "
        "fix_unicode_mapper, whitespace_normalization_mapper, punctuation_normalization_mapper), or "
        "image_captioning_mapper or image_diffusion_mapper where the briefing shows that a model folder for "
        "it was used before."
    )

    def check(self, opened: OpenStudy, experiment: Mapper) -> None:
        """Only OPs and parameters of the catalogue."""
        check_mapper(experiment.op, experiment.params, opened.folder)

    def draft(self, opened: OpenStudy, experiment: Mapper) -> Drafted:
        """A pool whose rows a mapper rewrites, and the same rows as they are."""
        if experiment.pool is None:
            base, name = control(opened, opened.pool_size), "all rows"
        else:
            stored = pools.get(opened.store, experiment.pool)
            if stored is None or stored.kind not in ("single", "combination", "mapper"):
                raise Refused(
                    f"pool {experiment.pool} is no bucket, combination or mapped pool here; djsb rank names them"
                )
            base, name = stored.pool, stored.label
        if len(base.mappers) >= MAPPERS_MOST:
            raise Refused(f"pool {base.id} has {len(base.mappers)} mappers; a pool may have {MAPPERS_MOST}")
        step = MapperStep(experiment.op, tuple(sorted(experiment.params.items())))
        if problem := mappers_problem(opened, (step,)):
            raise Refused(problem)
        step = replace(step, weights=weights_of(experiment.op, dict(experiment.params), opened.folder))
        mapped = replace(base, mappers=(*base.mappers, step))
        plain = replace(base, mappers=())  # that it is judged against
        share, seeds = last_rung(opened)
        plain_name = name.split(" → ", maxsplit=1)[0]
        wholes = [
            request(opened, control(opened, base.size), "control", "control"),
            *([] if plain.is_control else [request(opened, plain, plain_name, kind_of(plain))]),
            request(opened, mapped, f"{name} → {step}", "mapper"),
        ]
        return Drafted("scale", [r.part(share) for r in wholes], range(seeds))


KINDS = (MapperKind(),)
