"""Summaries from templates: what they say, and the pools that each sentence rests on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from engine.evidence import recipe
from engine.evidence import sentences as insight
from engine.evidence.effects import Effect
from engine.evidence.ranking import Ranked
from engine.journal.results import STATISTICS, Correlation
from engine.journal.store import Store
from engine.records.pool import Layer, Pool
from engine.records.sentence import Sentence

Interval = tuple[float, float] | None


def entry(label: str, kind: str, change: float, interval: Interval, samples: int = 100) -> Ranked:
    low, high = interval or (None, None)
    verdict = "unclear" if interval is None or interval[0] < 0 < interval[1] else "helps" if change > 0 else "hurts"
    pool = Pool((Layer(),), 10, seed=sum(map(ord, label + kind)))
    bound = None if verdict == "unclear" else low if change > 0 else high
    effect = Effect(pool.id, change, 1.0, low, high, 2, verdict, bound=bound)  # type: ignore[arg-type]
    return Ranked(pool, label, kind, "op", label.split(" ")[0], "low", samples, 1.0, effect)


@dataclass
class FakeStudy:
    """What the templates read of a study beside its ranking."""

    store: Store
    setup: str = "c"


def told(monkeypatch: pytest.MonkeyPatch, stage: str, ranked: list[Ranked]) -> list[Sentence]:
    def rank(_: Any, kinds: tuple[str, ...], *_more: Any, **_named: Any) -> list[Ranked]:
        return [r for r in ranked if r.kind in kinds]

    for module in (insight, recipe):
        monkeypatch.setattr(module, "rank", rank)
    with Store(Path(":memory:")) as store:
        STATISTICS.put(store, "c", Correlation(["a", "b"], [[1.0, 0.9], [0.9, 1.0]], ["a", "b"], {"a": 1, "b": 1}, []))
        return insight.sentences(cast(Any, FakeStudy(store)), stage)


def test_the_probe_names_what_helps_hurts_and_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    board = [entry("a low", "single", 9, (2, 16)), entry("b low", "single", 1, (-6, 8)),
             entry("a high", "single", -12, (-20, -4))]  # fmt: skip
    found = told(monkeypatch, "probe", board)
    text = " ".join(s.text for s in found)
    assert "a low leads the single OPs: +9.0 %, at least +2.0 % over 2 seeds." in text
    assert "1 of 3 pools is better than the control: a low." in text
    assert "1 of 3 pools is worse than the control: a high." in text
    assert "b and a say much the same of a row (Pearson's r = 0.90)." in text
    ids = {r.pool.id for r in board}
    assert all(s.cites and set(s.cites) <= ids for s in found)


def test_where_nothing_is_told_apart_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    board = [entry("a low", "single", 9, (-2, 20)), entry("b low", "single", -1, None)]
    text = " ".join(s.text for s in told(monkeypatch, "probe", board))
    assert "None of 2 pools is told from the control yet." in text
    assert "better than" not in text
    assert told(monkeypatch, "probe", []) == []


@pytest.mark.parametrize(("interval", "doubt"), [((4.0, 16.0), False), ((-30.0, 50.0), True), (None, True)])
def test_a_combination_is_held_against_the_best_single_op(
    monkeypatch: pytest.MonkeyPatch, interval: Interval, doubt: bool
) -> None:
    board = [entry("a low + b low", "combination", 20, interval), entry("a low", "single", 10, (1, 19))]
    first, second = told(monkeypatch, "combine", board)
    assert first.text.startswith("a low + b low leads 1 combination:")
    assert "+10.0 points against the best single OP of this size, a low" in second.text
    assert ("less than the intervals can tell" in second.text) is doubt
    assert told(monkeypatch, "combine", board[1:]) == []


def test_repeating_stands_beside_adding_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    repeated, added = entry("a ×2", "repetition", 5, (1, 9), 200), entry("a + lower", "layers", 3, (-1, 7), 200)
    (one,) = told(monkeypatch, "scale", [repeated, added])
    assert one.text.startswith("a ×2 at 200 trained samples: +5.0 %")
    assert "adding lower-ranked rows instead: +3.0 %" in one.text
    assert set(one.cites) == {repeated.pool.id, added.pool.id}


def test_the_confirmation_says_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = told(monkeypatch, "confirm", [entry("a low", "single", 9, (2, 16))])
    assert one.text == "On fresh seeds a low: +9.0 %, at least +2.0 % over 2 seeds, helps."
    unknown = entry("a low", "single", 9, (2, 16))
    unknown = replace(unknown, effect=replace(unknown.effect, change=None))
    assert told(monkeypatch, "confirm", [unknown]) == []
