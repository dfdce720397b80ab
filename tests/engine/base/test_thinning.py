"""Curves with a bound."""

from __future__ import annotations

import itertools
import math

from engine.base.thinning import NAME, NAMES, Thinning


def test_a_million_points_become_some_thousands_and_the_last_is_kept() -> None:
    thin = Thinning(100)
    kept = [step for step in range(1, 1_000_001) if thin.keep("t", step, {"loss": 1.0})]
    assert kept[:100] == list(range(1, 101))
    assert len(kept) < 100 + 50 * math.log2(1_000_000 / 50)
    last = [step for _, step, _ in thin.rest()]
    assert [*kept, *last][-1] == 1_000_000
    assert list(thin.rest()) == []
    gaps = [b - a for a, b in itertools.pairwise(kept)]
    assert gaps == sorted(gaps) and max(gaps) < 1_000_000 / 50


def test_each_curve_is_thinned_by_itself_and_there_are_not_too_many() -> None:
    thin = Thinning(10)
    for step in range(1000):
        values = {"loss": 0.5, **({"score": 0.1} if step % 100 == 0 else {})}
        kept = thin.keep("t", step, values)
        assert ("score" in kept) == ("score" in values)
    names = {name for i in range(1000) for name in thin.keep("u", i, {f"name {i}": 1.0, "x" * (NAME + 1): 1.0})}
    assert thin.left_out
    assert len(names) == NAMES and all(n.startswith("name ") for n in names)
