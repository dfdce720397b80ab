"""The example package of docs/examples, installed for real: a study and a pipeline that use all that it gives."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from random import Random

import pytest
import yaml

from engine.base.errors import DjsbError
from engine.data.statistics import plan_ops
from engine.study.opened import open_study
from tests.conftest import Row, run_djsb, the_error, write_jsonl

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "djsb-example"
STUDY: Row = {
    "name": "plugs", "task": "letters", "budget": "1h",
    "dataset": {"path": "train.paragraphs", "text": "text"}, "evaluation": {"path": "test.jsonl"},
    "train": {"epochs": 2, "batch_size": 8, "keep_checkpoints": 1}, "search": {"strategy": "ends", "seeds": 2},
    "combine": {"top": 1, "clusters": 0}, "scale": {"rates": []}, "confirm": {"seeds": 2, "candidates": 1},
    "ops": {"vowels_filter": {}},
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that it is installed in."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "djsb-example"
    subprocess.run(["cp", "-r", str(EXAMPLE), str(source)], check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(folder), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def text(i: int) -> str:
    """30 letters a and b, mixed; none to 29 of them are a."""
    letters = ["a"] * (i % 30) + ["b"] * (30 - i % 30)
    Random(i).shuffle(letters)
    return "".join(letters)


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "train.paragraphs").write_text("\n\n".join(map(text, range(180))))
    write_jsonl(folder / "test.jsonl", [{"id": i, "text": "ba" * 12} for i in range(10)])
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return folder


@pytest.fixture(scope="module")
def study(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with its task, strategy, OP and reader, run to its end."""
    folder = make(tmp_path_factory.mktemp("plugs") / "study")
    done = run_djsb("auto", folder, "--workers", 1, env={"PYTHONPATH": str(site)})
    assert done.returncode == 0, done.stderr
    return folder


def test_a_study_uses_all_of_it(site: Path, study: Path) -> None:
    env = {"PYTHONPATH": str(site)}
    board = json.loads(run_djsb("rank", study, "--json", env=env).stdout)
    labels = [row["label"] for row in board if row["change"] is not None]
    assert {"vowel_ratio high", "vowel_ratio low"} <= set(labels) and "vowel_ratio mid" not in labels
    used = json.loads(run_djsb("check", study, "--json", env=env).stdout)["plugins"]
    assert [(p["what"], p["name"], p["package"], p["version"], p["counts"]) for p in used] == [
        ("task", "letters", "djsb-example", "1.0", 1), ("strategy", "ends", "djsb-example", "1.0", None),
        ("OP", "vowels_filter", "djsb-example", "1.0", 1), ("reader", "paragraphs", "djsb-example", "1.0", 1),
    ]  # fmt: skip


def test_its_op_stands_in_a_recipe_that_is_applied(site: Path, study: Path, tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(site)}
    board = json.loads(run_djsb("rank", study, "--json", env=env).stdout)
    pool = next(row["pool"] for row in board if row["label"] == "vowel_ratio high")
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out.jsonl"
    done = run_djsb("export", "recipe", study, "--pool", pool, "--out", recipe, env=env)
    assert done.returncode == 0, done.stderr
    entries = yaml.safe_load(recipe.read_text())["process"]
    assert [list(entry) for entry in entries] == [["vowels_filter"]] and "plugin" not in recipe.read_text()
    done = run_djsb("apply", recipe, "--data", study / "train.paragraphs", "--out", out, env=env)
    assert done.returncode == 0, done.stderr
    kept = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    assert kept == [text(i) for i in range(180) if i % 30 >= 20]


def test_a_pipeline_uses_its_component_op_and_reader(site: Path, tmp_path: Path) -> None:
    make(tmp_path / "data")
    jobs = [
        {"hook": "ProbeViaAnalyzerHook", "meta_name": "look", "dj_configs": {
            "dataset_path": "data/train.paragraphs", "export_path": "out/analysed.jsonl",
            "export_original_dataset": True, "process": [{"vowels_filter": {}}]}},
        {"hook": "EvaluateDataHook", "meta_name": "count", "output": ["length", "vowels"], "extra_configs": {
            "type": "letter_counts", "dataset_path": "data/test.jsonl"}},
    ]  # fmt: skip
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump({"work_dir": "work", "execution_job_configs": jobs}))
    env = {"PYTHONPATH": str(site)}
    plain = json.loads(run_djsb("run", file, "--dry-run", "--json", cwd=tmp_path, env=env).stdout)
    assert [job["plugin"] for job in plain["jobs"]] == [None, "component letter_counts of djsb-example 1.0"]
    dry = run_djsb("run", file, "--dry-run", cwd=tmp_path, env=env)
    assert dry.returncode == 0 and "plug-in: component letter_counts of djsb-example 1.0" in dry.stdout, dry.stdout
    done = run_djsb("run", file, "--json", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout)["jobs"][1]["outputs"]
    assert outputs == {"length": 24.0, "vowels": 0.5}
    (rows,) = (tmp_path / "out").rglob("analysed.jsonl")
    analysed = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(analysed) == 180 and analysed[15]["__dj__stats__"]["vowel_ratio"] == 0.5
    told = the_error(run_djsb("run", file, cwd=tmp_path))
    assert "'letter_counts' is no type of EvaluateDataHook" in told or "unknown OP 'vowels_filter'" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": "letters"}, "task: there is no task 'letters': "),
        ({"search": {"strategy": "ends"}}, "search.strategy: there is no strategy 'ends': race, grid, mixtures are"),
        ({"ops": {"vowels_filter": {}}}, "unknown OP 'vowels_filter'"),
        ({"dataset": {"path": "train.paragraphs"}}, "pip install the package that reads .paragraphs files"),
    ],
)
def test_what_is_not_installed_is_one_line_with_the_remedy(tmp_path: Path, change: Row, told: str) -> None:
    folder = make(tmp_path / "study")
    plain = {**STUDY, "task": None, "evaluation": {}, "dataset": {"path": "test.jsonl"}, "search": "grid", "ops": {}}
    (folder / "study.yaml").write_text(yaml.safe_dump({**plain, **change}))
    done = run_djsb("check", folder)
    said = [line for line in (done.stdout + done.stderr).splitlines() if told in line]
    assert done.returncode == 1 and len(said) == 1, done.stdout + done.stderr
    assert "pip install the" in said[0]


def test_versions_are_part_of_what_identifies_a_trial(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(site)
    folder = make(tmp_path / "study")

    def ids() -> tuple[str, str, str]:
        opened = open_study(folder, 1)
        with opened.store:
            runs, _ = plan_ops({"vowels_filter": {}}, opened.data, folder)
            return opened.setup, opened.data.fingerprint, str(dict(runs[0].params)["plugin"])

    task, op, reader = (import_module(f"djsb_example.{name}") for name in ("task", "op", "reader"))
    first = ids()
    assert first[2] == "djsb-example 1"
    monkeypatch.setattr(op, "VOWELS", replace(op.VOWELS, version=2))
    assert ids() == (*first[:2], "djsb-example 2")
    monkeypatch.setattr(task.TASK, "traits", replace(task.TASK.traits, version=2), raising=False)
    second = ids()
    assert second[0] != first[0] and second[1] == first[1]
    monkeypatch.setattr(reader, "PARAGRAPHS", replace(reader.PARAGRAPHS, version=2))
    third = ids()
    assert third[1] != first[1] and third[0] != second[0]


def test_values_of_another_version_of_an_op_are_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.data.catalogue import check_params

    monkeypatch.syspath_prepend(site)
    assert check_params("vowels_filter", {"plugin": "djsb-example 1"}) == {"plugin": "djsb-example 1"}
    with pytest.raises(DjsbError, match="its values are of djsb-example 0, and djsb-example 1 is installed"):
        check_params("vowels_filter", {"plugin": "djsb-example 0"})
