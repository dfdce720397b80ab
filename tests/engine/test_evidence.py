"""The numbers that decisions rest on, on data whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from engine.evidence import effects, fit_prior, paired_changes
from engine.tasks import Metric

ACCURACY = Metric("accuracy", True, 0, 1)
LOSS = Metric("loss", False, 0, 10)


def runs(values: list[float], name: str = "accuracy") -> dict[int, dict[str, float | None]]:
    return {seed: {name: v} for seed, v in enumerate(values)}


def test_changes_are_paired_by_seed() -> None:
    changes, by_metric, skipped = paired_changes(runs([0.22, 0.33]), runs([0.20, 0.30]), [ACCURACY], "mean-of-changes")
    assert changes == {0: pytest.approx(8.0), 1: pytest.approx(12.0)}  # against the control's mean, 0.25
    assert by_metric == {"accuracy": pytest.approx(10.0)}
    assert skipped == ()


def test_a_metric_to_minimise_counts_the_other_way() -> None:
    changes, _, _ = paired_changes(runs([1.8], "loss"), runs([2.0], "loss"), [LOSS], "mean-of-changes")
    assert changes[0] == pytest.approx(10.0)


def test_the_two_aggregates_differ_as_in_the_paper() -> None:
    """Table 10: +2.12 % is the mean of the metrics' changes, not Eq. 1's change of their mean."""
    names = ("a", "b")
    metrics = [Metric(n, True, 0, 1) for n in names]
    pool = {0: {"a": 0.2, "b": 0.9}}
    control = {0: {"a": 0.1, "b": 0.9}}
    mean_of_changes, _, _ = paired_changes(pool, control, metrics, "mean-of-changes")
    change_of_means, _, _ = paired_changes(pool, control, metrics, "change-of-means")
    assert mean_of_changes[0] == pytest.approx(50.0)
    assert change_of_means[0] == pytest.approx(10.0)


def test_nan_and_missing_values_leave_the_metric_out_by_name() -> None:
    pool = {0: {"accuracy": 0.5, "loss": math.nan}, 1: {"accuracy": 0.5}}
    control = {0: {"accuracy": 0.4, "loss": 1.0}, 1: {"accuracy": 0.4, "loss": 1.0}}
    changes, by_metric, skipped = paired_changes(pool, control, [ACCURACY, LOSS], "mean-of-changes")
    assert list(by_metric) == ["accuracy"]
    assert len(changes) == 2
    assert len(skipped) == 1
    assert skipped[0].startswith("loss")


def test_one_seed_has_no_interval_and_is_unclear() -> None:
    (found,) = effects({"p": runs([0.9]), "c": runs([0.1])}, {"p": "c"}, [ACCURACY])
    assert (found.std, found.ci_low, found.ci_high, found.verdict, found.seeds) == (None, None, None, "unclear", 1)


def test_a_pool_without_its_control_is_ranked_last_without_a_number() -> None:
    found = effects({"p": runs([0.5]), "q": runs([0.6]), "c": runs([0.5])}, {"p": "c", "q": "gone"}, [ACCURACY])
    assert [e.pool for e in found] == ["p", "q"]
    assert found[1].change is None


def test_the_prior_is_that_of_equal_variances() -> None:
    rng = np.random.default_rng(0)
    df = 4
    prior = fit_prior((9.0 * stats.chi2.rvs(df, size=400, random_state=rng) / df).tolist(), [df] * 400)
    assert prior is not None
    assert prior.variance == pytest.approx(9.0, rel=0.15)
    assert prior.df > 40


def test_the_prior_is_that_of_scattered_variances() -> None:
    rng = np.random.default_rng(1)
    df, true_df, true_variance = 6, 8.0, 4.0
    own = true_df * true_variance / stats.chi2.rvs(true_df, size=4000, random_state=rng)
    drawn = own * stats.chi2.rvs(df, size=4000, random_state=rng) / df
    prior = fit_prior(drawn.tolist(), [df] * len(drawn))
    assert prior is not None
    assert prior.variance == pytest.approx(true_variance, rel=0.1)
    assert prior.df == pytest.approx(true_df, rel=0.25)


def simulate(
    rng: np.random.Generator, arms: int, seeds: int, effect: float
) -> dict[str, dict[int, dict[str, float | None]]]:
    """Scores with noise of 5 % of the control's mean, paired noise included; the first arm has the effect."""
    shared = rng.normal(0, 0.02, seeds)
    table = {"c": runs((0.5 + shared + rng.normal(0, 0.02, seeds)).tolist())}
    for arm in range(arms):
        gain = effect if arm == 0 else 0.0
        table[f"p{arm}"] = runs((0.5 * (1 + gain) + shared + rng.normal(0, 0.02, seeds)).tolist())
    return table


def test_pools_that_differ_in_nothing_are_seldom_called_different() -> None:
    """A/A: any verdict in at most 5 % of studies, read after every seed."""
    rng = np.random.default_rng(2)
    studies, wrong = 300, 0
    for _ in range(studies):
        table = simulate(rng, 24, 3, 0.0)
        said = False
        for look in (2, 3):
            seen = {p: {s: v for s, v in by_seed.items() if s < look} for p, by_seed in table.items()}
            found = effects(seen, {p: "c" for p in table if p != "c"}, [ACCURACY], looks=2)
            said = said or any(e.verdict != "unclear" for e in found)
        wrong += said
    # 5 % of 300 is 15; two standard errors above it
    assert wrong <= 15 + 2 * math.sqrt(300 * 0.05 * 0.95), f"{wrong} of {studies} studies"


def test_an_effect_is_found() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(60):
        table = simulate(rng, 24, 3, 0.25)
        best = effects(table, {p: "c" for p in table if p != "c"}, [ACCURACY], looks=2)[0]
        found += best.pool == "p0" and best.verdict == "helps"
    assert found >= 48


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(4)
    covered, studies = 0, 400
    for _ in range(studies):
        table = simulate(rng, 12, 4, 0.1)
        found = effects(table, {p: "c" for p in table if p != "c"}, [ACCURACY], confidence=0.9, arms=1)
        first = next(e for e in found if e.pool == "p0")
        assert first.ci_low is not None and first.ci_high is not None
        covered += first.ci_low <= 10.0 <= first.ci_high
    assert 0.85 <= covered / studies <= 0.95


def test_one_pool_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(5)
    control = (0.5 + rng.normal(0, 0.02, 5)).tolist()
    pool = (np.array(control) + rng.normal(0, 0.01, 5)).tolist()
    (found,) = effects({"p": runs(pool), "c": runs(control)}, {"p": "c"}, [ACCURACY])
    expected = stats.ttest_rel(pool, control).confidence_interval(0.95)
    base = float(np.mean(control))
    assert found.ci_low is not None and found.ci_high is not None
    # equal but for the ratio's denominator, whose noise the pool's own interval counts too
    assert found.ci_low == pytest.approx(100 * expected.low / base, rel=0.1, abs=0.1)
    assert found.ci_high == pytest.approx(100 * expected.high / base, rel=0.1, abs=0.1)


@pytest.mark.parametrize(("pools", "seeds"), [(1, 2), (1, 5), (2, 5)])
def test_few_pools_are_not_called_different_too_often(pools: int, seeds: int) -> None:
    """A/A with the small studies of the confirmation."""
    rng = np.random.default_rng(6)
    studies, wrong = 600, 0
    for _ in range(studies):
        table = simulate(rng, pools, seeds, 0.0)
        found = effects(table, {p: "c" for p in table if p != "c"}, [ACCURACY])
        wrong += any(e.verdict != "unclear" for e in found)
    assert wrong <= 600 * 0.05 + 2 * math.sqrt(600 * 0.05 * 0.95), f"{wrong} of {studies} studies"
