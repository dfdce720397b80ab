"""Pools: immutable descriptions of data.

A pool names its slices (intervals of statistics), size, repetition and seed; its content hash is its id.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from engine.base.errors import PoolError
from engine.base.ids import content_id

MODEL_SCORE = "model_feedback"  # in place of an OP: a checkpoint's score of each row
BY_NUMBER = "specified_numeric_field_filter"  # the OP of a field that holds numbers
BY_VALUE = "specified_field_filter"  # the OP of a field whose values are words: a statistic counts them from 0
SCORES = "scores"  # parameter of a statistic that stands in a file beside the data: what the file holds
BUCKETS = {
    2: ("low", "high"),
    3: ("low", "mid", "high"),
    4: ("low", "mid-low", "mid-high", "high"),
    5: ("low", "mid-low", "mid", "mid-high", "high"),
}


@dataclass(frozen=True)
class Slice:
    """An interval of a statistic's values; a row is kept when all its values lie inside.

    low, high: bounds, None for open-ended. By default [low, high): closed below, open above, so
    that neighbouring buckets share no row and leave no gap on new data. outside: kept are the rows that have a
    value, and none inside.
    """

    op: str
    statistic: str
    low: float | None = None
    high: float | None = None
    low_closed: bool = True
    high_closed: bool = False
    params: tuple[tuple[str, Any], ...] = ()
    outside: bool = False

    def __post_init__(self) -> None:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if math.isnan(low) or math.isnan(high) or low > high:
            raise PoolError(
                f"{self.statistic}: the lower bound {self.low} is above the upper bound {self.high}; swap them"
            )

    def __str__(self) -> str:
        left = "(-inf" if self.low is None else f"{'[' if self.low_closed else '('}{self.low:g}"
        right = "inf)" if self.high is None else f"{self.high:g}{']' if self.high_closed else ')'}"
        return f"{self.statistic} {'not ' * self.outside}in {left}, {right}"


@dataclass(frozen=True)
class Layer:
    """Rows that pass all slices; no slices: all rows.

    weight: its share of the pool, None: as many as fit. source: of the data set, whose rows alone count; None: all.
    """

    slices: tuple[Slice, ...] = ()
    weight: float | None = None
    source: str | None = None


ALL_ROWS = (Layer(weight=1.0),)  # the layers of all rows; the weight tells them from a control of that size


@dataclass(frozen=True)
class MapperStep:
    """A mapper that rewrites the rows of a pool (Appendix E.11).

    params: as in the study, paths relative to its folder. weights: content hash of the model folder that they name.
    """

    op: str
    params: tuple[tuple[str, Any], ...] = ()
    weights: str = ""

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value}" for name, value in self.params)
        return f"{self.op}({told})" if told else self.op


@dataclass(frozen=True)
class Pool:
    """What one trial is trained on.

    layers: taken in order; a row taken by one is not taken again (the deduplicated union of
    Section 3.2.3). size: distinct rows. repetition: how often each is seen per epoch. mappers: rewrite the rows
    that the layers keep, one after the other. max_repeats: None but in a mixture, whose layers' weights add up to 1; a
    layer that has fewer rows than its share has them up to so many times each, and `size` counts each time.
    """

    layers: tuple[Layer, ...] = (Layer(),)
    size: int = 0
    repetition: int = 1
    seed: int = 0
    mappers: tuple[MapperStep, ...] = ()
    max_repeats: int | None = None

    @cached_property
    def id(self) -> str:
        """Content hash: the same on every machine and in every run."""
        return content_id(self.to_json(), 12)

    def to_json(self) -> dict[str, Any]:
        """What `pool_from_json` reads; what came later stands there only where there is some: mappers, a source …"""
        content = asdict(self)
        for layer in content["layers"]:
            if layer["source"] is None:
                del layer["source"]
            for part in layer["slices"]:
                if not part["outside"]:
                    del part["outside"]
        absent = [name for name in ("mappers", "max_repeats") if not getattr(self, name)]
        return {k: v for k, v in content.items() if k not in absent}

    @property
    def slices(self) -> tuple[Slice, ...]:
        """The slices of a pool of one layer."""
        return self.layers[0].slices if len(self.layers) == 1 else ()

    @property
    def is_control(self) -> bool:
        """True for a random sample of all rows, as they are."""
        return self.layers == (Layer(),) and not self.mappers

    @property
    def samples(self) -> int:
        """Rows seen in one epoch."""
        return self.size * self.repetition


def pool_from_json(content: Mapping[str, Any]) -> Pool:
    """The inverse of `Pool.to_json`. Raises: ValueError where a number is none; KeyError, TypeError on other shapes."""
    repeats = content.get("max_repeats")
    for name in ("size", "repetition", "seed", *(() if repeats is None else ("max_repeats",))):
        if type(content[name]) is not int:
            raise ValueError(f"{name}: {content[name]!r} is no whole number")
    parts = [dict(part) for layer in content["layers"] for part in layer["slices"]]
    if any(type(part.get("outside", False)) is not bool for part in parts):
        raise ValueError("outside is true or false")
    ends = [part.get(end) for part in parts for end in ("low", "high")]
    for number in (*ends, *(layer["weight"] for layer in content["layers"])):
        if number is not None and type(number) not in (int, float):
            raise ValueError(f"{number!r} is no number")
    layers = tuple(
        Layer(
            tuple(Slice(**{**s, "params": tuple((k, v) for k, v in s["params"])}) for s in layer["slices"]),
            layer["weight"],
            layer.get("source"),
        )
        for layer in content["layers"]
    )
    mappers = tuple(
        MapperStep(m["op"], tuple((k, v) for k, v in m["params"]), m["weights"]) for m in content.get("mappers", ())
    )
    return Pool(layers, content["size"], content["repetition"], content["seed"], mappers, repeats)
