"""Variances that are shared, on data whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from engine.evidence.variance import fit_prior, moderate, seed_residuals


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


def test_the_fit_is_that_of_least_squares_where_results_are_missing() -> None:
    rng = np.random.default_rng(2)
    scores, known = rng.normal(0, 1, (5, 6)), rng.random((5, 6)) < 0.7
    known[4] = [True] + [False] * 5  # a pool with one seed
    rows, columns = np.nonzero(known)
    design = np.hstack([np.eye(5)[rows], np.eye(6)[columns]])
    left = np.eye(len(rows)) - design @ np.linalg.pinv(design)
    fit = seed_residuals(np.where(known, scores, np.nan), known)
    for pool in range(5):
        assert fit.dfs[pool] == pytest.approx(np.diag(left)[rows == pool].sum(), abs=1e-9)
        squares = np.sum((left @ scores[known])[rows == pool] ** 2)
        assert fit.variances[pool] * fit.dfs[pool] == pytest.approx(squares, abs=1e-9)
    assert (fit.variances[4], fit.dfs[4]) == (0, 0)
    assert fit.rest == pytest.approx(np.sum((left @ scores[known]) ** 2) / np.trace(left))


def simulated(rng: np.random.Generator, common: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of six pools with up to six seeds; the rest has variance 4, what a seed does to all `common`."""
    known = np.arange(6) < np.array([[6], [2], [3], [2], [4], [1]])
    return rng.normal(0, 3, (6, 1)) + rng.normal(0, math.sqrt(common), 6) + rng.normal(0, 2, (6, 6)), known


def test_both_variances_are_found_where_results_are_missing() -> None:
    rng = np.random.default_rng(3)
    fits = [seed_residuals(*simulated(rng, 36.0)) for _ in range(1500)]
    assert np.mean([f.rest for f in fits]) == pytest.approx(4.0, rel=0.05)
    assert np.mean([f.common for f in fits]) == pytest.approx(36.0, rel=0.08)
    assert np.median([f.correlation for f in fits]) == pytest.approx(0.9, abs=0.05)


def test_no_correlation_is_used_where_seeds_have_nothing_in_common() -> None:
    rng = np.random.default_rng(4)
    found = [seed_residuals(*simulated(rng, 0.0)).correlation for _ in range(400)]
    assert np.mean(np.array(found) == 0) > 0.4
    assert np.mean(found) < 0.25


def test_the_correlation_is_one_until_it_can_be_measured() -> None:
    fit = seed_residuals(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[True, True], [True, False]]))
    assert (fit.correlation, fit.common) == (1.0, 0.0)
    assert not fit.dfs.any()
    assert seed_residuals(np.zeros((3, 0)), np.zeros((3, 0), bool)).correlation == 1.0


def test_a_variance_without_degrees_of_freedom_is_the_priors() -> None:
    variances, dfs = moderate(np.array([4.0, 1.0, 0.0]), np.array([3.0, 3.0, 0.0]))
    prior = fit_prior([4.0, 1.0], [3.0, 3.0])
    assert prior is not None
    assert variances[2] == pytest.approx(prior.variance)
    assert dfs.max() <= 6
    unknown, _ = moderate(np.zeros(2), np.zeros(2))
    assert np.isnan(unknown).all()
