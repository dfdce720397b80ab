"""Claims on many pools with one control, against published tables and simulated worlds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from engine.evidence import claims
from engine.evidence.claims import Looks, adjusted, any_time, discoveries, halvings, normal_scores, reach
from engine.evidence.effects import Effect, effects
from engine.records.metric import Metric

SCORE = Metric("score", True, -math.inf, math.inf)


@pytest.mark.parametrize(("pools", "one_sided", "two_sided"), [(1, 1.64, 1.96), (2, 1.92, 2.21), (5, 2.23, 2.51)])
def test_bounds_are_those_of_dunnetts_tables(pools: int, one_sided: float, two_sided: float) -> None:
    """Correlation ½, endless degrees of freedom, 5 % (Dunnett 1955 and 1964)."""
    loads, families = np.full(pools, math.sqrt(0.5)), np.zeros(pools, np.int64)
    assert reach(0.05, loads, families) == pytest.approx(two_sided, abs=0.006)
    assert adjusted(np.full(pools, one_sided), loads, families)[0] == pytest.approx(0.05, abs=0.0012)


def test_pools_with_controls_of_their_own_are_independent() -> None:
    apart = adjusted(np.array([2.0, 2.0]), np.full(2, 0.7), np.array([0, 1]))
    assert apart.tolist() == pytest.approx([1 - stats.norm.cdf(2) ** 2] * 2, rel=1e-6)


def test_the_second_is_tested_among_those_that_remain() -> None:
    z = np.array([1.8, 4.0, -np.inf])
    found = adjusted(z, np.zeros(3), np.zeros(3, np.int64))
    assert found[1] == pytest.approx(1 - stats.norm.cdf(4) ** 3, rel=1e-6)
    assert found[0] == pytest.approx(1 - stats.norm.cdf(1.8) ** 2, rel=1e-6)
    assert found[2] == 1


def test_scores_are_as_rare_as_students_t() -> None:
    found = normal_scores(np.array([12.706, -2.015, math.nan, math.inf]), np.array([1.0, 5.0, 5.0, math.nan]))
    assert found[:2].tolist() == pytest.approx([1.96, -1.645], abs=1e-3)
    assert found[2:].tolist() == [-math.inf, 37]


def test_looks_spend_the_error_once() -> None:
    looks = Looks((2, 3))
    early, late = looks.share(2, 0.05), looks.share(3, 0.05)
    assert early + late == pytest.approx(7 / 8)
    assert stats.norm.isf(0.05 * early) == pytest.approx(stats.norm.isf(0.05 * late) * math.sqrt(3 / 2), rel=1e-6)
    further = [looks.share(3 * 2**k, 0.05) for k in (1, 2, 3)]
    assert further == pytest.approx([1 / 16, 1 / 32, 1 / 64])
    assert [halvings(n).planned for n in (1, 2, 3, 8)] == [(2,), (2,), (2, 3), (2, 4, 8)]


@pytest.mark.parametrize(
    ("seeds", "settled", "look"),
    [
        ([], math.inf, None), ([0, 1], math.inf, 2), ([0, 1, 2], math.inf, 3), ([0, 1, 2], 2, 2), ([0, 1], 1, None),
        ([0, 2], math.inf, 3),  # seed 1 is lost
        ([0, 1, 2, 3, 4], math.inf, 3), ([0, 1, 2, 3, 4, 5], math.inf, 6), ([0, 1, 2, 3, 4, 5], 5, 3),
    ],
)  # fmt: skip
def test_a_look_is_reached_when_its_seeds_are_there(seeds: list[int], settled: float, look: int | None) -> None:
    assert Looks((2, 3)).last(seeds, settled) == look


def test_an_extended_confirmation_is_read_by_what_is_left_of_the_error() -> None:
    looks = Looks((5,), (20,))
    assert (looks.last(range(5), math.inf), looks.last(range(19), math.inf)) == (5, 20)
    assert (looks.share(5, 0.05), looks.share(20, 0.05)) == (7 / 8, 1 / 16)


def test_q_is_the_false_discovery_rate_of_benjamini_and_hochberg() -> None:
    p = [0.01, 0.04, 0.03, 0.5]
    expected = stats.false_discovery_control([*p, 1.0]).tolist()
    assert discoveries([*p, None]) == [*(pytest.approx(q) for q in expected[:4]), None]


def test_a_mixture_is_hardly_ever_crossed() -> None:
    """Standard normal sums, read after each of 200 terms: by 2 % of walks at most 5 %."""
    sums = np.random.default_rng(0).standard_normal((2000, 200)).cumsum(1)
    n = np.arange(1, 201)
    z = np.abs(sums) / np.sqrt(n)
    crossed = (any_time(z, np.broadcast_to(n, z.shape), 5, 1.0) <= 0.05).any(1)
    assert crossed.mean() < 0.05
    assert any_time(np.array([4.0]), np.array([5]), 5, 1.0)[0] < 0.01


def table(values: np.ndarray) -> dict[str, dict[int, dict[str, float | None]]]:
    """(pools, seeds) scores; the last pool is the control, c. NaN: the trial is lost."""
    names = [*(f"p{i}" for i in range(len(values) - 1)), "c"]
    return {
        name: {s: {"score": float(v)} for s, v in enumerate(row) if not math.isnan(v)}
        for name, row in zip(names, values, strict=True)
    }


def judge(values: np.ndarray, **options: object) -> list[Effect]:
    runs = table(values)
    return effects(runs, {p: "c" for p in runs if p != "c"}, [SCORE], **options)  # type: ignore[arg-type]


def test_a_noisy_control_is_not_taken_for_pools_that_differ() -> None:
    """A control three times as noisy as 24 pools that differ in nothing: with a shared variance 16 % said something."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(200):
        values = 100 + rng.normal(0, [[3.0]] * 24 + [[9.0]], (25, 3))
        wrong += any(e.verdict != "unclear" for e in judge(values))
    assert wrong <= 200 * 0.05 + 2 * math.sqrt(200 * 0.05 * 0.95)


def test_a_claim_of_help_alone_has_the_whole_error() -> None:
    rng = np.random.default_rng(2)
    values = 100 + rng.normal(0, 3, (3, 5))
    values[0] += 5.4
    both, alone = (next(e for e in judge(values, claim=c) if e.pool == "p0") for c in ("both", "helps"))
    assert (
        both.p is not None and alone.p is not None and alone.p <= both.p
    )  # the few of a confirmation, the less careful
    assert 0.025 < alone.p < 0.05, alone.p
    assert (both.verdict, alone.verdict) == ("unclear", "helps")


@pytest.mark.parametrize("claim", ["both", "helps"])
def test_a_claim_has_a_bound_that_does_not_contradict_it(claim: str) -> None:
    """The two-sided interval of a one-sided claim may include zero; its bound does not."""
    noise, astride = np.random.default_rng(2).normal(0, 3, (3, 5)), 0
    for gain in np.linspace(-12, 12, 49):
        values = 100 + noise
        values[0] += gain
        for e in judge(values, claim=claim):
            assert (e.bound is None) == (e.verdict == "unclear")
            if e.bound is not None and e.change is not None and e.ci_low is not None and e.ci_high is not None:
                assert 0 <= e.bound <= e.change or e.change <= e.bound <= 0
                astride += e.verdict == "helps" and e.ci_low < 0
    assert (astride > 0) == (claim == "helps")


def test_the_bound_of_one_pool_is_that_of_a_one_sided_paired_test() -> None:
    values = 1000 + np.random.default_rng(5).normal(0, 3, (2, 8)) + np.array([[20.0], [0.0]])
    (e,) = judge(values, claim="helps")
    gains = 100 * (values[0] - values[1]) / values[1].mean()
    plain = gains.mean() - stats.t.ppf(0.95, 7) * gains.std(ddof=1) / math.sqrt(8)
    assert e.bound == pytest.approx(plain, rel=0.1)


def test_bounds_hold_in_all_but_five_percent_of_confirmations() -> None:
    rng, wrong = np.random.default_rng(6), 0
    for _ in range(300):
        values = 100 + rng.normal(0, 5, (3, 6)) + np.array([[12.0], [4.0], [0.0]])
        truth = {"p0": 12.0, "p1": 4.0}
        wrong += any(e.bound is not None and e.bound > truth[e.pool] for e in judge(values, claim="helps"))
    assert wrong <= 300 * 0.05 + 2 * math.sqrt(300 * 0.05 * 0.95)


def test_seeds_that_wait_leave_the_last_look_standing() -> None:
    rng = np.random.default_rng(3)
    values = 100 + rng.normal(0, 1, (6, 4))
    values[0, :2] -= 40  # it only looks bad at the first two
    values[0, 2:] += 40
    early = {e.pool: e for e in judge(values, looks=Looks((2, 4)), settled={"c": 3.0})}["p0"]
    late = {e.pool: e for e in judge(values, looks=Looks((2, 4)))}["p0"]
    assert (early.verdict, early.seeds, late.verdict) == ("hurts", 4, "unclear")
    assert early.change == late.change


def test_the_means_stand_beside_the_percent_and_a_control_near_zero_is_told() -> None:
    values = np.array([[3.0, 5.0, 4.0], [0.2, -0.1, 0.05]])
    (found,) = judge(values)
    assert found.values["score"] == pytest.approx((4.0, 0.05))
    assert found.skipped == (
        "score: the control's mean is within two standard errors of 0; see the values, not the percent",
    )
    assert judge(values + 100)[0].skipped == ()


def test_loads_of_many_pools_are_grouped_and_p_is_hardly_another(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    loads, families = rng.uniform(0.4, 0.9995, 240), rng.integers(0, 2, 240)
    z = rng.normal(0, 1, 240) + np.where(np.arange(240) < 10, 4.0, 0.0)
    grouped, far = adjusted(z, loads, families), reach(0.05, loads, families)
    monkeypatch.setattr(claims, "MANY", 1_000)
    exact = adjusted(z, loads, families)
    assert (exact < 0.05).sum() >= 3 and np.abs(grouped - exact)[exact < 0.5].max() < 0.005
    assert far == pytest.approx(reach(0.05, loads, families), abs=0.005)
