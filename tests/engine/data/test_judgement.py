"""Columns of statistics settle what a filter's own code says of the values, or say that they do not."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.data import datajuicer
from engine.data.catalogue import OPS
from engine.data.judgement import FINE, as_seen, judged
from engine.data.op_defaults import defaults
from tests.engine.data.test_recipes import STATISTICS, VALUES, build, column, stored

WRITTEN = {"bytes": str, "ratio": lambda value: "/".join(map(str, float(value).as_integer_ratio()))}


@pytest.mark.parametrize(("name", "statistic"), [(name, key) for name, key, _ in STATISTICS if not OPS[name].named_by])
def test_what_is_certain_is_what_the_op_says(name: str, statistic: str) -> None:
    op = OPS[name]
    bounds = op.statistics[statistic]
    value = VALUES[bounds.number]
    bound = st.integers(0, 9) if bounds.number in ("int", "bytes") else value.filter(lambda v: 0 <= v < 1e6)
    flags = st.fixed_dictionaries({}, optional=dict.fromkeys(
        ("min_closed_interval", "max_closed_interval", "reversed_range"), st.booleans()
    ))  # fmt: skip
    rows = st.lists(st.lists(value, min_size=1, max_size=3 if bounds.list_valued else 1), min_size=1, max_size=8)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.tuples(bound, bound).map(sorted), flags, st.sampled_from(["any", "all"]), rows)
    @example([2, 3], {"reversed_range": True}, "all", [[1, 5], [1, 1], [2, 2], [4, 5]])
    @example([2, 3], {}, "any", [[1, 5], [1, 1], [2, 9], [4, 5]])
    def check(pair: list[Any], flags: dict[str, bool], many: str, values: list[list[Any]]) -> None:
        params: dict[str, Any] = dict(flags)
        for b in op.statistics.values():
            written = WRITTEN.get(b.number, lambda v: v)
            params |= {end: written(v) for end, v in zip((b.low, b.high), pair, strict=True) if end}
        if bounds.list_valued:
            params["any_or_all"] = many
        if bounds.number in ("float", "ratio"):  # at the bounds, and beside them
            values = [*values, *([float(b) + step] for b in pair for step in (0, -1e-9, 1e-9) if b + step >= 0)]
        seen = stored if bounds.number in ("float", "ratio") else int
        most = 3 if bounds.list_valued else 1
        values = [
            [float(v) for v in row[:most]] for row in values if all(np.isfinite(v) and abs(v) < 1e12 for v in row)
        ]
        as_read = [[seen(v) for v in row] for row in values]
        stats = [dict.fromkeys(op.statistics, row if bounds.list_valued else row[0]) for row in as_read]
        told = list(build(name, params).process_batched({"__dj__stats__": stats})) if stats else []
        columns = [column(row) for row in values]
        ours = {
            key: (
                np.array([float(c.low[0]) for c in columns]).round(10),
                np.array([c.high[0] for c in columns]).round(10),
            )
            for key in op.statistics
        }
        found = judged(name, params, ours)
        assert found is not None
        keep, sure = found
        assert [bool(k) for k, s in zip(keep, sure, strict=True) if s] == [
            bool(k) for k, s in zip(told, sure, strict=True) if s
        ]

    check()


def test_what_hangs_on_more_than_the_columns_is_left_to_the_op() -> None:
    op = "image_shape_filter"
    params = {"min_width": 1, "max_width": 3, "min_height": 1, "max_height": 3}
    wide = (np.array([2.0, 1.0, np.nan]), np.array([2.0, 9.0, np.nan]))
    high = (np.array([3.0, 3.0, 3.0]),) * 2
    keep, sure = judged(op, params, {"image_width": wide, "image_height": high}) or (None, None)
    assert keep is not None and sure is not None
    assert (keep[0], sure.tolist()) == (True, [True, False, False])
    one_side = judged(op, {"min_width": 1, "max_width": 3}, {"image_width": wide, "image_height": high})
    assert one_side is not None and one_side[0][0]  # the OP's own bounds hold on the other
    assert judged(op, params, {"image_width": wide}) is None


def test_a_bound_of_more_decimals_than_are_kept_leaves_what_rounding_may_move_to_the_op() -> None:
    bound = 7037.32111667245
    values = np.array([bound, bound + 1e-9, 3.0]).round(10)
    keep, sure = judged("video_duration_filter", {"min_duration": 0, "max_duration": bound}, {
        "video_duration": (values, values)
    }) or (None, None)  # fmt: skip
    assert keep is not None and sure is not None
    assert sure.tolist() == [False, True, True] and keep.tolist()[1:] == [False, True]


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if not op.barred])
def test_defaults_are_those_of_the_op(name: str) -> None:
    datajuicer.prepare()
    from data_juicer.ops import OPERATORS

    theirs = inspect.signature(OPERATORS.modules[name].__init__).parameters
    ours = defaults(name)
    bounds = [end for b in OPS[name].statistics.values() for end in (b.low, b.high) if end]
    # two inherit theirs from another OP: nothing is certain then
    inherits = name in ("in_context_influence_filter", "instruction_following_difficulty_filter")
    found = {end: ours[end] for end in bounds if end in ours or not inherits}
    assert found == {end: theirs[end].default for end in found}
    if inherits:
        columns = {statistic: (np.zeros(1), np.zeros(1)) for statistic in OPS[name].statistics}
        assert judged(name, {bounds[0]: 0.1}, columns) is None


@settings(max_examples=3000, deadline=None)
@given(st.floats(-FINE, FINE) | st.floats(-1, 1) | st.fractions(0, 20, max_denominator=60).map(float))
def test_a_value_is_seen_as_datasets_gives_it(value: float) -> None:
    value = float(np.round(value, 10))
    assert as_seen(value) == stored(value)
