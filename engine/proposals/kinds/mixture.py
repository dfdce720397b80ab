"""Kind `mixture`: rows of several sources or buckets, each with a weight, against the proportional mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.proposals.arms import control, request
from engine.proposals.kinds.contract import Drafted, FormField, Kind, Refused
from engine.records.experiment import Experiment
from engine.records.pool import Layer, Pool
from engine.study.opened import OpenStudy, last_rung

Part = Annotated[str, Field(min_length=1, max_length=200)]
Weight = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
ROUNDED = 1e-3  # by which written weights may miss 1


class Mixture(Experiment):
    """Rows of several sources or buckets, each with its share of the pool."""

    place = 25
    kind: Literal["mixture"]
    weights: dict[Part, Weight] = Field(min_length=1, max_length=64)
    max_repeats: Annotated[int, Field(strict=True, ge=1, le=64)] | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Mixture:
        total = sum(self.weights.values())
        if abs(total - 1) > ROUNDED:
            raise ValueError(f"the weights add up to {total:.4g}; they must add up to 1")
        return self


class MixtureKind(Kind[Mixture]):
    """Weighted sources or buckets."""

    schema = Mixture
    form = (
        FormField("weights", "yaml", "{source: weight}"),
        FormField("max_repeats", "number", "of a row in an epoch, 1 … 64"),
    )
    fields = "`weights`: `{NAME: share}`, adding up to 1; `max_repeats` (1 … 64)"
    asks = (
        "rows of several sources, or buckets named as on the leaderboard (`text_len low`), in these shares; the "
        "control is the proportional mixture ([mixtures.md](mixtures.md))"
    )
    brief = (
        "rows of several sources of the study (or buckets, named as `text_len low`), each with its share of the pool, "
        "as {laion: 0.3, cc3m: 0.7}; the shares add up to 1. `max_repeats`: how often a row of a small source may be "
        "seen in an epoch. The control is the proportional mixture."
    )

    def draft(self, opened: OpenStudy, experiment: Mixture) -> Drafted:
        """At the common size, against the control."""
        pool, label = mixed(opened, experiment.weights, experiment.max_repeats)
        share, seeds = last_rung(opened)
        wholes = [
            request(opened, control(opened, pool.size), "control", "control"),
            request(opened, pool, label, "mixture"),
        ]
        return Drafted("probe", [r.part(share) for r in wholes], range(seeds))


KINDS = (MixtureKind(),)


def mixed(opened: OpenStudy, weights: Mapping[str, float], max_repeats: int | None = None) -> tuple[Pool, str]:
    """The pool of these weights, at the common size, and its name. Raises: Refused for a name that is of nothing."""
    total = sum(weights.values())
    shares = {name: round(weights[name] / total, 6) for name in sorted(weights)}
    layers = tuple(_layer(opened, name, share) for name, share in shares.items())
    repeats = max_repeats or opened.study.mixtures.max_repeats
    label = " + ".join(f"{name} {100 * share:.3g} %" for name, share in shares.items())
    return Pool(layers, opened.pool_size, seed=opened.study.seed, max_repeats=repeats), label


def _layer(opened: OpenStudy, name: str, weight: float | None = None) -> Layer:
    """The rows that a name means."""
    if name in opened.data.spans:
        return Layer((), weight, name)
    cuts = opened.cuts if opened.study.ops else []
    cut = next((c for c in cuts if c.label == name), None)
    if cut is None or not cut.kept:
        there = ", ".join([*opened.data.spans, *(c.label for c in cuts if c.kept)][:12]) or "neither"
        raise Refused(f"{name!r} is no source and no bucket of this study; it has {there}")
    return Layer((cut.slice,), weight)


def parts(opened: OpenStudy) -> dict[str, int]:
    """What mixtures of the study weight → its good rows; a row of several is the first one's."""
    names = sorted(opened.study.mixtures.over or opened.data.spans)
    pool = Pool(tuple(_layer(opened, name, 1.0) for name in names), 1, max_repeats=1)
    return dict(zip(names, (have for _, have in opened.shares_of(pool)), strict=True))
