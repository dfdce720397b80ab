"""Bounds by percentile and k-sigma: where they lie, what a study and a proposal make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from engine.base.places import parse, parse_all, shares
from engine.data.cuts import Column, StatisticColumn, common_size, cut_points, keeps, single_op_cuts, value_at
from engine.proposals.suggest import draft
from engine.records.experiment import Interval, Suggestion
from engine.settings.data import PoolsSection
from engine.study.opened import OpenStudy, open_study
from tests.conftest import TEXT_ONLY, Tiny, write_jsonl


def test_places_lie_where_the_rows_say() -> None:
    values = np.append(np.arange(100, dtype=np.float64), np.nan)
    assert [value_at(parse(t), values) for t in ("p0", "p10", "p97.6", "p100")] == [0, 10, 98, 99]
    assert value_at(parse("mean"), values) == 49.5
    assert value_at(parse("mean-1.5sd"), values) == pytest.approx(49.5 - 1.5 * np.sqrt(9999 / 12))
    assert np.isnan(value_at(parse("p50"), np.array([np.nan])))


def test_a_percentile_never_splits_a_tie() -> None:
    values = np.array([1.0] * 40 + [2.0] * 50 + [3.0] * 10)
    assert [value_at(parse(f"p{p}"), values) for p in (10, 30, 60, 80)] == [1, 2, 2, 3]


@pytest.mark.parametrize("text", ["p101", "p100.5", "p-1", "90", "mean+sd", "mean+1", "sd", "p", "mean+10sd", "p5\n"])
def test_other_texts_are_no_places(text: str) -> None:
    with pytest.raises(ValueError, match="no place among the values"):
        parse(text)


@pytest.mark.parametrize(
    ("bounds", "buckets", "words"),
    [(["p90", "p10"], 3, "must rise"), (["p10", "mean+1sd"], 3, "must rise"), (["p50"], 3, "2 places"),
     (["p0", "p50"], 3, "bound nothing"), (["half"], 2, "no place")],
)  # fmt: skip
def test_a_study_says_what_is_wrong_with_its_bounds(bounds: list[str], buckets: int, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PoolsSection(bounds=tuple(bounds), buckets=buckets)


def test_a_bell_is_cut_at_one_sigma() -> None:
    rng = np.random.default_rng(0)
    values, good = rng.normal(50, 10, 10_000), np.ones(10_000, bool)
    places = parse_all(("mean-1sd", "mean+1sd"))
    assert shares(places, 3) == pytest.approx([0.1587, 0.6827, 0.1587], abs=1e-4)
    size = common_size(10_000, 3, None, 2, places)
    assert size == int(0.75 * 10_000 * shares(places, 3)[0])
    column = StatisticColumn("text_length_filter", "text_len", (), Column(values, values))
    low, mid, high = single_op_cuts([column], good, 3, size, None, 0, places)
    assert (low.slice.high, high.slice.low) == (pytest.approx(40, abs=0.3), pytest.approx(60, abs=0.3))
    assert [c.kept / 10_000 for c in (low, mid, high)] == pytest.approx([0.159, 0.683, 0.159], abs=0.01)
    assert all(c.reason is None for c in (low, mid, high))


def test_a_bound_beyond_all_values_makes_a_degenerate_bucket_not_an_empty_one() -> None:
    values = np.r_[np.zeros(90), np.ones(10)]
    assert cut_points(values, 3, parse_all(("mean-1sd", "mean+1sd"))) == [pytest.approx(0.4)]
    column = StatisticColumn("text_length_filter", "text_len", (), Column(values, values))
    cuts = single_op_cuts([column], np.ones(100, bool), 3, 10, 2, 0, parse_all(("mean-1sd", "mean+1sd")))
    assert [(c.bucket, c.kept, c.reason is None) for c in cuts] == [("low", 90, True), ("high", 10, True),
                                                                    ("mid", 0, False)]  # fmt: skip
    assert "at these bounds" in str(cuts[2].reason)


def bucket(**bounds: Any) -> Suggestion:
    asked = {"kind": "bucket", "slice": {"statistic": "text_len", **bounds}}
    return Suggestion.model_validate({"experiment": asked, "reason": "the ends differ"})


def test_intervals_take_values_and_places_and_nothing_else() -> None:
    assert Interval(statistic="text_len", low="p10", high=40).high == 40.0
    for bounds, words in (({"low": "p90", "high": "p10"}, "not below"), ({"low": True}, "should be a number"),
                          ({"low": float("inf")}, "finite"), ({"low": "p900"}, "no place")):  # fmt: skip
        with pytest.raises(ValidationError, match=words):
            bucket(**bounds)
    assert "pattern" in str(Interval.model_json_schema()["properties"]["low"])


def test_a_proposal_by_percentile_is_a_pool_of_plain_bounds(opened: OpenStudy) -> None:
    lengths = opened.columns["text_len"].value[opened.scan.good]
    proposal = draft(opened, bucket(low="p20", high="p80"), "person")
    pool = proposal.pools[-1].to_pool()
    assert proposal.pools[-1].label == "text_len p20…p80"
    (cut,) = pool.slices
    runs = [int((lengths < v).sum()) for v in (cut.low, cut.high)]  # where the runs of equal values start
    assert runs == pytest.approx([0.2 * len(lengths), 0.8 * len(lengths)], abs=len(lengths) / 20)
    kept = keeps(cut, opened.columns["text_len"]) & opened.scan.good
    assert kept.sum() == runs[1] - runs[0]
    sigma = draft(opened, bucket(low="mean-1sd"), "person").pools[-1].to_pool().slices[0]
    assert sigma.low == pytest.approx(lengths.mean() - lengths.std())


def test_a_study_cuts_its_buckets_by_percentiles(tiny: Tiny) -> None:
    write_jsonl(tiny.train_file, [{"id": i, "text": "x" * (i + 1)} for i in range(200)])
    ops: dict[str, Any] = {"text_length_filter": {}}
    tiny.set({**TEXT_ONLY, "ops": ops, "pools": {"bounds": ["p10", "p80"]}})
    with (found := open_study(tiny.study, 1)).store:
        assert [c.kept for c in found.cuts] == [20, 140, 40]
        assert found.pool_size == 15
    tiny.set({**TEXT_ONLY, "ops": ops})
    with (plain := open_study(tiny.study, 1)).store:
        assert plain.root == found.root  # old trials keep their setup, new pools have ids of their own
