"""A slice as the filters of a recipe that keep exactly its rows."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from engine.base.errors import OpError
from engine.data.catalogue import as_written, check_params, get_op, statistics_of
from engine.data.field_entries import condition_entry, keeps_value, value_entry
from engine.data.op_defaults import defaults
from engine.data.ops.contract import NATURAL_MAX, Bounds, Number
from engine.records.pool import BY_NUMBER, BY_VALUE, MODEL_SCORE, SCORES, Slice

Entry = tuple[str, Mapping[str, Any]]
FLAGS = ("min_closed_interval", "max_closed_interval", "reversed_range")

# datasets 5 keeps Data-Juicer's statistics as JSON of ten decimals: a tie could fall on either side
SLACK = 7e-11

# beyond every value
MOST: Mapping[Number, int | float] = {"float": math.inf, "int": sys.maxsize, "bytes": sys.maxsize, "ratio": 10**15}


def slice_entries(s: Slice) -> list[Entry]:
    """A slice as entries of `process`: one, or two for an OP that bounds one side only."""
    if s.op == MODEL_SCORE:
        raise OpError(
            f"{s.statistic} is the score of the checkpoint of trial {dict(s.params)['checkpoint']}, which no OP of "
            "Data-Juicer computes; write the pool's rows instead: djsb export pool"
        )
    s = replace(s, params=tuple((key, value) for key, value in s.params if key != SCORES))
    if s.op == BY_VALUE:
        return [value_entry(s)]
    if s.op == BY_NUMBER and (s.outside or keeps_value(s, 0)):
        return [condition_entry(s)]
    op = get_op(s.op)
    given = {key: value for key, value in s.params if key not in op.fixed}
    common = as_written(s.op, check_params(s.op, given))
    statistics = statistics_of(s.op, common)
    if s.statistic not in statistics:
        raise OpError(f"{s.op} has no statistic {s.statistic!r}; it has {', '.join(statistics) or 'none'}")
    bounds = statistics[s.statistic]
    if s.outside:
        return _outside(s, statistics)
    if bounds.keeps != "range":
        return [(s.op, {**common, **_one_sided(s, bounds, common)})]
    common |= {"any_or_all": "all"} if bounds.list_valued else {}
    low, low_closed, high, high_closed = _interval(s, bounds.number)
    least, most = _written(low, bounds.number), _written(high, bounds.number)
    if bounds.low and bounds.high:
        others: dict[str, Any] = {}
        for other in (b for key, b in statistics.items() if key != s.statistic):
            # -1, below every value: this slice's flags open the other statistic's bounds too
            others |= {str(other.low): -1, str(other.high): NATURAL_MAX[other.number]}
        both = {bounds.low: least, bounds.high: most}
        return [(s.op, {**common, **both, **others, **_flags(low_closed, high_closed)})]
    # the entry that is not reversed always comes: it is the one that drops NaN
    if bounds.low:
        at_least = {bounds.low: least, **_flags(low_closed, True)}
        at_most = {bounds.low: most, **_flags(high_closed, True, reverse=True)}
        return [(s.op, {**common, **at_least}), (s.op, {**common, **at_most})]
    at_most = {str(bounds.high): most, **_flags(True, high_closed)}
    at_least = {str(bounds.high): least, **_flags(True, low_closed, reverse=True)}
    return [(s.op, {**common, **at_most}), (s.op, {**common, **at_least})]


def without_endless(entries: Sequence[Entry]) -> list[Entry]:
    """Entries without the bounds that bound nothing and are Data-Juicer's own.

    Where an OP has several entries, each keeps its own: Data-Juicer would take one from the entry above.
    """
    many = Counter(name for name, _ in entries)
    return [
        (name, {k: v for k, v in params.items() if not (v == sys.maxsize and defaults(name).get(k) == sys.maxsize)})
        if many[name] == 1 else (name, params)
        for name, params in entries
    ]  # fmt: skip


def _outside(s: Slice, statistics: Mapping[str, Bounds]) -> list[Entry]:
    """Two entries: all that the OP can read, then what does not lie inside. A reversed entry alone keeps NaN."""
    bounds = statistics[s.statistic]
    if not (bounds.low and bounds.high):
        raise OpError(
            f"{s.op} bounds {s.statistic} on one side only, so no recipe keeps what lies outside two bounds; "
            "write the pool's rows instead: djsb export pool"
        )
    [every] = slice_entries(replace(s, low=None, high=None, low_closed=True, high_closed=False, outside=False))
    [(_, inside)] = slice_entries(replace(s, outside=False))
    _, low_closed, _, high_closed = _interval(s, bounds.number)
    # the flags count for the OP's other statistic too: all its values lie outside -1 … -1
    others = {str(end): -1 for key, b in statistics.items() if key != s.statistic for end in (b.low, b.high)}
    return [every, (s.op, {**inside, **others, **_flags(not low_closed, not high_closed, reverse=True)})]


def _one_sided(s: Slice, bounds: Bounds, params: Mapping[str, Any]) -> dict[str, Any]:
    """What an OP that keeps no interval gets: its only bound, or the condition that it has.

    Raises: OpError where it cannot say the slice.
    """
    if bounds.keeps == "true":
        zero, one = (keeps_value(s, value) for value in (0, 1))
        if zero != one:
            condition = str(params["filter_condition"])
            return {"filter_condition": condition if one else f"not ({condition})"}
    elif bounds.keeps == "at_least" and s.low is not None and s.high is None:
        return {str(bounds.low): _slack(s.low, False) if s.low_closed else s.low + SLACK, "any_or_all": "all"}
    elif bounds.keeps == "below" and s.high is not None and (s.low is None or s.low <= 0):
        # this filter drops a row if any of its images is no less than the bound
        return {str(bounds.high): s.high + SLACK if s.high_closed else _slack(s.high, False), "any_or_all": "any"}
    raise OpError(f"{s.op} of Data-Juicer cannot keep the rows of {s}; write the pool's rows instead: djsb export pool")


def _flags(low_closed: bool, high_closed: bool, reverse: bool = False) -> dict[str, bool]:
    """All three, always: what an entry leaves out, Data-Juicer takes from the entry of the same OP above.

    Reversed, a flag is flipped and the result negated, so that True keeps the bound itself all the same.
    """
    return dict(zip(FLAGS, (low_closed, high_closed, reverse), strict=True))


_Number = int | float | Fraction


def _interval(s: Slice, number: Number) -> tuple[_Number, bool, _Number, bool]:
    """The slice's (low, closed, high, closed) in the OP's own kind of number, exactly."""
    # an infinite value is dropped as an unreadable one is, so infinity is an open end
    finite = number != "float"
    least: _Number = 0 if finite else -math.inf
    most: _Number = MOST[number]
    low, low_closed = (least, finite) if s.low is None or s.low < least else (s.low, s.low_closed)
    high, high_closed = (most, finite) if s.high is None or s.high > most else (s.high, s.high_closed)
    if not finite:
        low_closed, high_closed = low_closed and low != least, high_closed and high != most
    if number in ("int", "bytes") and least <= low <= high <= most:
        if low != math.floor(low):
            low, low_closed = math.ceil(low), True
        if high != math.floor(high):
            high, high_closed = math.floor(high), True
    elif number in ("float", "ratio"):
        low, high = _slack(low, not low_closed), _slack(high, high_closed)
    if low > high or low > most or high < least:
        return 0, True, 0, False  # no value at all
    return low, low_closed, high, high_closed


def _slack(bound: _Number, up: bool) -> _Number:
    """A bound moved a little, so that its own value stays on its side; one that ten decimals hold stays."""
    if abs(bound) == math.inf or Fraction(bound).denominator <= 2**10:
        return bound
    slack = SLACK + 1e-15 * abs(float(bound))
    return float(bound) + (slack if up else -slack)


def _written(value: _Number, number: Number) -> Any:
    if number == "float":
        return float(value)
    if number == "ratio":
        exact = Fraction(value)
        return f"{exact.numerator}/{exact.denominator}"
    if number == "bytes":
        return NATURAL_MAX["bytes"] if value == sys.maxsize else str(int(value))
    return int(value)
