"""A task is one folder: one more, put beside the others, works everywhere without a word of it elsewhere.

The program is copied, and the folder is all that is added to the copy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engine.tasks.registry import task_named, task_names
from tests.conftest import Row, write_jsonl

pytestmark = pytest.mark.slow  # but for its last two tests
ROOT = Path(__file__).resolve().parents[3]
TASK = '''
"""Task `letters`: a table of how likely each letter follows each, judged by held-out text."""

from functools import partial

import numpy as np

from engine.records.metric import Metric
from engine.tasks.contract import Traits
from engine.tasks.shared.caches import make_caches
from engine.tasks.shared.trial import Training, TrainingTask, first_rows
from engine.tasks.shared.tokens import captions
from engine.tasks.shared.training import batches, course, fit


def pairs(rows):
    """(rows, 2, 24) letters and those that follow them."""
    table = np.full((len(rows.data), 25), 32, np.uint8)
    for row, text in zip(table, captions(rows)):
        letters = text.encode("ascii", "replace")[:25]
        row[: len(letters)] = np.frombuffer(letters, np.uint8)
    return np.stack([table[:, :-1], table[:, 1:]], 1) % 128


def loss_of(model, file, chosen=...):
    import torch
    from torch.nn import functional

    part = torch.from_numpy(np.load(file)[chosen]).long()
    return functional.cross_entropy(model(part[:, 0]).flatten(0, 1), part[:, 1].flatten())


def build(study, prepared, seed, init):
    import torch

    torch.manual_seed(seed)
    return torch.nn.Embedding(128, 128)


def train(model, study, prepared, rows, job, report):
    def backward(chosen):
        loss = loss_of(model, prepared / "train.npy", chosen)
        loss.backward()
        return loss.detach()

    way = course(study, len(rows), job)
    order = batches(rows, job.samples, way.batch, job.seed)
    return fit(model, study, job, report, way, order=order, inputs=iter, backward=backward)


def evaluate(model, study, prepared):
    return {"nats": float(loss_of(model, prepared / "eval.npy").detach())}


def save(model, study, prepared, folder):
    import torch

    folder.mkdir()
    torch.save(model.state_dict(), folder / "table.pt")


class Letters(TrainingTask):
    """The table is (letter, next letter) of logits."""

    traits = Traits(
        version=1, needs=("dataset.text", "evaluation.path"), reads_evaluation=frozenset({"text"}),
        suits=frozenset({"text"}),
    )
    training = Training(build, train, evaluate, save, sample=partial(first_rows, "train"))

    def metrics(self, study, prepared):
        return [Metric("nats", False, 0, 5)]

    def prepare(self, study, folder, train, evaluation, workers, progress):
        def make(target):
            for name, rows in (("train", train), ("eval", evaluation)):
                np.save(target / f"{name}.npy", pairs(rows))
            return {}

        return make_caches(folder, "letters", make)


TASK = Letters()
'''
TEMPLATE: Row = {
    "train": {"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "keep_checkpoints": 1},
    "search": {"strategy": "grid", "seeds": 2},
    "combine": {"top": 1, "clusters": 0},
    "scale": {"rates": []},
    "confirm": {"seeds": 2, "candidates": 1},
}


def text(i: int) -> str:
    """Long rows alternate two letters, as held-out ones do; shorter ones do something else."""
    kind, more = i % 3, i // 3 % 6
    return ("ab" * (9 + more), "b c a " * 2 + "c" * more, "z" + "q" * (more % 5))[kind]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with one more folder, and data beside it."""
    tree = tmp_path_factory.mktemp("seventh") / "program"
    for name in ("app", "agent", "engine", "recipes", "prompts"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "djsb.py", tree)
    folder = tree / "engine" / "tasks" / "letters"
    files = {"__init__.py": '"""Letters."""', "task.py": TASK, "letters.yaml": yaml.safe_dump(TEMPLATE)}
    for name, content in files.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    write_jsonl(tree.parent / "train.jsonl", [{"id": i, "text": text(i)} for i in range(180)])
    write_jsonl(tree.parent / "test.jsonl", [{"id": i, "text": "ba" * 12} for i in range(10)])
    return tree


def djsb(tree: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """The copy's command line, beside the data."""
    return subprocess.run(
        [sys.executable, tree / "djsb.py", *map(str, args)], cwd=tree.parent, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def python(tree: Path, code: str) -> str:
    """What a program prints that imports the copy."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=tree.parent, env={**os.environ, "PYTHONPATH": str(tree)}, check=True,
        capture_output=True, text=True, timeout=300,
    ).stdout  # fmt: skip


WIZARD = """
import asyncio
from pathlib import Path
from textual.widgets import Input, Select
from app.tui.app import DjsbApp

async def main():
    app = DjsbApp(Path("fresh"))
    async with app.run_test() as pilot:
        async def at(step):
            while getattr(app.screen, "step", "") != step:
                await pilot.pause(0.02)
        await at("begin")
        await pilot.press("down", "enter")
        await at("data")
        for name in ("path", "eval"):
            app.screen.query_one(f"#{name}", Input).value = {"path": "train.jsonl", "eval": "test.jsonl"}[name]
        await pilot.press("ctrl+n")
        await at("ops")
        await pilot.press("ctrl+n")
        await at("run")
        print([value for _, value in app.screen.query_one("#task", Select)._options])

asyncio.run(main())
"""
FORM = """
from pathlib import Path
from app.tui.reading.form_answers import choices
from engine.study.view import view_study
print(choices(view_study(Path("study")))["kinds"])
"""


@pytest.fixture(scope="module")
def study(tree: Path) -> Path:
    """A study of the new task, begun from a look at the data and run to its end."""
    began = djsb(tree, "init", "study", "--data", "train.jsonl", "--eval", "test.jsonl")
    assert began.returncode == 0, began.stderr
    assert "task: letters" in began.stderr
    file = tree.parent / "study" / "study.yaml"
    fields = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**fields, "ops": {"text_length_filter": {}}}))
    done = djsb(tree, "auto", "study", "--workers", 1, "--json")
    assert done.returncode == 0, done.stderr
    return tree.parent / "study"


def test_its_template_and_its_traits_make_a_study(tree: Path, study: Path) -> None:
    raw = yaml.safe_load((study / "study.yaml").read_text())
    assert (raw["task"], raw["train"]["learning_rate"], raw["search"]["seeds"]) == ("letters", 0.1, 2)
    for command in ("check", "plan"):
        done = djsb(tree, command, "study")
        assert done.returncode == 0, done.stderr
    (study.parent / "other").mkdir()
    (study.parent / "other" / "study.yaml").write_text(yaml.safe_dump({**raw, "task": "letter"}))
    unknown = djsb(tree, "check", "other")
    assert unknown.returncode != 0
    assert "study.yaml: task: there is no task 'letter': caption, clip, command, letters, lm" in unknown.stderr
    (study.parent / "other" / "study.yaml").write_text(yaml.safe_dump({**raw, "lora": {"rank": 2}}))
    assert "task letters does not use lora; remove it" in djsb(tree, "check", "other").stderr


def ranking(tree: Path) -> list[Row]:
    """The leaderboard's pools."""
    board: list[Row] = json.loads(djsb(tree, "rank", "study", "--json").stdout)
    return board


def test_it_trains_and_its_pools_are_ranked(tree: Path, study: Path) -> None:
    board = ranking(tree)
    verdicts = {row["label"]: row["verdict"] for row in board}
    assert board[0]["label"] == "text_len high"
    assert (verdicts["text_len mid"], verdicts["text_len low"]) == ("hurts", "hurts")
    assert (study / "report" / "report.html").exists()
    assert list((study / ".djsb" / "checkpoints").glob("*/table.pt"))


@pytest.mark.long
def test_the_gate_lets_through_what_it_runs_and_the_queue_keeps_it(tree: Path, study: Path) -> None:
    prompt = {"kind": "prompt", "prompts": ["What is it?"]}
    seeds = {"kind": "seeds", "pool": ranking(tree)[0]["pool"], "seeds": 2}
    proposals = []
    for experiment in (prompt, seeds):
        file = study.parent / "suggestion.yaml"
        file.write_text(yaml.safe_dump({"experiment": experiment, "reason": "a test"}))
        done = djsb(tree, "propose", "study", "--by", "person", "--from", file, "--json")
        proposals += json.loads(done.stdout)["proposals"]
    assert [p["status"] for p in proposals] == ["refused", "queued"]
    assert "task letters runs no prompt proposals; it runs bucket, combine, cycle" in proposals[0]["gate"]
    assert djsb(tree, "review", proposals[1]["id"], "--approve", "--dir", "study").returncode == 0
    approved = json.loads(djsb(tree, "proposals", "study", "--json").stdout)
    assert next(p["status"] for p in approved if p["id"] == proposals[1]["id"]) == "approved"


def test_wizard_and_form_offer_it(tree: Path, study: Path) -> None:
    assert python(tree, WIZARD) == "['letters', 'none']\n"
    kinds = "['bucket', 'combine', 'cycle', 'mapper', 'mixture', 'repeat', 'seeds', 'transfer']\n"
    assert python(tree, FORM) == kinds


def test_the_list_of_tasks_needs_no_task(tree: Path) -> None:
    code = "import sys; from engine.tasks.registry import task_names; print(*task_names()); " + (
        "assert not {'torch', 'engine.tasks.clip', 'engine.tasks.letters'} & set(sys.modules)"
    )
    assert python(tree, code).split() == sorted([*task_names(), "letters"])


def test_every_task_is_in_the_docs() -> None:
    guide = (ROOT / "docs" / "guides" / "tasks.md").read_text()
    listed = guide.split("What all of them share")[0]
    rows = dict(re.findall(r"^\| \[?`(\w+)`(?:\]\(tasks/\w+\.md\))? \|(.*)$", listed, re.MULTILINE))
    assert sorted({*rows} - {"null"}) == task_names()
    for name in task_names():
        traits, cells = task_named(name).traits, [cell.strip() for cell in rows[name].split("|")]
        assert f"[`{name}`](tasks/{name}.md)" in guide and (ROOT / "docs/guides/tasks" / f"{name}.md").exists()
        assert cells[3] == (", ".join(f"`{preset}`" for preset in traits.presets) if name != "command" else "–")
        assert cells[4] == ("yes" if traits.demo else "–")
        assert all(field.removeprefix("dataset.") in cells[2] for field in traits.needs)
