"""What a person or a language model may ask for: a suggestion, which carries one typed experiment.

Experiments name statistics, buckets, pools and rates, never code. Each kind's schema stands with the kind, in
engine/proposals/kinds/, and joins the others here. A draft makes a proposal of a suggestion; the gate and a decision
come after that.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Union, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

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


# a bucket, or a pool beside the buckets (engine/data/rare.py)
BUCKET = r"low|mid-low|mid|mid-high|high|without-(lowest|highest)-(1|5|10)%|(only|without)-[0-9a-z.+-]{1,24}"


class Frozen(BaseModel):
    """Base: frozen, no unknown keys, no values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(Frozen):
    """Part of a statistic's values: a bucket of the study, or bounds of its own, low ≤ value < high.

    A bound is a value, or a place among the values of all good rows: a percentile (p90) or k sigmas from the mean
    (mean+1sd).
    """

    statistic: Name
    bucket: str | None = Field(None, pattern=f"^({BUCKET})$")
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


class Experiment(Frozen):
    """Base of the schemas. A schema joins SCHEMAS as it is defined, under the one word that its `kind` may be.

    place: where it stands in lists of kinds. trains: it asks for trials.
    """

    place: ClassVar[int] = 100
    trains: ClassVar[bool] = True
    kind: str

    @property
    def where(self) -> list[str]:
        """What sets its trials apart beside pools, samples and seeds: another model, other data."""
        return []

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        SCHEMAS[kind_name(cls)] = cls


SCHEMAS: dict[str, type[Experiment]] = {}


def kind_name(schema: type[Experiment]) -> str:
    """The word that stands in `kind` of a schema."""
    (name,) = get_args(schema.model_fields["kind"].annotation)
    return str(name)


@lru_cache(1)
def _adapter(schemas: tuple[type[Experiment], ...]) -> TypeAdapter[Experiment]:
    every: Any = Union[schemas]  # noqa: UP007 (made at run time)
    return TypeAdapter(Annotated[every, Field(discriminator="kind")])


def _schemas() -> TypeAdapter[Experiment]:
    """Of any kind that is there now: a kind may join at any time."""
    return _adapter(tuple(sorted(SCHEMAS.values(), key=lambda s: s.place)))


class _OfAnyKind:
    """Marks a field that holds an experiment of any kind."""

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(lambda value: _schemas().validate_python(value))

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(_schemas().core_schema)


def outdated(content: Any) -> dict[str, str]:
    """Retired words in a suggestion → what they are called now."""
    experiment = content.get("experiment") if isinstance(content, dict) else None
    words = {"evidence": "cites"} if experiment is not None and "evidence" in content else {}
    if isinstance(experiment, dict) and experiment.get("kind") == "scale":
        words["kind: scale"] = "kind: transfer"
    return words


class Suggestion(Frozen):
    """One experiment with its grounds. It allows nothing: only a decision does.

    cites: ids that it rests on; they must exist. papers: ids of works it leans on. expected: change against the
    control in percent. fallback: what to do when it is rejected.
    """

    version: Literal[1] = 1
    experiment: Annotated[Experiment, _OfAnyKind()]
    reason: str = Field(min_length=1, max_length=1000)
    cites: tuple[Id, ...] = Field((), max_length=16)
    papers: tuple[Annotated[str, Field(pattern=r"^paper:[0-9a-f]{6}$")], ...] = Field((), max_length=8)
    expected: Annotated[float, Field(strict=True, ge=-100, le=10_000, allow_inf_nan=False)] | None = None
    fallback: str = Field("the loop goes on without it", max_length=500)

    @model_validator(mode="before")
    @classmethod
    def _reads_retired_words(cls, content: Any) -> Any:
        words = outdated(content)
        if "evidence" in words and "cites" not in content:
            content = {**content, "cites": content["evidence"]}
            del content["evidence"]
        if "kind: scale" in words:
            content = {**content, "experiment": {**content["experiment"], "kind": "transfer"}}
        return content
