"""Which rows a filter of a recipe keeps, by columns of their statistics, where these alone settle it.

A column has each row's smallest and largest value, of ten decimals. What hangs on more is left to the OP itself: values
between the two, and statistics that are missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.catalogue import get_op, statistics_of
from engine.data.op_defaults import defaults
from engine.data.ops.contract import Bounds
from engine.data.recipe_entries import FLAGS
from engine.data.recipes import _number as bound_value

Mask = NDArray[np.bool_]
Column = tuple[NDArray[np.float64], NDArray[np.float64]]  # each row's smallest and largest value
FINE = 1e4  # from which on a number has hardly ten decimals
TINY = 1e-9
HALF = 6e-11  # that rounding to ten decimals may move a number
NEAR = 1e-12  # of a bound: what lies within may fall on either side


def judged(op: str, params: Mapping[str, Any], columns: Mapping[str, Column]) -> tuple[Mask, Mask] | None:
    """(rows that the entry keeps, rows for which that is certain); None where it is for none.

    params: of the entry. columns: statistic → its values.
    """
    statistics = statistics_of(op, params)
    ends = {name: _ends(bounds, {**defaults(op), **params}) for name, bounds in statistics.items()}
    if not ends or any(bounds.keeps != "range" for bounds in statistics.values()) or not columns.keys() >= ends.keys():
        return None
    low_closed, high_closed, reverse = (params.get(flag, flag != FLAGS[2]) for flag in FLAGS)
    closed = (low_closed != reverse, high_closed != reverse)  # reversed, Data-Juicer flips both
    every = params.get("any_or_all", "any") == "all"
    rows = len(next(iter(columns.values()))[0])
    keep, sure = np.ones(rows, bool), np.ones(rows, bool)
    for name, end in ends.items():
        if end is None:
            return None
        (low, doubtful), (high, too) = (_as_seen(values, end) for values in columns[name])
        first, last = _inside(low, end, closed), _inside(high, end, closed)
        around = (low != high) & ~first & ~last & (low <= end[0]) & (high >= end[1])  # others may lie in the range
        if reverse:
            keep &= ~first & ~last & ~around if every else ~first | ~last
        else:
            keep &= first & last if every else first | last
        if every == reverse:
            sure &= ~around
        if len(ends) > 1 and (reverse or not every):
            sure &= low == high  # an image counts by all of its statistics together
        sure &= ~(np.isnan(low) | doubtful | too)
        if get_op(op).named_by:  # Data-Juicer takes a field's 0 for no number
            sure &= np.abs(low) >= TINY
        for bound in end:
            if get_op(op).named_by or round(bound, 10) != bound:  # a text, or a bound, of more decimals than are kept
                for values in (low, high):
                    sure &= (np.abs(values - bound) > HALF) | (np.abs(values) >= FINE)
        if statistics[name].number in ("float", "ratio") and min(map(abs, end)) < TINY:
            sure &= (abs(low) >= TINY) & (abs(high) >= TINY)  # what ten decimals take for 0 may be less or more
    return keep, sure


def _ends(bounds: Bounds, params: Mapping[str, Any]) -> tuple[float, float] | None:
    """Both bounds, infinite where there is none; None where one is not known."""
    ends = []
    for name, infinite in ((bounds.low, -np.inf), (bounds.high, np.inf)):
        if name and name not in params:  # the OP inherits its default
            return None
        value = bound_value(params[name], bounds.number) if name and params[name] is not None else infinite
        if value is None:
            return None
        ends.append(float(value))
    return ends[0], ends[1]


def _inside(values: NDArray[np.float64], ends: tuple[float, float], closed: tuple[bool, bool]) -> Mask:
    above: Mask = values >= ends[0] if closed[0] else values > ends[0]
    below: Mask = values <= ends[1] if closed[1] else values < ends[1]
    return above & below


def _as_seen(values: NDArray[np.float64], ends: tuple[float, float]) -> tuple[NDArray[np.float64], Mask]:
    """(the values as filters see them in a run, where that may move one over a bound; for which it cannot be told)."""
    near = np.zeros(len(values), bool)
    for end in ends:
        if np.isfinite(end):
            near |= np.abs(values - end) <= NEAR + 3e-15 * abs(end)
    if not near.any():
        return values, near
    distinct, places = np.unique(values[near], return_inverse=True)
    seen = values.copy()
    seen[near] = np.array([as_seen(value) for value in distinct.tolist()])[places]
    return seen, near & (np.abs(values) >= FINE)


def as_seen(value: float) -> float:
    """A statistic of ten decimals after datasets has written and read it: the last bit may differ."""
    whole, _, part = f"{abs(value):.10f}".rstrip("0").partition(".")
    return math.copysign(float(whole) + float(part or "0") * float(f"1e-{len(part)}"), value)
