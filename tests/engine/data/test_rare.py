"""Pools beside the buckets: without a tail, one a value, without a value or bucket that is rare."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.data.cuts import Column, Cut, StatisticColumn, Values, keeps, realise, single_op_cuts
from engine.data.rare import with_rare
from engine.data.tails import LEAST
from engine.records.experiment import BUCKET
from engine.records.pool import BUCKETS

N, SIZE = 4000, 1000
RNG = np.random.default_rng(0)
OP = "words_num_filter"


def source(values: Values, high: Values | None = None, op: str = OP, name: str = "num_words") -> StatisticColumn:
    return StatisticColumn(op, name, (), Column(values, values if high is None else high))


def cut(*sources: StatisticColumn, good: np.ndarray | None = None, least: int | None = None) -> list[Cut]:
    good = np.ones(N, bool) if good is None else good
    return with_rare(single_op_cuts(sources, good, 3, SIZE, least, 7), sources, good, SIZE, least, 7)


def beside(cuts: list[Cut]) -> dict[str, str]:
    """Sound pools beside the buckets: name → slice, without its statistic."""
    return {c.bucket: str(c.slice).split(" ", 1)[1] for c in cuts if c.bucket not in BUCKETS[3] and c.reason is None}


def shares(**rows: float) -> Values:
    """Values with the shares of the rows that they have: `_3=0.1`."""
    values = np.repeat([float(name[1:]) for name in rows], [round(share * N) for share in rows.values()])
    return RNG.permutation(values)


def test_a_tail_stands_beside_low_mid_and_high_which_stay_as_they_are() -> None:
    values = np.round(RNG.normal(50, 8, N))
    values[:200] = 1  # 5 % garbage
    cuts = cut(source(values))
    assert cuts[:3] == single_op_cuts([source(values)], np.ones(N, bool), 3, SIZE, None, 7)
    (tail,) = cuts[3:]
    assert tail.label == "num_words without-lowest-5%" and tail.pool.size == SIZE and tail.pool.seed == 7
    kept = keeps(tail.slice, source(values).column)
    assert kept.sum() == tail.kept == pytest.approx(0.95 * N, abs=40) and not kept[:200].any()


def test_where_no_end_is_rare_nothing_stands_beside_the_buckets() -> None:
    assert not beside(cut(source(RNG.random(N))))


@pytest.mark.parametrize(
    ("values", "pools"),
    [
        (shares(_0=0.5, _1=0.5), {"only-0": "in [0, 0]", "only-1": "in [1, 1]"}),
        (shares(_0=0.96, _1=0.04), {"only-0": "in [0, 0]"}),  # the same rows as without-1
        (shares(_0=0.1, _1=0.5, _2=0.4), {"without-0": "in (0, inf)"}),  # mid and high are the other two
        (shares(_0=0.33, _1=0.33, _2=0.34), {}),  # low, mid and high are the values
        (shares(_0=0.003, _1=0.997), {}),  # too rare to matter
        (shares(_5=1.0), {}),
        (
            shares(_1=0.4, _2=0.06, _3=0.5, _7=0.04),
            {"without-2": "not in [2, 2]", "only-3": "in [3, 3]", "without-7": "in (-inf, 7)"},
        ),
    ],
    ids=["two halves", "a rare one", "a rare first", "three thirds", "one in 300", "one", "in the middle"],
)
def test_few_values_are_parts_by_themselves(values: Values, pools: dict[str, str]) -> None:
    found = beside(cut(source(values)))
    assert found == pools


def test_a_bucket_that_is_too_small_has_a_pool_without_it() -> None:
    spread = np.where(np.arange(N) < 0.6 * N, 0.0, 1 + RNG.random(N))
    cuts = cut(source(spread))
    assert beside(cuts) == {"without-mid": str(cuts[1].slice).replace("num_words in", "not in")}
    assert cuts[1].reason == f"keeps {cuts[1].kept} rows, fewer than the common size {SIZE}; see num_words without-mid"
    assert cuts[3].kept == N - cuts[1].kept
    column, keys = source(spread).column, RNG.integers(0, 2**64, N, np.uint64)
    rows = realise(cuts[3].pool, {"num_words": column}, keys, np.ones(N, bool))
    assert len(rows) == SIZE and not keeps(cuts[1].slice, column)[rows].any()


def test_rows_of_several_values_and_ops_of_one_bound_leave_out_an_end_only() -> None:
    low, high = shares(_1=0.4, _2=0.06, _3=0.5, _7=0.04), np.full(N, 7.0)
    high[low < 7] = low[low < 7]
    several = cut(source(low, high.copy()))
    assert beside(several).keys() >= {"only-3", "without-7"} and "without-2" not in beside(several)
    assert "several values" in next(str(c.reason) for c in several if c.bucket == "without-2")
    one_sided = cut(source(low, op="text_action_filter", name="num_action"))
    assert "bounds one side only" in next(str(c.reason) for c in one_sided if c.bucket == "without-2")


def test_the_same_rows_are_one_pool_and_min_distinct_holds() -> None:
    values = shares(_0=0.1, _1=0.5, _2=0.4)
    first, second = source(values), source(2 - values, name="other")
    cuts = cut(first, second)
    twins = [c for c in cuts if c.slice.statistic == "other" and c.bucket not in BUCKETS[3]]
    assert twins and all("keeps the same rows as num_words" in str(c.reason) for c in twins)
    left_out = next(str(c.reason) for c in cuts if c.label == "other high")
    assert left_out.endswith("; see num_words high, num_words mid, num_words without-0")
    assert not beside(cut(first, least=4))


FEW = st.sampled_from([0.0, -1.5, 2.0, 3.0, 1e-7, np.nan])
COLUMNS = hnp.arrays(np.float64, 300, elements=FEW) | hnp.arrays(np.float64, 300, elements=st.floats())


@given(COLUMNS, st.integers(10, 90))
def test_pools_of_any_column_have_their_size_a_name_of_their_own_and_differ(values: Values, size: int) -> None:
    values = np.where(np.isinf(values), np.nan, values)  # as statistics are read
    good = np.arange(300) % 7 > 0
    cuts = single_op_cuts([source(values)], good, 3, size, None, 0)
    every = with_rare(cuts, [source(values)], good, size, None, 0)
    assert len({c.bucket for c in every}) == len(every) and [c for c in every if c.bucket in BUCKETS[3]]
    sound = [c for c in every if c.reason is None]
    masks = [keeps(c.slice, source(values).column) & good for c in sound]
    for i, (c, mask) in enumerate(zip(sound, masks, strict=True)):
        assert mask.sum() == c.kept >= size
        if c.bucket not in BUCKETS[3]:
            assert re.fullmatch(BUCKET, c.bucket)
            assert all((mask ^ other).sum() >= LEAST * good.sum() for other in [good, *masks[:i]])
