"""A slice of a field's values as filters of a recipe."""

from __future__ import annotations

import json
import keyword
from collections.abc import Mapping, Sequence
from typing import Any

from engine.base.errors import OpError
from engine.records.pool import BY_VALUE, Slice

Entry = tuple[str, Mapping[str, Any]]
CONDITION = "general_field_filter"
ROUNDED = 7e-11  # more than ten decimals leave out of a number
WHOLE = 1e6  # from which on a column holds numbers as they are
EXACT = 2**53  # beyond which whole numbers are no longer each a number of their own
INFINITE = "1e999"  # a number that no other reaches, as a condition may write it
ROWS = "write the pool's rows instead: djsb export pool"


def keeps_value(s: Slice, value: float) -> bool:
    """Whether a slice keeps rows of that value."""
    low = s.low is None or value > s.low or (s.low_closed and value == s.low)
    inside = low and (s.high is None or value < s.high or (s.high_closed and value == s.high))
    return inside != s.outside


def value_entry(s: Slice) -> Entry:
    """The filter that keeps a field's values. Raises: OpError where there is none."""
    params = dict(s.params)
    name, words = str(params["field_key"]), json.loads(params["target_value"])
    if s.statistic != name:
        raise OpError(f"{s.statistic}: no filter of Data-Juicer keeps lists by one of their tags; {ROWS}")
    kept = [word for i, word in enumerate(words) if keeps_value(s, i)]
    others = keeps_value(s, len(words))
    if not (kept or others):
        raise OpError(f"{s} keeps none of the values of {name}")
    left = [word for word in words if word not in kept]
    target = [*left, None] if others else kept  # reversed, the filter would keep rows without a value
    return BY_VALUE, {"field_key": name, "target_value": target, "reversed_range": others}


def condition_entry(s: Slice) -> Entry:
    """A slice with 0 in it, or of what lies outside, as a condition: the filter of numbers takes 0 for no number.

    Raises: OpError for a field that no condition can name.
    """
    name = str(dict(s.params)["field_key"])
    ends = [abs(end) for end in (s.low, s.high) if end is not None]
    if not name.isidentifier() or keyword.iskeyword(name) or any(end > EXACT for end in ends):
        raise OpError(
            f"{s}: Data-Juicer's filter of numbers drops rows whose value is 0, and its filter of conditions cannot "
            f"say this; rename the field to letters and _, or {ROWS}"
        )
    least, most = f"{name} > -{INFINITE}", f"{name} < {INFINITE}"
    above = _side(name, ">", s.low, s.low_closed != s.outside, s.outside) if s.low is not None else least
    below = _side(name, "<", s.high, s.high_closed != s.outside, s.outside) if s.high is not None else most
    if not s.outside:
        return CONDITION, {"filter_condition": f"{above} and {below}"}
    parts = " or ".join(part for part, end in ((above, s.low), (below, s.high)) if end is not None)
    return CONDITION, {"filter_condition": f"{least} and {most} and ({parts})"}


def _side(name: str, sign: str, end: float, closed: bool, outside: bool) -> str:
    """`name >= end`, or what lies beyond that end where the slice keeps what is outside."""
    sign = {">": "<", "<": ">"}[sign] if outside else sign
    slack = ROUNDED if abs(end) < WHOLE else 0.0
    end = float(end) + (slack if closed == (sign == "<") else -slack)
    return f"{name} {sign}{'=' * closed} {end!r}"


def merged(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """All conditions as one: Data-Juicer computes the first one only."""
    conditions = [str(params["filter_condition"]) for name, params in entries if name == CONDITION]
    if len(conditions) < 2:
        return tuple(entries)
    rest = [entry for entry in entries if entry[0] != CONDITION]
    return (*rest, (CONDITION, {"filter_condition": " and ".join(f"({each})" for each in dict.fromkeys(conditions))}))


def statistic_key(name: str, params: Mapping[str, Any]) -> str:
    """What tells the statistics of filters apart: the OP, and the field of one that names it."""
    return f"{name} {params['field_key']}" if "field_key" in params else name
