"""The demo world of vlm and caption: the same bytes again, answers that are right, files that the readers take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.demo import questions
from engine.demo.images import CLASSES, COLOURS
from engine.tasks.vlm.benchmarks import read_benchmark
from engine.tasks.vlm.instructions import read_instructions


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "INSTRUCTED", 16)
    monkeypatch.setattr(questions, "TESTED", 16)


@pytest.mark.usefixtures("small")
def test_the_demo_is_what_it_says(tmp_path: Path) -> None:
    files = questions.make_demo(tmp_path / "a", 20)
    again = questions.make_demo(tmp_path / "b", 20)
    made = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert made == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file())
    assert all((tmp_path / "a" / p).read_bytes() == (tmp_path / "b" / p).read_bytes() for p in made)
    assert again.train != files.train
    rows = [json.loads(line) for line in files.test.read_text().splitlines()]
    assert len(rows) == 16 * questions.REFERENCES
    label = {row["images"][0]: CLASSES[i // questions.REFERENCES % 16].split() for i, row in enumerate(rows)}
    assert all(set(label[row["images"][0]]) <= set(row["text"].replace(",", "").split()) for row in rows)

    told, blind = read_instructions(tmp_path / "a" / "instructions.jsonl")
    assert blind == 0 and len(told) == 4 * 16
    for question in read_benchmark("textvqa", tmp_path / "a" / "textvqa.json"):
        if "colour" in question.text:
            name = Path(str(question.image)).relative_to(tmp_path / "a")
            assert max(set(question.answers), key=question.answers.count) == label[str(name)][0]
    choices = read_benchmark("mmbench", tmp_path / "a" / "mmbench.tsv")
    assert len({q.item for q in choices}) == 16 and {q.group for q in choices} == {"colour", "shape", "background"}
    pairs = read_benchmark("mme", tmp_path / "a" / "mme")
    assert [q.answers[0] for q in pairs] == ["yes", "no"] * (len(pairs) // 2)
    assert sum(any(colour in q.text for colour in COLOURS) for q in pairs if q.group == "color") == 8
