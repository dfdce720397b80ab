"""How a study begins: a task that suits the data, its template, and the demo of each task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from app.commands.init import check_cycles, template, write_demo, write_study
from engine.base.errors import DjsbError, StudyError
from engine.settings.data import EvaluationSection, PoolsSection
from engine.settings.search import SearchSection
from engine.settings.study import Study
from engine.study.file import read_study
from tests.conftest import Row, Tiny, run_djsb, write_jsonl

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, Path]:
    """(training rows, held-out rows) of text only."""
    rows: list[Row] = [{"id": i, "text": f"row {i} of some text"} for i in range(30)]
    return write_jsonl(tmp_path / "a.jsonl", rows), write_jsonl(tmp_path / "b.jsonl", rows[:5])


def test_text_with_something_to_judge_by_becomes_a_language_model(tmp_path: Path, texts: tuple[Path, Path]) -> None:
    train, held = texts
    file, notes = write_study(tmp_path / "study", train, held, None, force=False)
    study = read_study(file.parent)
    assert (study.task, study.evaluation.label, study.train.batch_size) == ("lm", None, 16)
    assert study.pools.rare and study.design == "auto" and study.search.effort is None
    assert SearchSection().effort is None and not SearchSection().screen.top  # an older study file runs as before
    assert not PoolsSection().rare  # a study file without the field keeps its pools
    assert any("task: lm" in note for note in notes)
    write_study(tmp_path / "other", train, None, None, force=False)
    assert read_study(tmp_path / "other").task is None


def test_the_likelihood_ranks_where_a_task_measures_accuracy_too(tiny: Tiny, tmp_path: Path) -> None:
    """It tells pools apart with fewer seeds; a study that names no metrics keeps all that are main."""
    write_study(tmp_path / "clip", tiny.train_file, tiny.test_file, "clip", force=False)
    assert read_study(tmp_path / "clip").evaluation.metrics == ("likelihood",)
    write_study(tmp_path / "lm", tiny.train_file, tiny.test_file, "lm", force=False)
    assert read_study(tmp_path / "lm").evaluation.metrics is None
    assert EvaluationSection().metrics is None


def test_a_task_that_the_data_cannot_serve_is_refused_with_the_reason(tmp_path: Path, texts: tuple[Path, Path]) -> None:
    train, held = texts
    with pytest.raises(StudyError, match="task clip needs images in the data; give it, or leave --task out"):
        write_study(tmp_path / "study", train, held, "clip", force=False)
    with pytest.raises(StudyError, match="task lm needs --eval: rows that are never trained on"):
        write_study(tmp_path / "study", train, None, "lm", force=False)
    with pytest.raises(StudyError, match=r"there is no task 'llm': caption, clip.* are built in"):
        write_study(tmp_path / "study", train, held, "llm", force=False)
    assert not (tmp_path / "study").exists()


def test_a_command_study_begins_with_a_command_to_replace(tmp_path: Path, texts: tuple[Path, Path]) -> None:
    train, _ = texts
    file, _ = write_study(tmp_path / "study", train, None, "command", force=False)
    text = file.read_text()
    assert "command:" in text
    assert read_study(file.parent).command.run[:2] == ("python", "train.py")
    assert "lora:" not in text  # what the task does not use is not written


def test_the_demo_of_the_language_model_is_a_study_that_can_run(tmp_path: Path) -> None:
    folder = write_demo(tmp_path / "demo", "lm")
    study = read_study(folder)
    assert study.task == "lm"
    assert all((folder / path).exists() for path in ("data/train.jsonl", *study.evaluation.benchmarks.values()))
    assert {"text_length_filter", "word_repetition_filter", "special_characters_filter"} <= set(study.ops)
    before = (folder / "study.yaml").read_text()
    assert write_demo(folder, "lm") == folder
    assert (folder / "study.yaml").read_text() == before
    with pytest.raises(DjsbError, match="holds a demo of other arguments"):
        write_demo(folder, "clip")


def test_a_demo_of_cycles_says_so_in_its_study_and_keeps_to_it(tmp_path: Path) -> None:
    folder = write_demo(tmp_path / "demo", "lm", {"cycles": 3})
    assert read_study(folder).cycles.max == 3
    check_cycles(folder, 3)
    with pytest.raises(DjsbError, match="was there already, with cycles: 3"):
        check_cycles(folder, 2)
    alone = run_djsb("auto", folder, "--cycles", 2)
    assert alone.returncode == 2
    assert "--cycles goes with --demo" in alone.stderr


def test_a_task_without_a_demo_says_so(tmp_path: Path) -> None:
    with pytest.raises(DjsbError, match="task command has no demo; caption, clip"):
        write_demo(tmp_path / "demo", "command")


@pytest.mark.parametrize("name", sorted(f.stem for f in (ROOT / "recipes").glob("demo-*.yaml")))
def test_every_demo_template_is_a_study(name: str) -> None:
    raw = {"ops": {}, **template(name)}
    assert name == f"demo-{Study.model_validate(raw).task}"


def test_the_command_of_the_docs_is_one() -> None:
    text = (ROOT / "docs" / "guides" / "tasks" / "command.md").read_text()
    blocks = [yaml.safe_load(part.split("```")[0]) for part in text.split("```yaml\n")[1:]]
    asked = [b for b in blocks if "command" in b]
    assert asked
    for block in asked:
        raw = {"name": "a", "dataset": {"path": "x"}, "ops": {}, "task": "command", **block}
        assert json.dumps(Study.model_validate(raw).model_dump(mode="json"))
