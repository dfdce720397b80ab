"""Correlations, clusters and entropy on series whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.analysis import correlate, pearson, pool_entropies, word_entropy


def test_entropy_is_equation_2() -> None:
    assert word_entropy(["a b", "A c"]) == pytest.approx(0.5 * math.log(2) + 2 * 0.25 * math.log(4))
    assert word_entropy(["same same", "same"]) == 0.0
    assert word_entropy([""]) == 0.0


def test_pool_entropies_agree_with_the_texts_of_each_pool() -> None:
    texts = ["red circle", "red star", "blue", "", "red red"]
    pools = {"p": np.array([0, 1]), "q": np.array([2, 3, 4])}
    assert pool_entropies(texts, pools) == {
        "p": pytest.approx(word_entropy(texts[:2])), "q": pytest.approx(word_entropy(texts[2:]))
    }  # fmt: skip


def test_pearson_uses_the_rows_where_both_are_finite() -> None:
    a = np.array([1.0, 2.0, 3.0, np.nan, 5.0])
    b = np.array([2.0, 4.0, 6.0, 1.0, np.nan])
    r = pearson({"a": a, "b": b})
    assert r[0, 1] == pytest.approx(1.0)
    assert np.isnan(pearson({"a": a, "constant": np.ones(5)})[0, 1])


def test_wards_clusters_join_what_says_the_same_opposites_too() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=500), rng.normal(size=500)
    series = {"x": x, "y": y, "x2": x + 0.1 * rng.normal(size=500), "minus x": -x, "y2": y + 0.1 * rng.normal(size=500)}
    found = correlate(series, 2)
    assert found is not None
    assert found.clusters["x"] == found.clusters["x2"] == found.clusters["minus x"]
    assert found.clusters["y"] == found.clusters["y2"] != found.clusters["x"]
    assert sorted(found.order) == sorted(series)


def test_one_series_has_no_clusters() -> None:
    assert correlate({"x": np.arange(3.0)}, 2) is None
