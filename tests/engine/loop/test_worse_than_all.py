"""A study whose best subset beats a random sample of its size and is worse than all data, and one whose training rows
hold evaluation rows: the answers say so.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from engine.evidence.answer import answer
from engine.loop import outcome
from engine.loop.run import run_loop
from engine.study.opened import open_study
from engine.study.view import view_study
from tests.conftest import TEXT_ONLY, Row, Tiny, make_tiny, merged, write_jsonl

# what it scores: clean texts are worth more than long ones, and distinct rows are worth more than either
TRAINER = """
import json, math, random, sys

pool, seed = sys.argv[1:3]
rows = [json.loads(line) for line in open(pool)]
clean = sum(len(row["text"].split()) < 4 for row in rows) / len(rows)
distinct = len({row["id"] for row in rows})
print(json.dumps({"score": 0.1 + 0.1 * clean + 0.1 * math.log(distinct / 20) + random.Random(seed).uniform(0, 0.01)}))
"""


@pytest.fixture
def varied(tmp_path: Path) -> Tiny:
    """90 rows of three lengths; a trial is a command of a few milliseconds."""
    rows: list[Row] = [{"id": i, "text": " ".join(["word"] * (1 + i % 3 * 4 + i % 2)) + f" {i}"} for i in range(90)]
    made = Tiny(tmp_path, rows, [])
    write_jsonl(made.train_file, rows)
    made.study.mkdir()
    (made.study / "trainer.py").write_text(TRAINER)
    command = {"run": [sys.executable, "trainer.py", "{pool}", "{seed}"],
               "metrics": [{"name": "score", "low": 0, "high": 1}]}  # fmt: skip
    made.set(merged(TEXT_ONLY, {
        "task": "command", "command": command, "evaluation": {"label": None}, "train": {"epochs": 1, "batch_size": 2},
        "search": {"strategy": "grid", "seeds": 2}, "scale": {"rates": []}, "combine": {"clusters": 0, "top": 1},
        "confirm": {"seeds": 3, "candidates": 1}, "ops": {"words_num_filter": {}},
    }))  # fmt: skip
    return made


@pytest.mark.long
def test_the_answer_says_that_all_data_are_better(varied: Tiny) -> None:
    with (opened := open_study(varied.study, 1)).store:
        assert run_loop(opened, workers=1).how == "done"
    found = answer(view_study(varied.study))
    assert found.kind == "recipe" and found.recipe is not None and found.recipe.label == "num_words low"
    assert found.recipe.change is not None and found.recipe.change > 10
    assert found.against_all is not None and found.against_all.verdict == "hurts"
    assert "It does not beat all your data: at as many trained samples all rows do better." in found.reasons
    assert "against all your data: -" in found.text


def test_the_answer_warns_of_evaluation_rows_among_the_training_rows(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path, rows=60, test_rows=30)
    for number in range(6):
        shutil.copy(
            tmp_path / "data" / tiny.test[number]["images"][0], tmp_path / "data" / tiny.rows[number]["images"][0]
        )
    for overlap, warned in (("warn", True), ("drop", False)):
        folder = tiny.set({"evaluation": {"overlap": overlap}}, tmp_path / overlap)
        with (opened := open_study(folder, 1)).store:
            opened.record(measured=False)
            outcome.overlap(opened)
        found = answer(view_study(folder))
        told = any(r.startswith("6 of 30 evaluation rows have near-duplicates among 60") for r in found.reasons)
        assert told == warned, found.reasons
