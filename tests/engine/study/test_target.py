"""The target of a study: probes repeat their rows as it will, and what lies far beyond them is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.proposals.arms import control, fewest_rows, request
from engine.records.pool import Layer, Pool, Slice
from engine.settings.study import Study, study_yaml
from engine.settings.target import TargetSection
from engine.study.opened import open_study
from engine.study.target import Probe, probe_of, remarks
from tests.conftest import TEXT_ONLY, make_tiny, merged


def study(**target: Any) -> Study:
    return Study.model_validate({"name": "x", "dataset": {"path": "d"}, "ops": {}, "target": target})


def test_probes_repeat_their_rows_as_the_target() -> None:
    # 4 epochs of 300 rows; the target sees a third of a million rows 12 times
    probe = probe_of(study(rows="1M", samples="4M"), 300, 10)
    assert probe == Probe(100, 1200, 300) and probe.matched and probe.epochs == 12
    assert probe_of(study(epochs=8), 300, 10) == Probe(150, 1200, 300)
    assert probe_of(study(rows="1M", samples="400M"), 300, 10) == Probe(10, 1200, 300)  # a batch at least
    assert probe_of(study(rows="1M", samples="1M"), 300, 10) == Probe(300, 1200, 300)  # it repeats less
    assert probe_of(study(), 300, 10) == Probe(300, 1200, 300)


def test_what_lies_far_beyond_the_probes_is_told() -> None:
    far = study(rows="12.8M", samples="1.28B", model="7B")
    model, samples, repeats = remarks(far, Probe(300, 1200, 300), 1_000_000)
    assert "7,000,000,000 parameters, 7,000 times the 1,000,000" in model
    assert "1,280,000,000 samples, 1,066,667 times the 1,200" in samples
    assert "sees each row 4 times, and the target 300 times" in repeats
    near = study(rows=1000, samples=1333, model="2M")
    assert remarks(near, Probe(300, 1200, 300), 1_000_000) == []
    assert remarks(study(), Probe(300, 1200, 300), 1) == []


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"samples": 10}, "samples need rows"),
        ({"rows": 1, "samples": 2, "epochs": 3}, "samples or epochs"),
        ({"model": "seven billion"}, "is no amount"),
    ],
)
def test_a_target_that_says_nothing_clear_is_refused(target: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TargetSection.model_validate(target)


def test_a_study_without_a_target_does_not_write_one() -> None:
    assert "target" not in study_yaml(study())
    assert "1280" in study_yaml(study(rows=10, samples=1280))


def test_tight_recipes_are_compared_at_equal_samples(tmp_path: Path) -> None:
    """By the study's statistics: 240 rows, probes of 60 rows and 120 samples without a target."""
    tiny = make_tiny(tmp_path)
    change = {"train": {"epochs": 2, "batch_size": 8}}
    tiny.set(merged(TEXT_ONLY, change))
    plain = open_study(tiny.study)
    assert (plain.pool_size, plain.epochs) == (60, 2)
    ids = [c.pool.id for c in plain.cuts]
    tiny.set(merged(TEXT_ONLY, {**change, "target": {"rows": 1000, "samples": 2000}}))
    opened = open_study(tiny.study)
    assert (opened.pool_size, opened.epochs) == (20, 6)  # a third of 1,000 rows is seen 6 times
    whole = request(opened, control(opened, opened.pool_size), "control", "control")
    assert whole.samples == 120
    parts = (Slice("text_length_filter", "text_len", high=18.0), Slice("words_num_filter", "num_words", high=3.0))
    tight = Pool((Layer(parts),), 20)
    kept = opened.kept(tight)
    assert 10 < kept < 80
    rows = opened.rows_of(kept, 20)
    assert rows == pytest.approx(
        min(20, kept / 4), abs=0.6
    )  # 2,000 samples of kept / 240 of 1,000 rows, at 120 samples
    arm = request(opened, Pool(tight.layers, rows), "tight", "combination")
    assert arm.samples == 120  # as all others
    assert fewest_rows(opened) == opened.fewest_rows and fewest_rows(plain) == 30
    tiny.set(merged(TEXT_ONLY, change))
    assert [c.pool.id for c in open_study(tiny.study).cuts] == ids
