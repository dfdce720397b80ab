"""The numbers that decisions rest on, on data whose answer is known."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from engine.evidence.chances import chances
from engine.evidence.comparison import paired_changes
from engine.evidence.effects import Effect, effects
from engine.records.metric import Metric

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
            found = effects(seen, {p: "c" for p in table if p != "c"}, [ACCURACY])
            said = said or any(e.verdict != "unclear" for e in found)
        wrong += said
    # 5 % of 300 is 15; two standard errors above it
    assert wrong <= 15 + 2 * math.sqrt(300 * 0.05 * 0.95), f"{wrong} of {studies} studies"


def test_an_effect_is_found() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(60):
        table = simulate(rng, 24, 3, 0.25)
        best = effects(table, {p: "c" for p in table if p != "c"}, [ACCURACY])[0]
        found += best.pool == "p0" and best.verdict == "helps"
    assert found >= 42  # a control with three seeds leaves its own noise open


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


@pytest.mark.parametrize("studies", [80, pytest.param(200, marks=pytest.mark.long)])
def test_looking_after_every_single_result_finds_nothing_where_there_is_nothing(studies: int) -> None:
    """A/A: 24 pools up to 8 seeds, one trial after another, read after each: any verdict in at most 5 % of studies."""
    with ProcessPoolExecutor() as workers:
        wrong = sum(workers.map(says_something, range(studies), chunksize=10))
    assert wrong <= studies * 0.05 + 2 * math.sqrt(studies * 0.05 * 0.95), f"{wrong} of {studies} studies"


def says_something(study: int) -> bool:
    """Whether any look at a study without effects, growing seed after seed and pool after pool, ends in a verdict."""
    table = simulate(np.random.default_rng(study), 24, 8, 0.0)
    controls = {p: "c" for p in table if p != "c"}
    seen: dict[str, dict[int, dict[str, float | None]]] = {p: {0: by_seed[0]} for p, by_seed in table.items()}
    for seed in range(1, 8):
        for pool in table:
            seen[pool][seed] = table[pool][seed]
            if any(e.verdict != "unclear" for e in effects(seen, controls, [ACCURACY], looks="any")):
                return True
    return False


def test_an_interval_for_any_time_is_wider_the_more_looks_it_allows() -> None:
    table = simulate(np.random.default_rng(8), 3, 5, 0.0)
    widths = []
    for looks in ("once", "any"):
        first = effects(table, dict.fromkeys(("p0", "p1", "p2"), "c"), [ACCURACY], looks=looks)[0]
        assert first.ci_low is not None and first.ci_high is not None and first.change is not None
        assert first.change == pytest.approx((first.ci_low + first.ci_high) / 2)
        widths.append(first.ci_high - first.ci_low)
    assert widths[0] < widths[1]


# -- seeds of the control that a pool lacks --


def unbalanced(
    rng: np.random.Generator, common: float, arms: int = 12
) -> tuple[dict[str, dict[int, dict[str, float | None]]], dict[str, str]]:
    """Pools with 2 seeds, a control with 12, all alike; `common`: standard deviation of what a seed does to all."""
    shared = rng.normal(0, common, 12)
    table = {f"p{i}": runs((0.5 + shared[:2] + rng.normal(0, 0.02, 2)).tolist()) for i in range(arms)}
    return table | {"c": runs((0.5 + shared + rng.normal(0, 0.02, 12)).tolist())}, dict.fromkeys(table, "c")


def errors(common: float) -> tuple[float, float, float]:
    """Root mean square error of the change, and of the paired mean, percent; and how often 90 % intervals cover 0."""
    rng = np.random.default_rng(9)
    ours, paired, covered = [], [], []
    for _ in range(150):
        table, controls = unbalanced(rng, common)
        for e in effects(table, controls, [ACCURACY], confidence=0.9, arms=1):
            assert e.change is not None and e.ci_low is not None and e.ci_high is not None
            ours.append(e.change)
            changes, _, _ = paired_changes(table[e.pool], table["c"], [ACCURACY], "mean-of-changes")
            paired.append(np.mean(list(changes.values())))
            covered.append(e.ci_low <= 0 <= e.ci_high)
    return float(np.std(ours)), float(np.std(paired)), float(np.mean(covered))


def test_more_seeds_of_the_control_help_when_seeds_have_nothing_in_common() -> None:
    ours, paired, covered = errors(common=0.0)
    assert ours < 0.85 * paired
    assert 0.85 <= covered <= 0.95


def test_it_is_the_paired_mean_when_seeds_decide_almost_everything() -> None:
    ours, paired, covered = errors(common=0.3)
    assert ours == pytest.approx(paired, rel=0.02)
    assert 0.9 <= covered <= 0.98  # the control's degrees of freedom are its own: of the two seeds that pools share


def test_intervals_cover_when_seeds_matter_as_much_as_chance() -> None:
    ours, paired, covered = errors(common=0.02)
    assert ours < paired
    assert 0.85 <= covered <= 0.95


def test_without_a_common_effect_the_whole_control_is_the_comparison() -> None:
    """Scores whose two-way fit finds that seeds move pools less alike than chance would."""
    table = {"p": runs([0.6, 0.5]), "q": runs([0.5, 0.6]), "c": runs([0.5, 0.5, 0.6, 0.4, 0.5])}
    found = {e.pool: e.change for e in effects(table, {"p": "c", "q": "c"}, [ACCURACY])}
    assert found == {"p": pytest.approx(10.0), "q": pytest.approx(10.0)}


@pytest.mark.parametrize("aggregate", ["mean-of-changes", "change-of-means"])
def test_with_all_seeds_of_the_control_it_is_the_paired_mean(aggregate: Literal["mean-of-changes"]) -> None:
    rng = np.random.default_rng(10)
    table = {p: {s: {"accuracy": rng.normal(0.5, 0.1), "loss": rng.normal(2, 0.1)} for s in range(3)} for p in "pqc"}
    for e in effects(table, {"p": "c", "q": "c"}, [ACCURACY, LOSS], aggregate=aggregate):
        changes, by_metric, _ = paired_changes(table[e.pool], table["c"], [ACCURACY, LOSS], aggregate)
        assert e.change == pytest.approx(np.mean(list(changes.values())))
        assert e.std == pytest.approx(np.std(list(changes.values()), ddof=1))
        assert dict(e.metrics) == pytest.approx(by_metric)


def test_metrics_add_up_to_the_change_when_seeds_are_missing() -> None:
    rng = np.random.default_rng(11)
    table = {
        p: {s: {"accuracy": rng.normal(0.5, 0.1), "loss": rng.normal(2, 0.1)} for s in range(n)}
        for p, n in (("p", 2), ("q", 3), ("r", 1), ("c", 5))
    }
    found = effects(table, dict.fromkeys("pqr", "c"), [ACCURACY, LOSS])
    assert [e.seeds for e in sorted(found, key=lambda e: e.pool)] == [2, 3, 1]
    assert all(e.change == pytest.approx(np.mean(list(e.metrics.values()))) for e in found)


def test_a_seed_of_the_control_without_all_metrics_does_not_count() -> None:
    table = {
        "p": {s: {"accuracy": 0.6, "loss": 1.0} for s in (0, 1)},
        "c": {s: {"accuracy": 0.5, "loss": 1.0} for s in (0, 1)} | {2: {"accuracy": 0.1, "loss": math.nan}},
    }
    (found,) = effects(table, {"p": "c"}, [ACCURACY, LOSS])
    assert found.change == pytest.approx(10.0)
    assert found.skipped == ()


def test_seeds_that_the_control_lacks_are_left_out() -> None:
    table = {"p": runs([0.6, 0.6, 0.9]), "c": runs([0.5, 0.5])}
    (found,) = effects(table, {"p": "c"}, [ACCURACY])
    assert (found.seeds, found.change) == (2, pytest.approx(20.0))


def test_pools_on_different_metrics_are_each_compared_on_theirs() -> None:
    rng = np.random.default_rng(12)
    table = {p: {s: {"accuracy": rng.normal(0.5, 0.01), "loss": 2.0} for s in range(4)} for p in ("p", "q", "c")}
    alone = {e.pool: e for e in effects(table, {"p": "c", "q": "c"}, [ACCURACY])}
    del table["q"][3]["loss"]
    found = {e.pool: e for e in effects(table, {"p": "c", "q": "c"}, [ACCURACY, LOSS])}
    assert found["q"].change == pytest.approx(alone["q"].change)
    assert found["q"].metrics.keys() == {"accuracy"}
    assert found["p"].metrics.keys() == {"accuracy", "loss"}
    assert all(e.ci_low is not None for e in found.values())


# -- errors, and who is best --


def test_errors_are_those_of_the_simulation() -> None:
    rng = np.random.default_rng(13)
    change, whole, own = [], [], []
    for _ in range(200):
        table = simulate(rng, 8, 4, 0.0)
        for e in effects(table, {p: "c" for p in table if p != "c"}, [ACCURACY]):
            assert e.change is not None and e.standard_error is not None and e.own_error is not None
            change.append(e.change)
            whole.append(e.standard_error**2)
            own.append(e.own_error**2)
    assert np.mean(whole) == pytest.approx(np.var(change), rel=0.1)
    assert np.mean(own) == pytest.approx((100 * 0.02 / 0.5) ** 2 / 4, rel=0.1)


def test_a_single_seed_borrows_its_own_error_from_the_others() -> None:
    table = simulate(np.random.default_rng(14), 6, 4, 0.0)
    table["p0"] = {0: table["p0"][0]}
    found = {e.pool: e for e in effects(table, {p: "c" for p in table if p != "c"}, [ACCURACY])}
    assert (found["p0"].standard_error, found["p0"].ci_low) == (None, None)
    assert found["p0"].own_error == pytest.approx(2 * (found["p1"].own_error or 0), rel=0.5)
    (lone,) = effects({"p": runs([0.6]), "c": runs([0.5])}, {"p": "c"}, [ACCURACY])
    assert (lone.standard_error, lone.own_error) == (None, None)


def effect(pool: str, change: float | None, error: float | None) -> Effect:
    """An effect of which only change and own error matter."""
    return Effect(pool, change, None, None, None, 1, "unclear", own_error=error)


@pytest.mark.parametrize("k", [1, 3, 10, 12])
def test_chances_add_up_and_are_the_same_every_time(k: int) -> None:
    rng = np.random.default_rng(15)
    made = [effect(f"p{i}", float(c), 1.0) for i, c in enumerate(rng.normal(0, 3, 10))]
    found = chances([*made, effect("unknown", None, 1.0), effect("lone", 1.0, None)], k)
    assert found.keys() == {e.pool for e in made}
    assert sum(found.values()) == pytest.approx(min(k, 10))
    assert all(0 <= p <= 1 for p in found.values())
    assert found == chances(made[::-1], k)


def test_chances_are_equal_where_changes_differ_by_no_more_than_chance() -> None:
    alike = [effect(pool, change, 5.0) for pool, change in (("a", 1.0), ("b", -1.0), ("c", 0.0))]
    assert chances(alike) == dict.fromkeys("abc", 1 / 3)
    assert chances([effect("a", 1.0, 5.0)]) == {"a": 1.0}
    assert chances([]) == {}


@pytest.mark.parametrize("k", [1, 3])
def test_chances_are_as_often_right_as_they_say(k: int) -> None:
    rng = np.random.default_rng(16)
    said, right = [], []
    for _ in range(300):
        truth, error = rng.normal(0, 2, 12), rng.choice([1.0, 2.0], 12)
        measured = truth + rng.normal(0, error)
        found = chances([effect(f"{i:02}", *pair) for i, pair in enumerate(zip(measured, error, strict=True))], k, 1000)
        said += [found[f"{i:02}"] for i in range(12)]
        right += (np.argsort(np.argsort(-truth)) < k).tolist()
    sure, chance = np.array(said), np.array(right)
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.01)):
        inside = (sure >= low) & (sure < high)
        assert inside.sum() > 20
        assert chance[inside].mean() == pytest.approx(sure[inside].mean(), abs=0.08)
