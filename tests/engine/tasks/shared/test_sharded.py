"""One training on two devices: two processes that talk over gloo give the losses and results of one."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.base.errors import TrialError
from engine.demo.video import write_test, write_train
from engine.study.opened import open_study
from engine.tasks.contract import Job, Report
from engine.tasks.shared import sharded
from tests.conftest import Row, Tiny, make_tiny, write_jsonl
from tests.engine.tasks.shared.spreading import on_ranks

for name in ("torch._dynamo", "torch.distributed.fsdp", "transformers.models.llava.modeling_llava"):
    import_module(name)  # seconds each, so before any fork
STEPS, BATCH = 20, 7  # seven rows are four and three
FEW = 5
TRAIN: Row = {"epochs": 4, "batch_size": BATCH, "micro_batch": 2, "learning_rate": 0.003}
STUDIES: dict[str, Row] = {
    "lm": {"task": "lm", "dataset": {"images": None}, "evaluation": {"label": None}, "train": TRAIN},
    "clip": {"task": "clip", "train": TRAIN},
    "clip whole": {"task": "clip", "train": {**TRAIN, "micro_batch": BATCH, "crop": [0.9, 1], "decay": "matrices"}},
    "caption": {"task": "caption", "evaluation": {"label": None}, "train": TRAIN, "vlm": {"answer_tokens": 1}},
}


@pytest.fixture
def made(tmp_path: Path) -> Tiny:
    return make_tiny(tmp_path, 60, 6)


def trained(tiny: Tiny, study: Row, count: int, **job: Any) -> tuple[list[float], dict[str, float]]:
    """Losses and metrics of one trial on so many ranks; it leaves its checkpoint in `out-COUNT`."""
    tiny.set(study)
    rows, folder = tiny.root / "rows.npy", tiny.root / f"ranks-{count}-{len(list(tiny.root.iterdir()))}"
    folder.mkdir()
    np.save(rows, np.arange(48))
    with (opened := open_study(tiny.study, 1)).store:
        prepared, task = opened.prepared, opened.task
    each = prepared_samples(study, prepared)
    asked = Job("t", str(rows), STEPS * each, 0, None, str(tiny.root / f"out-{count}"))
    asked = Job(**{**vars(asked), **{k: v * each if k in ("samples", "horizon") else v for k, v in job.items()}})

    def run(_rank: int) -> tuple[list[float], dict[str, float]]:
        losses: list[float] = []
        report = Report(lambda _kind, content: losses.append(content["values"]["loss"]))
        found = task.run(opened.study, prepared, asked, report)
        return losses, found.get("t", {})

    return on_ranks(count, run, folder)[0]


def prepared_samples(study: Row, prepared: Path) -> int:
    """Rows that a step takes."""
    if study["task"] != "lm":
        return BATCH
    from engine.tasks.lm.task import sample

    with_text = open_study(prepared.parents[2], 1)
    with with_text.store:
        return int(np.ceil(sample(with_text.study, prepared)[1]))


@pytest.mark.parametrize("name", STUDIES)
def test_two_devices_train_as_one(made: Tiny, name: str) -> None:
    steps = STEPS if name == "lm" else FEW
    (alone, before), (both, after) = (trained(made, STUDIES[name], count, samples=steps) for count in (1, 2))
    assert len(alone) >= steps
    np.testing.assert_allclose(both, alone, atol=1e-4)
    assert after == pytest.approx(before, abs=1e-3)
    weights = [load_file(made.root / f"out-{count}" / "model.safetensors") for count in (1, 2)]
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=1e-3, rtol=1e-2)


def test_clips_train_on_two_devices_as_on_one(tmp_path: Path) -> None:
    write_train(tmp_path / "data", 48, 0)
    write_test(tmp_path / "data", 4, 0)
    study: Row = {
        "task": "t2v", "dataset": {"images": None, "videos": "videos"}, "evaluation": {"label": "label"},
        "train": TRAIN,
    }  # fmt: skip
    (alone, before), (both, after) = (trained(Tiny(tmp_path, [], []), study, count, samples=3) for count in (1, 2))
    np.testing.assert_allclose(both, alone, atol=1e-4)
    assert after == pytest.approx(before, abs=1e-3)


def test_what_two_devices_paused_goes_on_on_two_and_on_one(made: Tiny) -> None:
    study, state = STUDIES["lm"], made.root / "state.safetensors"
    whole, _ = trained(made, study, 1)
    trained(made, study, 2, samples=10, horizon=STEPS, pause=str(state))
    for count in (2, 1):
        rest, _ = trained(made, study, count, horizon=STEPS, resume=str(state))
        np.testing.assert_allclose(rest, whole[10:], atol=1e-4)


def test_two_stages_and_adapters_train_on_two_devices_as_on_one(made: Tiny) -> None:
    told = [{"image": row["images"][0], "question": "colour?", "answer": "red"} for row in made.rows[:12]]
    write_jsonl(made.root / "data" / "instructions.jsonl", told)
    asked = [{"question": "colour?", "image_id": "test/0000", "question_id": 0, "answers": ["red"] * 10}]
    (made.root / "data" / "textvqa.json").write_text(json.dumps({"data": asked}))
    study: Row = {
        "task": "vlm",
        "evaluation": {"path": None, "label": None, "benchmarks": {"textvqa": "../data/textvqa.json"}},
        "train": {**TRAIN, "learning_rate": 0.001},
        "vlm": {"instructions": "../data/instructions.jsonl", "answer_tokens": 1},
        "lora": {"rank": 4},
    }  # fmt: skip
    (alone, before), (both, after) = (trained(made, study, count, samples=4) for count in (1, 2))
    np.testing.assert_allclose(both, alone, atol=1e-4)
    assert after == pytest.approx(before, abs=1e-3)


def test_a_batch_of_fewer_rows_than_devices_is_refused() -> None:
    with sharded.together(1, 4), pytest.raises(TrialError, match="a batch of 3 cannot be shared by 4 devices"):
        sharded.share(3)


@pytest.mark.parametrize(("rows", "count", "micro"), [(7, 2, 2), (7, 2, 1), (5, 4, 8), (64, 3, 5), (4, 4, 1)])
def test_ranks_have_equally_many_pieces_and_every_row_once(rows: int, count: int, micro: int) -> None:
    found = []
    for rank in range(count):
        with sharded.together(rank, count):
            found.append(list(sharded.pieces(rows, micro)))
    assert len({len(pieces) for pieces in found}) == 1
    assert [row for pieces in found for at in pieces for row in range(rows)[at]] == list(range(rows))
    assert all(0 < at.stop - at.start <= micro + 1 for pieces in found for at in pieces)


class Seeing(torch.nn.Module):
    """Layers that see and layers that read, as a model of images and text has them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.vision_tower = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2))
        self.language_model = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2))
        self.embed, self.lm_head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)

    def forward(self, text: torch.Tensor, image: torch.Tensor | None) -> torch.Tensor:
        text = self.embed(text)
        if image is not None:
            for layer in self.vision_tower:
                image = layer(image).tanh()
            text = text + image
        for layer in self.language_model:
            text = layer(text).tanh()
        found: torch.Tensor = self.lm_head(text).sum()
        return found


def test_a_rank_whose_rows_have_no_image_keeps_step_with_the_others(tmp_path: Path) -> None:
    text, image = torch.ones(4, 4), torch.arange(8.0).reshape(2, 4) / 8

    def run(_rank: int) -> dict[str, torch.Tensor]:
        model = Seeing()
        with sharded.spread(model) as trained:
            for at in sharded.pieces(4, 2):
                model(text[at], image if at.start < 2 else None).backward()
            trained.clip(1e9)
            gradients = {name: trained.whole(name, p.grad) for name, p in trained.parameters.items() if name}
        assert not any(isinstance(p, torch.distributed.tensor.DTensor) for p in model.parameters())
        return gradients

    found = []
    for count in (1, 2):
        (folder := tmp_path / str(count)).mkdir()
        found.append(on_ranks(count, run, folder)[0])
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)
