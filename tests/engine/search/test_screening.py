"""The screening: what trains to the end before the confirmation chooses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.proposals.queue import ensure_trials
from engine.records.metric import Metric
from engine.search import grid as paper
from engine.search.race import Race
from engine.search.screening import candidates, finalists, going_on, screen
from engine.search.units import _screening
from engine.settings.study import STAGES, Study
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Tiny
from tests.engine.search.test_grid import OPS, give, short_is_good

SEARCH = {"screen": {"top": 3, "seeds": 2}, "rungs": [[0.5, 1]], "top": 1, "drop": 0}


@pytest.fixture
def opened(tiny: Tiny) -> Iterator[OpenStudy]:
    """A study whose race has run: every pool half of one seed."""
    tiny.set({"ops": OPS, "search": SEARCH, "pools": {"size": 32}, "confirm": {"candidates": 1}})
    made = open_study(tiny.study, 1)
    made.metrics = [Metric("accuracy", True, 0, 1)]
    made.record()
    for proposal in Race("probe").propose(made):
        ensure_trials(made, proposal)
    finish(made, "probe", good=("text_len low", "num_words low", "text_len mid", "num_words mid"))
    with made.store:
        yield made


def finish(opened: OpenStudy, stage: str, good: tuple[str, ...]) -> None:
    """Store results of a stage's trials: the good ones are better than the control, the first of them most."""
    for t in opened.store.query(
        "SELECT t.id, t.seed, p.label FROM trials t JOIN pools p ON p.id = t.pool WHERE t.stage = ?", (stage,)
    ):
        gain = 0.0 if t["label"] == "control" else 0.1 / (1 + good.index(t["label"])) if t["label"] in good else -0.1
        value = 0.5 + gain + 0.001 * (t["seed"] % 3)
        opened.store.put("metrics", {"trial": t["id"], "name": "accuracy", "value": value})
        opened.store.execute("UPDATE trials SET state = 'COMPLETE', seconds = 1 WHERE id = ?", (t["id"],))


def test_the_best_of_the_search_train_to_the_end(opened: OpenStudy) -> None:
    first, second = screen(opened)
    assert (first.seeds, second.seeds) == ((0,), (1,)) and first.stage == "screen"
    assert [p.label for p in first.pools] == ["control", "text_len low", "num_words low", "text_len mid"]
    assert {p.horizon for p in first.pools} == {None}
    # the halves that the race trained may be gone on from, those of other pools not
    assert {t.label for t in going_on(opened, "scale")} == {p.label for p in first.pools}
    assert going_on(opened, "screen") == []


def test_what_is_best_at_full_length_is_confirmed(opened: OpenStudy) -> None:
    assert [r.label for r in candidates(opened)] == ["text_len low"]  # nothing has been screened yet
    before = [p.id for p in screen(opened)]
    for proposal in screen(opened):
        ensure_trials(opened, proposal)
    assert [p.id for p in screen(opened)] == before  # while its trials wait
    finish(opened, "screen", good=("num_words low", "text_len low"))
    assert [p.id for p in screen(opened)] == before
    assert [r.label for r in candidates(opened)] == ["num_words low"]
    assert {r.effect.seeds for r in candidates(opened)} == {2}
    assert {p.label for p in paper.confirm(opened)[0].pools} == {"control", "num_words low", "all rows"}


def test_nothing_is_confirmed_when_nothing_screened_beats_the_control(opened: OpenStudy) -> None:
    for proposal in screen(opened):
        ensure_trials(opened, proposal)
    finish(opened, "screen", good=())
    assert candidates(opened) == [] and finalists(opened, 3)
    assert paper.confirm(opened) == []


def test_a_study_without_it_is_as_before(tiny: Tiny) -> None:
    """Neither stage nor plan, and the confirmation takes the best of the search."""
    made = open_study(tiny.set({"ops": OPS, "pools": {"size": 32}, "search": {"seeds": 2}}), 1)
    made.metrics = [Metric("accuracy", True, 0, 1)]
    made.record()
    assert made.study.stages == tuple(s for s in STAGES if s != "screen")
    assert _screening(made.study, 2) == []
    give(made, "probe", short_is_good)
    assert screen(made) == []
    assert [r.label for r in candidates(made)] == [r.label for r in finalists(made, 2)]


def test_the_plan_has_its_trials(tiny: Tiny) -> None:
    study = Study.model_validate(open_study(tiny.study, 1).study.model_dump() | {"search": SEARCH})
    (unit,) = _screening(study, 2)
    assert (unit.stage, unit.trials) == ("screen", (3 + 2) * 2)
