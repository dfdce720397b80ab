"""A study fitted to its budget: the confirmation is paid for first, and what study.yaml sets stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from engine.data.fewer import first_cuts
from engine.search.designer import SAFE, Designer, told
from engine.settings.study import explicit, study_yaml, with_fields
from engine.study.file import parse_study
from engine.study.opened import OpenStudy, open_study
from tests.conftest import SETTINGS, Row, Tiny

OPS = {"text_length_filter": {}, "words_num_filter": {}, "special_characters_filter": {}, "alphanumeric_filter": {}}


def seconds(samples: float) -> float:
    """What a trial takes, by a clock that is not there."""
    return 1.0 + 0.02 * samples


def designed(tiny: Tiny, **change: Row) -> OpenStudy:
    """The tiny study with its sizes left open."""
    plain = {name: value for name, value in SETTINGS.items() if name != "search"}
    tiny.study.mkdir(exist_ok=True)
    content = {**plain, "design": "auto", "ops": OPS, "train": {"epochs": 4, "batch_size": 8}, **change}
    (tiny.study / "study.yaml").write_text(yaml.safe_dump(content))
    return open_study(tiny.study, 1)


@pytest.fixture
def designer(tiny: Tiny) -> Iterator[Designer]:
    with (opened := designed(tiny)).store:
        yield Designer(opened, seconds)


def test_a_design_keeps_to_its_budget_and_more_buys_more(designer: Designer) -> None:
    effects, least = [], designer.least()[0]
    for limit in (1.1 * least, 4 * least, 16 * least):
        design = designer.design(limit)
        assert design is not None
        assert design.total <= SAFE * limit and design.least == pytest.approx(least)
        assert 0 < design.seconds["confirm"] < design.total
        assert design.confirming[0] >= design.confirming[1] > 0
        effects.append(design.effect or 99)
    assert effects == sorted(effects, reverse=True) and effects[-1] < effects[0]
    step = designer.design(1.1 * least)
    assert step is not None and step.step is not None and step.step[0] > 1.1 * least


def test_below_the_least_there_is_no_design_unless_a_person_wants_the_search_anyway(designer: Designer) -> None:
    least, _ = designer.least()
    assert designer.design(0.9 * least) is None
    anyway = designer.design(0.9 * least, anyway=True)
    assert anyway is not None and anyway.unreserved
    assert "searched only" in told(anyway, with_fields(designer.opened.study, anyway.fields), None)[0]


def test_what_study_yaml_sets_is_kept_and_told(tiny: Tiny) -> None:
    with (opened := designed(tiny, confirm={"seeds": 4}, pools={"size": 40}, search={"rungs": [[1.0, 1]]})).store:
        design = Designer(opened, seconds).design(100_000)
        assert design is not None
        assert not {"confirm.seeds", "pools.size", "search.effort"} & set(design.fields)
        assert (design.planned, design.size) == (4, 40)
        study = with_fields(opened.study, design.fields)
        assert study.search.course[0] == ((1.0, 1),)
        lines = told(design, study, 5.0)
        assert "As study.yaml says: pools.size 40, search.rungs [(1.0, 1)], confirm.seeds 4." in lines
        assert "% at 80 % power (a seed's standard deviation is 5 %)" in lines[0]


def test_a_study_that_sets_its_sizes_is_as_before_and_one_that_leaves_them_open_says_so(tiny: Tiny) -> None:
    with (opened := designed(tiny, confirm={"seeds": 4})).store:
        text = study_yaml(opened.study)
        assert "  # candidates: by the budget; recipes that are confirmed" in text
        again = parse_study(text)
        assert (explicit(again), again.confirm.seeds, again.design) == (("confirm.seeds",), 4, "auto")
        assert study_yaml(again) == text
    fixed = parse_study((tiny.set() / "study.yaml").read_text())
    assert fixed.design == "fixed" and "by the budget" not in study_yaml(fixed)


def test_fewer_pools_are_those_of_statistics_that_say_what_no_other_does(tiny: Tiny) -> None:
    with (opened := designed(tiny, pools={"rare": True})).store:
        every = opened.cuts
        few = first_cuts(every, opened.op_columns, opened.scan.good, 6)
        left = [c for c in few if c.reason is None]
        assert len(few) == len(every) and len(left) == 6
        assert {c.bucket for c in left} <= {"low", "mid", "high"}
        # lengths in characters and in words say much the same
        assert not {"text_len", "num_words"} <= {c.slice.statistic for c in left}
        assert "the design probes 6 of" in next(c.reason or "" for c in few if c.reason)
        opened.adopt(with_fields(opened.study, {"pools.most": 6}))
        assert sum(c.reason is None for c in opened.cuts) == 6
