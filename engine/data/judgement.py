"""Which rows a filter of a recipe keeps, by columns of their statistics, where these alone settle it.

A column has each row's smallest and largest value, of ten decimals. What hangs on more is left to the OP itself: values
between the two, statistics that are missing, bounds that an entry leaves to the OP, and values at the edge of a bound
that ten decimals do not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.ops.contract import Bounds, Op
from engine.data.recipe_entries import FLAGS
from engine.data.recipes import _number as bound_value

Mask = NDArray[np.bool_]
Column = tuple[NDArray[np.float64], NDArray[np.float64]]  # each row's smallest and largest value
NEAR = 1e-12  # of a bound: what lies within may fall on either side, as the OP reads its values


def judged(op: Op, params: Mapping[str, Any], columns: Mapping[str, Column]) -> tuple[Mask, Mask] | None:
    """(rows that the entry keeps, rows for which that is certain); None where it is for none.

    params: of the entry. columns: statistic → its values.
    """
    ends = {name: _ends(bounds, params) for name, bounds in op.statistics.items()}
    if not ends or not columns.keys() >= ends.keys() or any(b.keeps != "range" for b in op.statistics.values()):
        return None
    low_closed, high_closed, reverse = (params.get(flag, flag != FLAGS[2]) for flag in FLAGS)
    closed = (low_closed != reverse, high_closed != reverse)  # reversed, Data-Juicer flips both
    every = params.get("any_or_all", "any") == "all"
    rows = len(next(iter(columns.values()))[0])
    keep, sure = np.ones(rows, bool), np.ones(rows, bool)
    for name, end in ends.items():
        if end is None:
            return None
        low, high = columns[name]
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
        sure &= ~np.isnan(low)
        if op.statistics[name].number in ("float", "ratio"):
            sure &= ~(_at_edge(low, end) | _at_edge(high, end))
    return keep, sure


def _ends(bounds: Bounds, params: Mapping[str, Any]) -> tuple[float, float] | None:
    """Both bounds, infinite where the OP has none; None where the entry leaves one to the OP."""
    ends = []
    for name, infinite in ((bounds.low, -np.inf), (bounds.high, np.inf)):
        value = bound_value(params.get(name), bounds.number) if name else infinite
        if value is None:
            return None
        ends.append(float(value))
    return ends[0], ends[1]


def _inside(values: NDArray[np.float64], ends: tuple[float, float], closed: tuple[bool, bool]) -> Mask:
    above: Mask = values >= ends[0] if closed[0] else values > ends[0]
    below: Mask = values <= ends[1] if closed[1] else values < ends[1]
    return above & below


def _at_edge(values: NDArray[np.float64], ends: tuple[float, float]) -> Mask:
    """Values so near to a bound that the OP may find them on its other side; a bound of few bits that is not 0
    stands for itself."""
    edge = np.zeros(len(values), bool)
    for end in ends:
        if np.isfinite(end):
            near = np.abs(values - end) <= NEAR + 3e-15 * abs(end)
            edge |= near & (values != end) if end and Fraction(end).denominator <= 2**10 else near
    return edge
