"""What a person or a language model may ask for: typed experiments, and the suggestion that carries one.

They name statistics, buckets, pools and rates, never code, and only what stands here. `drafting.py` turns a
suggestion into a proposal; the gate and a decision come after that.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from engine.base.places import FORMS, PATTERN, Place, parse

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{6,32}$", description="id of a pool, trial or proposal")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


def _bound(value: Any) -> float | str:
    """A bound of an interval: a finite number, or the text of a place among the values."""
    if isinstance(value, str):
        parse(value)
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("float_type", f"Input should be a number, or {FORMS}")
    if not math.isfinite(value):
        raise PydanticCustomError("finite_number", "Input should be a finite number")
    return float(value)


_WRITTEN = {"type": "string", "pattern": PATTERN, "description": f"a place among the values: {FORMS}"}
Bound = Annotated[float | str, PlainValidator(_bound), WithJsonSchema({"anyOf": [{"type": "number"}, _WRITTEN]})]


class Frozen(BaseModel):
    """Base: frozen, no unknown keys, no values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(Frozen):
    """Part of a statistic's values: a bucket of the study, or bounds of its own, low ≤ value < high.

    A bound is a value, or a place among the values of all good rows: a percentile (p90) or k sigmas from the mean
    (mean+1sd).
    """

    statistic: Name
    bucket: Literal["low", "mid-low", "mid", "mid-high", "high"] | None = None
    low: Bound | None = None
    high: Bound | None = None

    @model_validator(mode="after")
    def _is_bucket_or_bounds(self) -> Interval:
        bounded = self.low is not None or self.high is not None
        if bounded == (self.bucket is not None):
            raise ValueError("give either a bucket, or a low or high bound")
        if self.low is None or self.high is None:
            return self
        low, high = (parse(b) if isinstance(b, str) else b for b in (self.low, self.high))
        if isinstance(low, Place) and isinstance(high, Place):
            swapped = low.sigma == high.sigma and low.at >= high.at
        else:
            swapped = not isinstance(low, Place) and not isinstance(high, Place) and low >= high
        if swapped:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        return self


class Combine(Frozen):
    """Rows that lie in all of two to six intervals of different statistics (Section 3.2.2)."""

    kind: Literal["combine"]
    slices: tuple[Interval, ...] = Field(min_length=2, max_length=6)

    @model_validator(mode="after")
    def _differ(self) -> Combine:
        names = [s.statistic for s in self.slices]
        if len(set(names)) < len(names):
            raise ValueError("each statistic may stand once in a combination")
        return self


class Bucket(Frozen):
    """Rows in other bounds of one statistic than its buckets have."""

    kind: Literal["bucket"]
    slice: Interval

    @model_validator(mode="after")
    def _has_bounds(self) -> Bucket:
        if self.slice.bucket is not None:
            raise ValueError("the buckets are probed anyway; give low, high or both")
        return self


class Repeat(Frozen):
    """A pool's rows several times over, or lower-ranked rows added, at equal trained samples (Section 3.2.3)."""

    kind: Literal["repeat"]
    pool: Id
    rate: int = Field(strict=True, ge=2, le=64)
    arms: Literal["repeat", "layers", "both"] = "both"


class Seeds(Frozen):
    """More seeds for a pool and its control, at the length that it has reached."""

    kind: Literal["seeds"]
    pool: Id
    seeds: int = Field(strict=True, ge=1, le=16)


class Mapper(Frozen):
    """A pool with rewritten captions or images (Appendix E.11); only OPs and parameters of the catalogue."""

    kind: Literal["mapper"]
    op: Name
    params: dict[Name, Any] = Field(default_factory=dict, max_length=8)
    pool: Id | None = None


class Prompt(Frozen):
    """Caption prompts, for a task that captions (Appendix E.12)."""

    kind: Literal["prompt"]
    prompts: tuple[Annotated[str, Field(min_length=1, max_length=500)], ...] = Field(min_length=1, max_length=16)


class Scale(Frozen):
    """A pool against the control on another model, on other data inside the study's folder, or trained for longer.

    compute: times the study's epochs (Sections 4.4 and 4.5).
    """

    kind: Literal["scale"]
    pool: Id
    preset: Annotated[str, Field(pattern=r"^[a-z][a-z0-9._-]{0,63}$")] | None = None
    dataset: Annotated[str, Field(max_length=300)] | None = None
    compute: Annotated[float, Field(ge=1 / 64, le=64, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _differs(self) -> Scale:
        if self.preset is None and self.dataset is None and self.compute == 1:
            raise ValueError("name a preset, a dataset, or a compute other than 1")
        return self


class Cycle(Frozen):
    """Probes that go on from a trial's checkpoint (Appendix E.10)."""

    kind: Literal["cycle"]
    checkpoint: Id


Experiment = Annotated[Combine | Bucket | Repeat | Seeds | Mapper | Prompt | Scale | Cycle, Field(discriminator="kind")]


class Suggestion(Frozen):
    """One experiment with its grounds. It allows nothing: only a decision does.

    evidence: ids that it rests on; they must exist. papers: ids of works it leans on. expected: change against the
    control in percent. fallback: what to do when it is rejected.
    """

    version: Literal[1] = 1
    experiment: Experiment
    reason: str = Field(min_length=1, max_length=1000)
    evidence: tuple[Id, ...] = Field((), max_length=16)
    papers: tuple[Annotated[str, Field(pattern=r"^paper:[0-9a-f]{6}$")], ...] = Field((), max_length=8)
    expected: Annotated[float, Field(strict=True, ge=-100, le=10_000, allow_inf_nan=False)] | None = None
    fallback: str = Field("the loop goes on without it", max_length=500)
