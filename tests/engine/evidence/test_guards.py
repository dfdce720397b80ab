"""Guards: a recipe that buys the mean with a collapse elsewhere is vetoed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.base.errors import StudyError
from engine.evidence.answer import answer
from engine.evidence.guards import guarded, judged, told
from engine.journal import results, trials
from engine.records.leaderboard import Change
from engine.records.metric import Metric
from engine.settings.data import EvaluationSection
from tests.engine.evidence.test_answer import CONTROL, LOW, STEADY, Made

METRICS = (Metric("accuracy", True, 0, 1), Metric("rare_loss", False, 0, 10, main=False))


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    guards = {"path": "e.jsonl", "guards": [{"metric": "rare_loss", "worst": "-5 %"}]}
    study = Made(tmp_path, evaluation=guards)
    results.METRIC_SCALES.put(study.store, study.setup, METRICS)
    yield study
    study.store.close()


def ran(made: Made, loss: dict[str, float]) -> None:
    """The study up to its confirmation; what the guarded metric came to on fresh seeds, by pool."""
    made.probe(0.6, 0.45)
    made.confirm("done")
    made.fresh(0.62, None)
    for t in trials.of_setup(made.store, made.setup):
        if t.stage == "confirm" and t.pool in loss:
            value = loss[t.pool] * (1 + STEADY[t.seed % len(STEADY)])
            made.store.put("metrics", {"trial": t.id, "name": "rare_loss", "value": value})


def test_a_guard_vetoes_by_the_point_estimate(made: Made) -> None:
    ran(made, {CONTROL.id: 2.0, LOW.id: 2.5})  # a loss that is higher is worse
    results.RECIPE.put(made.store, made.setup, None)  # as best_recipe has it
    [guard] = judged(made.view)[LOW.id]
    assert guard.says == "vetoes" and guard.change == pytest.approx(-25, abs=1)
    found = answer(made.view)
    assert found.kind == "none" and "text_len low beats a random sample of the same size" in found.text
    assert "a guard vetoes it: rare_loss -2" in found.text and "below its bound of -5 %" in found.text


def test_a_guard_that_holds_is_told_with_the_recipe(made: Made) -> None:
    ran(made, {CONTROL.id: 2.0, LOW.id: 1.9})
    assert judged(made.view)[LOW.id][0].says == "holds"


def test_what_was_not_measured_is_vetoed(made: Made) -> None:
    ran(made, {CONTROL.id: 2.0})
    [guard] = judged(made.view)[LOW.id]
    assert guard.says == "unknown" and guard.vetoes
    assert "cannot be held against its bound" in told(guard)


def test_a_wide_interval_makes_it_unsure_and_vetoes_nothing() -> None:
    found = guarded("m", -5, Change(-2.0, -9.0, 5.0, 3, "unclear"))
    assert found.says == "unsure" and not found.vetoes
    assert told(found) == (
        "m -2.0 % [-9.0, +5.0], not below its bound by the estimate, but its interval does not exclude that: -5 %"
    )


def test_a_guard_of_a_metric_that_is_not_measured_is_refused(tmp_path: Path) -> None:
    made = Made(tmp_path, evaluation={"path": "e.jsonl", "guards": [{"metric": "none", "worst": -5}]})
    with pytest.raises(StudyError, match=r"evaluation\.guards: none not measured; choose from accuracy"):
        _ = made.view.guards
    made.store.close()


@pytest.mark.parametrize("guards", [[{"metric": "m", "worst": 3}], [{"metric": "m", "worst": -3}] * 2])
def test_bounds_that_make_no_sense_are_refused(guards: list[dict[str, object]]) -> None:
    with pytest.raises(ValueError, match=r"less than or equal to 0|stands twice"):
        EvaluationSection.model_validate({"guards": guards})
