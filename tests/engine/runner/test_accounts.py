"""The budget: how people write it, what is left, and what a trial will take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.amounts import format_seconds, parse_budget
from engine.base.errors import BudgetError
from engine.runner.accounts import Balance, estimate_cost

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("8gpu-days", 8 * DAY), ("1gpu-day", DAY), ("6gpu-hours", 6 * HOUR), ("30min", 1800), ("90s", 90),
        ("1.5h", 1.5 * HOUR), (" 2 GPU-Hours ", 2 * HOUR), ("2d", 2 * DAY), ("10 minutes", 600), ("1sec", 1),
        ("3core-hours", 3 * HOUR), ("3 slot-mins", 180), ("4device-days", 4 * DAY), ("0.5s", 0.5),
    ],
)  # fmt: skip
def test_budgets_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["soon", "", "8", "-1h", "0h", "0.0s", "1e3s", "nan h", "inf h", "1,5h", "h", "8 gpu", "1h30min", "1h\n2h", "5w"],
)
def test_what_is_no_budget_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BudgetError, match="write it like 8gpu-days, 6gpu-hours or 30min"):
        parse_budget(text)


@given(st.floats(1e-3, 1e9))
def test_what_is_printed_is_within_half_a_percent_and_reads_as_a_budget(seconds: float) -> None:
    assert parse_budget(format_seconds(seconds)) == pytest.approx(seconds, rel=6e-3)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (93, "93 s"), (150, "2.5 min"), (7200, "2 h"), (200000, "2.31 days")]
)
def test_seconds_are_printed_in_the_unit_of_their_size(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_ledger_counts_what_runs_as_taken() -> None:
    balance = Balance(100, 40, 25)
    assert balance.left == 35
    assert balance.fits(35)
    assert not balance.fits(35.001)
    assert Balance(100, 120).left == 0
    assert not Balance(100, 120).fits(0.001)


def test_an_estimate_knows_the_fixed_part_of_a_trial() -> None:
    assert estimate_cost(1000, [(100, 3.0), (200, 4.0), (400, 6.0)]) == pytest.approx(12.0)


def test_an_estimate_is_in_proportion_where_nothing_else_is_known() -> None:
    assert estimate_cost(1000, []) is None
    assert estimate_cost(1000, [(0, 5.0), (100, 0.0)]) is None
    assert estimate_cost(1000, [(100, 3.0), (100, 5.0)]) == pytest.approx(40.0)
    # measurements that fall with size, or start below zero, are noise
    assert estimate_cost(1000, [(100, 5.0), (200, 4.0)]) == pytest.approx(30.0)
    assert estimate_cost(1000, [(100, 1.0), (200, 3.0)]) == pytest.approx(1000 * 2 / 150)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(1e-3, 1e5)), min_size=1, max_size=20), st.integers(1, 10**6))
def test_an_estimate_is_positive_and_grows_with_samples(measured: list[tuple[int, float]], samples: int) -> None:
    less, more = estimate_cost(samples, measured), estimate_cost(2 * samples, measured)
    assert less is not None
    assert more is not None
    assert 0 < less <= more
