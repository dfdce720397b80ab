"""Pools: buckets that never split a tie, samples that depend on ids and seeds only, ids that never change."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.base.errors import PoolError
from engine.data.cuts import (
    Column,
    StatisticColumn,
    Values,
    common_size,
    cut_points,
    eligible,
    keeps,
    overlap,
    realise,
    runs_of,
    single_op_cuts,
)
from engine.records.pool import BUCKETS, Layer, Pool, Slice, pool_from_json

ANY = st.floats(allow_infinity=True, allow_nan=True) | st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0])
FEW = st.sampled_from([0.0, 1.0, 2.0, 5.0, float("nan")])
COLUMNS = hnp.arrays(np.float64, st.integers(1, 200), elements=ANY) | hnp.arrays(
    np.float64, st.integers(1, 200), elements=FEW
)
N = 1000
GOOD = np.ones(N, bool)


def one(values: Values) -> Column:
    return Column(values, values)


def part(low: float | None = None, high: float | None = None, **more: Any) -> Slice:
    return Slice("s_filter", "s", low, high, **more)


def keys(n: int = N, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, n, np.uint64)


def buckets_of(values: Values, n: int) -> list[Slice]:
    edges = [None, *cut_points(values, n), None]
    return [part(low, high) for low, high in pairwise(edges)]


# --- slices and buckets ---


@given(COLUMNS, st.integers(2, 5))
def test_buckets_partition_the_rows_that_have_a_value(values: Values, n: int) -> None:
    kept = np.array([keeps(s, one(values)) for s in buckets_of(values, n)])
    assert kept.sum(axis=0).tolist() == (~np.isnan(values)).astype(int).tolist()
    assert len(kept) == 1 or kept.any(axis=1).all()  # no bucket is empty


@given(COLUMNS, st.integers(2, 5))
def test_equal_values_are_in_one_bucket(values: Values, n: int) -> None:
    kept = np.array([keeps(s, one(values)) for s in buckets_of(values, n)])
    for value in np.unique(values[~np.isnan(values)]):
        assert kept[:, values == value].any(axis=1).sum() == 1


@given(COLUMNS, st.integers(2, 5), st.randoms(use_true_random=False))
def test_cut_points_depend_on_no_order(values: Values, n: int, random: Any) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)
    assert cut_points(shuffled, n) == cut_points(values, n)


@given(COLUMNS, st.integers(2, 5))
def test_cut_points_ascend_and_are_values_of_the_column(values: Values, n: int) -> None:
    points = cut_points(values, n)
    distinct = len(np.unique(values[~np.isnan(values)]))
    assert len(points) <= min(n - 1, max(0, distinct - 1))
    assert points == sorted(set(points))
    assert all(p in values for p in points)


@pytest.mark.parametrize(
    ("values", "points"),
    [
        ([], []),
        ([1.0], []),
        ([1.0] * 9, []),
        ([float("nan")] * 4, []),
        ([1.0, 2.0], [2.0]),
        ([1.0] * 50 + [2.0] * 50, [2.0]),
        ([1.0] * 98 + [2.0, 3.0], [2.0]),
        ([1.0, 2.0, 3.0], [2.0, 3.0]),
        (list(range(9)), [3.0, 6.0]),
        ([1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0], [2.0, 3.0]),
    ],
)
def test_few_distinct_values_give_few_cuts(values: list[float], points: list[float]) -> None:
    assert cut_points(np.array(values, float), 3) == points


@given(COLUMNS)
def test_a_row_of_many_values_is_kept_when_all_lie_inside(values: Values) -> None:
    assume(not np.isnan(values).all())
    column = Column(values, values + 1)
    middle = float(np.nanmedian(np.nan_to_num(values, posinf=1e9, neginf=-1e9)))
    s = part(middle - 1, middle + 1.5)
    wanted = [bool(a >= middle - 1 and a + 1 < middle + 1.5) for a in values]
    assert keeps(s, column).tolist() == wanted


@pytest.mark.parametrize(
    ("s", "kept"),
    [
        (part(), [True, True, True, False]),
        (part(1, 2), [True, False, False, False]),
        (part(1, 2, high_closed=True), [True, True, False, False]),
        (part(1, 2, low_closed=False, high_closed=True), [False, True, False, False]),
        (part(2), [False, True, True, False]),
        (part(high=2), [True, False, False, False]),
        (part(2, 2), [False, False, False, False]),
        (part(2, 2, high_closed=True), [False, True, False, False]),
    ],
    ids=str,
)
def test_bounds_are_closed_below_and_open_above_unless_said(s: Slice, kept: list[bool]) -> None:
    assert keeps(s, one(np.array([1.0, 2.0, np.inf, np.nan]))).tolist() == kept


def test_what_lies_outside_has_a_value() -> None:
    values = np.array([1.0, 2.0, np.inf, np.nan])
    assert keeps(part(2, 2, high_closed=True, outside=True), one(values)).tolist() == [True, False, True, False]
    with pytest.raises(PoolError, match="several values"):
        keeps(part(2, 2, outside=True), Column(values, values.copy()))


@pytest.mark.parametrize(("low", "high"), [(2, 1), (float("nan"), 1), (0, float("nan")), (float("inf"), 0)])
def test_bounds_that_are_no_interval_are_refused(low: float, high: float) -> None:
    with pytest.raises(PoolError, match="swap them"):
        part(low, high)


def test_single_op_cuts_are_three_a_statistic_with_a_reason_where_one_is_no_pool() -> None:
    rng = np.random.default_rng(0)
    spread, bad = rng.normal(size=N), rng.random(N) < 0.1
    # ties that cannot be split leave the middle bucket below the common size
    skewed = np.where(np.arange(N) < 500, 0.0, np.where(np.arange(N) < 520, 1.0, 2.0))
    columns = [StatisticColumn("s_filter", n, (), one(v)) for n, v in (("spread", spread), ("skewed", skewed))]
    cuts = single_op_cuts(columns, ~bad, 3, 225, None, 7)
    assert [c.label for c in cuts] == [f"{s} {b}" for s in ("spread", "skewed") for b in BUCKETS[3]]
    assert [c.reason is None for c in cuts] == [True] * 4 + [False, True]
    assert "fewer than the common size 225" in str(cuts[4].reason)
    assert sum(c.kept for c in cuts[:3]) == sum(c.kept for c in cuts[3:]) == int((~bad).sum())
    assert {(c.pool.size, c.pool.seed, c.pool.slices) for c in cuts} == {(225, 7, (c.slice,)) for c in cuts}
    few = single_op_cuts(columns, ~bad, 3, 225, 4, 7)
    assert [c.reason is None for c in few] == [True] * 3 + [False] * 3


# --- sizes ---


def test_the_common_size_leaves_room_for_ties() -> None:
    assert common_size(240, 3, None, 2) == 60
    assert common_size(240, 3, 80, 2) == 80


@pytest.mark.parametrize(
    ("good", "wanted", "floor", "need"), [(63, None, 16, 64), (240, 81, 2, 243), (3, None, 2, 8), (240, 10, 16, 48)]
)
def test_too_few_rows_say_how_many_it_takes(good: int, wanted: int | None, floor: int, need: int) -> None:
    with pytest.raises(PoolError, match=rf"it takes {need}\)"):
        common_size(good, 3, wanted, floor)
    if wanted is None:
        assert common_size(need, 3, None, floor) >= floor


# --- rows ---


def sample(pool: Pool, values: Values | None = None, order: np.ndarray | None = None, seed: int = 0) -> list[int]:
    """The pool's rows of N rows by their first numbers; order: how the file has them."""
    order = np.arange(N) if order is None else order
    values = np.arange(float(N)) if values is None else values
    rows = realise(pool, {"s": one(values[order])}, keys()[order], GOOD, seed)
    return [int(i) for i in order[rows]]


@given(st.integers(1, N), st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_sample_has_its_size_and_distinct_rows_of_its_slices(size: int, pool_seed: int, seed: int) -> None:
    pool = Pool((Layer((part(0, size + 0.5),)),), size // 2, seed=pool_seed)
    rows = sample(pool, seed=seed)
    assert len(rows) == len(set(rows)) == size // 2
    assert all(row < size + 0.5 for row in rows)


@settings(max_examples=30)
@given(st.integers(1, N), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_a_sample_depends_on_the_ids_and_not_on_the_files_order(size: int, seed: int, random: Any) -> None:
    order = list(range(N))
    random.shuffle(order)
    pool = Pool((Layer((part(300), part(high=800)), 0.5), Layer()), size)
    if size // 2 > 500:
        assert len(sample(pool, seed=seed)) == size
    assert sample(pool, order=np.array(order), seed=seed) == sample(pool, seed=seed)


def test_seeds_of_pool_and_trial_both_change_the_sample() -> None:
    pool = Pool((Layer(),), 100)
    first = sample(pool)
    assert first == sample(pool)
    others = [sample(pool, seed=1), sample(replace(pool, seed=1)), sample(replace(pool, seed=1), seed=1)]
    for i, other in enumerate(others):
        assert 0 < len(set(first) & set(other)) < 40  # as many as chance has it
        assert all(other != o for o in others[:i])


def test_a_sample_is_fair() -> None:
    times = np.zeros(N)
    for seed in range(200):
        times[sample(Pool((Layer(),), 100), seed=seed)] += 1
    assert abs(times.mean() - 20) < 1e-9
    assert times.std() == pytest.approx(np.sqrt(200 * 0.1 * 0.9), rel=0.1)


def test_a_larger_pool_holds_the_smaller_one() -> None:
    assert set(sample(Pool((Layer(),), 50))) < set(sample(Pool((Layer(),), 200)))


def test_quarantined_rows_are_in_no_pool() -> None:
    good = np.arange(N) % 3 > 0
    rows = realise(Pool((Layer(),), int(good.sum())), {}, keys(), good)
    assert sorted(rows.tolist()) == np.flatnonzero(good).tolist()
    assert not eligible(Layer((part(0),)), {"s": one(np.arange(float(N)))}, good)[0]


def test_layers_follow_each_other_without_repeats() -> None:
    top, lower = Layer((part(900),)), Layer((part(800),))
    rows = sample(Pool((top, lower, Layer()), 300))
    assert len(rows) == len(set(rows)) == 300
    assert set(rows[:100]) == set(range(900, 1000))  # all of the first, in its own order
    assert set(rows[100:200]) == set(range(800, 900))  # then what the second adds
    assert all(row < 800 for row in rows[200:])


def test_weights_share_a_pool_out() -> None:
    rows = sample(Pool((Layer((part(500),), 0.75), Layer((part(high=500),), 0.25)), 200))
    assert sum(row >= 500 for row in rows) == 150
    assert len(rows) == 200


def test_a_pool_larger_than_what_its_slices_keep_is_refused_with_both_numbers() -> None:
    pool = Pool((Layer((part(900),)),), 101)
    with pytest.raises(PoolError, match=rf"pool {pool.id} wants 101 rows and its slices keep 100; ask for fewer"):
        sample(pool)
    with pytest.raises(PoolError, match="wants 2 rows and its slices keep 0"):
        sample(Pool((Layer((part(0),)),), 2), values=np.full(N, np.nan))


# --- identity ---

FIXED = Pool(
    (
        Layer((Slice("text_length_filter", "text_len", 10.0, 20.5, params=(("lang", "en"),)),), 0.5),
        Layer((Slice("words_num_filter", "num_words", None, 3.0, True, True),)),
        Layer(),
    ),
    60, 2, 7,
)  # fmt: skip


def test_a_pools_id_never_changes() -> None:
    assert FIXED.id == "97cf92f62b0e"
    assert Pool((Layer(),), 60).id == "62532abc7712"


def test_the_rows_of_a_pool_never_change() -> None:
    assert sample(Pool((Layer(),), 8, seed=3), seed=1) == [905, 708, 163, 454, 438, 256, 368, 54]


def test_a_pool_survives_json() -> None:
    back = pool_from_json(json.loads(json.dumps(asdict(FIXED))))
    assert back == FIXED
    assert back.id == FIXED.id
    outside = Pool((Layer((part(1, 2, outside=True),)),), 60)
    assert pool_from_json(json.loads(json.dumps(outside.to_json()))) == outside
    assert outside.id != Pool((Layer((part(1, 2),)),), 60).id
    with pytest.raises(ValueError, match="outside"):
        pool_from_json(
            {**outside.to_json(), "layers": [{"slices": [{**asdict(part()), "outside": 1}], "weight": None}]}
        )


@pytest.mark.parametrize(
    "change",
    [{"size": 61}, {"repetition": 3}, {"seed": 8}, {"layers": FIXED.layers[:2]}, {"layers": FIXED.layers[::-1]}],
)
def test_every_part_of_a_pool_is_part_of_its_id(change: dict[str, Any]) -> None:
    assert replace(FIXED, **change).id != FIXED.id


def test_what_a_pool_says_of_itself() -> None:
    assert FIXED.samples == 120
    assert FIXED.slices == ()
    assert not FIXED.is_control
    control = Pool((Layer(),), 60)
    assert control.is_control
    single = Pool((Layer((part(1, 2),)),), 60)
    assert single.slices == (part(1, 2),)
    assert not single.is_control
    assert str(part(1, 2)) == "s in [1, 2)"
    assert str(part()) == "s in (-inf, inf)"


def test_overlap_is_intersection_over_union() -> None:
    a, b, none = np.arange(10) < 6, np.arange(10) >= 4, np.zeros(10, bool)
    table = overlap([a, b, none])
    assert table.tolist() == [[1, pytest.approx(0.2), 0], [pytest.approx(0.2), 1, 0], [0, 0, 0]]
    assert overlap([]).shape == (0, 0)


@pytest.mark.parametrize("change", [{"size": "240 rows"}, {"size": None}, {"repetition": True}, {"seed": 0.5}])
def test_a_pool_from_elsewhere_has_numbers_where_numbers_belong(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no whole number"):
        pool_from_json({**FIXED.to_json(), **change})


@pytest.mark.parametrize("values", [[], [np.nan], [2.0], [3, 1, np.nan, 3, 3, 2, 1], np.arange(50) % 7 / 3])
def test_runs_are_those_of_numpy(values: Any) -> None:
    numbers = np.asarray(values, float)
    kept = np.sort(numbers[~np.isnan(numbers)])
    distinct, first = np.unique(kept, return_index=True)
    count, found, begins = runs_of(numbers)
    assert (count, found.tolist(), begins.tolist()) == (len(kept), distinct.tolist(), first.tolist())
