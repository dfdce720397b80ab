"""TextVQA's, MMBench's and MME's scores on cases that can be counted by hand."""

from __future__ import annotations

import pytest

from engine.tasks.vlm.scores import (  # fmt: skip
    circular_accuracy,
    mme_totals,
    normalise_answer,
    pair_scores,
    soft_accuracy,
)


@pytest.mark.parametrize(
    ("said", "compared"),
    [
        ("The Red Car.", "red car"),
        ("an apple,  a pear", "apple pear"),
        ("Ten", "10"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("yall'll", "y'all'll"),
        ("3,000", "3000"),
        ("1.5", "1.5"),
        ("red/blue", "red blue"),  # a mark between letters becomes a space
        ("red / blue", "red blue"),  # beside a space it goes
        ("dog's", "dog 's"),
        ("what?\nthis", "what this"),
    ],
)
def test_answers_are_compared_as_the_official_evaluation_does(said: str, compared: str) -> None:
    assert normalise_answer(said) == compared


@pytest.mark.parametrize(
    ("matches", "score"),
    # of the ten ways to leave one out, those that leave a match out see one match fewer
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_soft_accuracy_is_the_mean_over_ten_choose_nine(matches: int, score: float) -> None:
    answers = ["Red."] * matches + ["blue"] * (10 - matches)
    assert soft_accuracy("the red", answers) == pytest.approx(score)


def test_soft_accuracy_needs_an_answer_to_leave_out() -> None:
    with pytest.raises(ValueError, match="at least two"):
        soft_accuracy("red", ["red"])


def test_circular_accuracy_wants_every_rotation_right() -> None:
    results = [("1", True), ("1", True), ("1", False), ("2", True), ("2", True), ("3", False)]
    assert circular_accuracy(results) == pytest.approx(1 / 3)


def test_mme_counts_questions_and_images() -> None:
    results = [("a", True), ("a", True), ("b", True), ("b", False)]
    assert pair_scores(results) == (0.75, 0.5)
    with pytest.raises(ValueError, match="two an image"):
        pair_scores([("a", True)])


def test_mme_totals_add_up_what_there_is() -> None:
    parts = {"color": (0.75, 0.5), "OCR": (1.0, 1.0), "code_reasoning": (0.5, 0.0)}
    assert mme_totals(parts) == pytest.approx({"perception": 325.0, "cognition": 50.0})
    assert mme_totals({"color": (1.0, 1.0)}) == {"perception": 200.0}
