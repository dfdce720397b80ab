"""The scores of captions: the same words score full, others nothing, and names tell how words are found."""

from __future__ import annotations

import shutil

import pytest

from engine.base.errors import StudyError
from engine.tasks.caption import scores
from engine.tasks.caption.scores import caption_names, caption_scores, java_problem, words

SAID = ["A red circle.", "the blue star on a striped background", "one green square"]
TRUTH = [["a red circle"], ["The blue star, on a striped background!", "a star"], ["one green square", "a square"]]


def test_words_are_found_without_case_and_punctuation() -> None:
    assert words("It's a RED circle, isn't it?") == "it's a red circle isn't it"


def test_the_same_words_score_full_and_others_nothing() -> None:
    found = caption_scores(SAID, TRUTH)
    assert tuple(found) == caption_names(False)
    assert all(name.endswith("_non_ptb") for name in found)
    assert found["bleu_1_non_ptb"] == pytest.approx(1, abs=1e-6)
    assert found["rouge_l_non_ptb"] == pytest.approx(1)
    assert 1 < found["cider_non_ptb"] <= 10
    nothing = caption_scores(["zebra crossing"] * 3, TRUTH)
    assert all(value < 1e-6 for value in nothing.values())


def test_bleu_is_the_share_of_words_that_a_reference_has() -> None:
    # three of four words, no brevity penalty
    assert caption_scores(["a red round circle"], [["a red circle"]])["bleu_1_non_ptb"] == pytest.approx(0.75)


def test_what_java_needs_is_said_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores.shutil, "which", lambda _: None)
    assert "needs the program java" in str(java_problem())


def test_a_java_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudyError, match=r"vlm\.java: the PTB tokenizer failed"):
        caption_scores(SAID, TRUTH, java=True)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="no Java here")
def test_java_adds_meteor_and_its_own_words() -> None:
    found = caption_scores(SAID, TRUTH, java=True)
    assert tuple(found) == caption_names(True)
    assert found["meteor"] == pytest.approx(1, abs=0.01)
    assert found["bleu_1"] == pytest.approx(1, abs=1e-6)
