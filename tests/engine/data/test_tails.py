"""Tails: the rare part at an end of a distribution, where its shape shows one; none where it shows none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.data.tails import PERCENTS, tails

Rng = np.random.Generator
Draw = Callable[[Rng, int], np.ndarray]
ROWS = 5000


def normal(r: Rng, n: int) -> np.ndarray:
    return r.normal(size=n)


def uniform(r: Rng, n: int) -> np.ndarray:
    return r.random(n)


def words(r: Rng, n: int) -> np.ndarray:
    return r.poisson(20, n).astype(float)


def mixed(draw: Draw, share: float, rare: Draw) -> Draw:
    def both(r: Rng, n: int) -> np.ndarray:
        values, few = draw(r, n), round(share * n)
        values[:few] = rare(r, few)
        return values

    return both


def at(value: float) -> Draw:
    return lambda _, n: np.full(n, float(value))


def near(value: float, width: float = 0.3) -> Draw:
    return lambda r, n: r.normal(value, width, n)


KNOWN: dict[str, tuple[Draw, tuple[int | None, int | None]]] = {
    "normal": (normal, (None, None)),
    "uniform": (uniform, (None, None)),
    "lopsided": (lambda r, n: r.beta(5, 2, n), (None, None)),
    "whole numbers": (words, (None, None)),
    "as many of each number": (lambda r, n: r.integers(0, 50, n).astype(float), (None, None)),
    "two halves": (mixed(normal, 0.5, near(8, 1)), (None, None)),
    "half zeros": (mixed(uniform, 0.6, at(0)), (None, None)),
    "all equal": (lambda _, n: np.ones(n), (None, None)),
    "nothing known": (lambda _, n: np.full(n, np.nan), (None, None)),
    "one in 500 is zero": (mixed(uniform, 0.002, at(0)), (None, None)),
    "a spike at the low end": (mixed(uniform, 0.04, at(0)), (5, None)),
    "a spike at the high end": (mixed(uniform, 0.08, at(1)), (None, 10)),
    "a spike at each end": (mixed(mixed(uniform, 0.18, at(1)), 0.09, at(0)), (10, 10)),
    "a spike of one word": (mixed(words, 0.05, at(1)), (5, None)),
    "a pile far below": (mixed(normal, 0.05, near(-6)), (5, None)),
    "a pile far above": (mixed(normal, 0.01, near(6)), (None, 1)),
    "a pile beside the bulk": (mixed(normal, 0.09, near(4.2)), (None, 10)),
    "a few of anything below": (mixed(normal, 0.03, lambda r, n: r.uniform(-40, -6, n)), (5, None)),
    "a heavy end": (lambda r, n: r.lognormal(0, 1, n), (None, 5)),
    "mostly zeros": (mixed(at(0), 0.05, uniform), (None, 5)),
}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", KNOWN)
def test_a_tail_is_where_the_shape_has_one(name: str, seed: int) -> None:
    draw, tail = KNOWN[name]
    values = draw(np.random.default_rng(seed), ROWS)
    assert tails(values) == tail
    assert tails(-values) == tail[::-1]
    assert tails(3e4 * np.random.default_rng(1).permutation(values) - 7) == tail  # no unit and no order matters
    assert tails(np.concatenate([values, np.full(ROWS, np.nan)])) == tail


def test_few_rows_have_no_tail() -> None:
    draw, _ = KNOWN["a pile far below"]
    assert tails(draw(np.random.default_rng(0), 240)) == (5, None)
    assert tails(draw(np.random.default_rng(0), 100)) == (None, None)


ANY = st.floats() | st.sampled_from([0.0, 1.0, 5e-324, 1e308, -1e308])


@given(hnp.arrays(np.float64, st.integers(0, 60), elements=ANY))
def test_any_values_are_judged(values: np.ndarray) -> None:
    assert set(tails(np.repeat(values, 7))) <= {None, *PERCENTS}
