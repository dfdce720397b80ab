"""Correlations, clusters and entropy on series whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.evidence.analysis import correlate, distinctive, pearson, pool_entropies, split


def entropy(*texts: str) -> float:
    return pool_entropies(split(texts), {"all": np.arange(len(texts))})["all"]


def test_entropy_is_equation_2() -> None:
    assert entropy("a b", "A c") == pytest.approx(0.5 * math.log(2) + 2 * 0.25 * math.log(4))
    assert entropy("same same", "same") == 0.0
    assert entropy("") == 0.0


def test_pool_entropies_agree_with_the_texts_of_each_pool() -> None:
    texts = ["red circle", "red star", "blue", "", "red red"]
    pools = {"p": np.array([0, 1]), "q": np.array([2, 3, 4])}
    assert pool_entropies(split(texts), pools) == {
        "p": pytest.approx(entropy(*texts[:2])), "q": pytest.approx(entropy(*texts[2:]))
    }  # fmt: skip


def test_words_that_tell_a_bucket_are_those_that_were_planted() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["photo", "of", "the", "tree"], 4)) for _ in range(600)]
    inside = np.arange(600) < 200
    for i in range(0, 200, 2):
        texts[i] += " Sale sale <b>sale</b>"  # half of the bucket's rows
    for i in range(200, 320):
        texts[i] += " lake"  # three tenths of the others, so a word of the rest
    texts[7] += " spam" * 500  # one row, however often
    good = np.ones(600, bool)
    good[:4] = False
    told = distinctive(split(texts), good, {"low": inside, "rest": ~inside}, 3)
    assert [t.word for t in told["low"]] == ["sale", "b"]
    assert (told["low"][0].here, told["low"][0].elsewhere) == (pytest.approx(98 / 196), 0)
    assert told["low"][0].z == told["low"][1].z > 5
    assert [t.word for t in told["rest"]] == ["lake"]
    assert told["rest"][0].here == pytest.approx(0.3)


def test_a_random_bucket_has_no_words_and_neither_has_no_text() -> None:
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice([f"w{i}" for i in range(200)], 8)) for _ in range(800)]
    good, half = np.ones(800, bool), rng.random(800) < 0.5
    assert distinctive(split(texts), good, {"half": half}, 5) == {"half": []}
    assert distinctive(split([""] * 3), good[:3], {"half": half[:3]}, 5) == {"half": []}


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
