"""Mixtures: pools whose layers have weights, their draw, repeats up to the cap, and ids that never change."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import PoolError
from engine.data.cuts import Column, realise, shares_of
from engine.records.pool import Layer, Pool, Slice, pool_from_json

N = 1000
GOOD = np.ones(N, bool)
KEYS = np.random.default_rng(0).integers(0, 2**64, N, np.uint64)
SPANS = {"a": range(600), "b": range(600, 980), "c": range(980, 1000)}


def mixture(size: int = 200, repeats: int = 1, **weights: float) -> Pool:
    return Pool(tuple(Layer((), w, name) for name, w in weights.items()), size, max_repeats=repeats)


def test_pools_of_no_mixture_keep_their_ids() -> None:
    assert Pool((Layer((), 0.5), Layer()), 10, 2, 3).id == "564e0f964ca0"
    assert Pool((Layer((Slice("o", "s", 1.0, 2.0),)),), 7).id == "b9c20b3c72ce"


def test_a_mixture_comes_back_from_its_json() -> None:
    pool = mixture(a=0.25, b=0.75)
    assert pool_from_json(json.loads(json.dumps(pool.to_json()))) == pool
    assert mixture(a=0.25, b=0.75, repeats=2).id != pool.id != mixture(a=0.3, b=0.7).id
    with pytest.raises(ValueError, match="max_repeats"):
        pool_from_json({**pool.to_json(), "max_repeats": "2"})


@given(
    weights=st.lists(st.integers(1, 100), min_size=3, max_size=3), size=st.integers(3, 60), seed=st.integers(0, 5)
)  # fmt: skip
def test_shares_are_rounded_to_the_size_and_drawn_by_the_seed(weights: list[int], size: int, seed: int) -> None:
    exact = [w / sum(weights) for w in weights]
    pool = mixture(size, repeats=3, **dict(zip("abc", exact, strict=True)))
    rows = realise(pool, {}, KEYS, GOOD, seed, SPANS)
    counts = [int(np.isin(rows, list(span)).sum()) for span in SPANS.values()]
    assert len(rows) == size
    assert all(abs(n - size * w) < 1 for n, w in zip(counts, exact, strict=True))
    assert (rows == realise(pool, {}, KEYS, GOOD, seed, SPANS)).all()


def test_another_seed_draws_other_rows_and_none_twice_without_need() -> None:
    first, second = (realise(mixture(a=0.5, b=0.5), {}, KEYS, GOOD, seed, SPANS) for seed in (0, 1))
    assert len(set(first)) == len(set(second)) == 200
    assert len(set(first) & set(second)) < 100


def test_a_small_source_is_repeated_evenly_and_no_more_than_the_cap() -> None:
    rows = realise(mixture(a=0.75, c=0.25, repeats=3), {}, KEYS, GOOD, 0, SPANS)
    times = Counter(rows[rows >= 980].tolist())
    assert sum(times.values()) == 50 and set(times.values()) == {2, 3} and len(times) == 20
    with pytest.raises(PoolError) as caught:
        realise(mixture(a=0.75, c=0.25, repeats=2), {}, KEYS, GOOD, 0, SPANS)
    assert "wants 50 rows of c, which has 20 good rows and repeats each 2 times at most" in str(caught.value)
    assert "give it a weight of 0.2 or less, or raise max_repeats to 3" in str(caught.value)


def test_bad_rows_of_a_source_do_not_count() -> None:
    good = GOOD.copy()
    good[980:] = False
    with pytest.raises(PoolError, match=r"which has 0 good rows .* a weight of 0 or less$"):
        realise(mixture(a=0.9, c=0.1), {}, KEYS, good, 0, SPANS)
    with pytest.raises(PoolError, match="the study has no source 'd'"):
        realise(mixture(a=0.9, d=0.1), {}, KEYS, GOOD, 0, SPANS)


def test_slices_may_be_weighted_too_and_a_row_is_the_first_ones() -> None:
    values = np.arange(N, dtype=float)
    columns = {"s": Column(values, values)}
    low, high = Slice("f", "s", None, 600.0), Slice("f", "s", 500.0, None)
    pool = Pool((Layer((low,), 0.9), Layer((high,), 0.1)), 400, max_repeats=1)
    assert [(n, len(rows)) for n, rows in shares_of(pool, columns, GOOD)] == [(360, 600), (40, 400)]
    rows = realise(pool, columns, KEYS, GOOD)
    assert len(set(rows)) == 400 and (rows[:360] < 600).all() and (rows[360:] >= 600).all()
