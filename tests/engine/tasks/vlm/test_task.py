"""Tasks vlm and caption: what they train and measure, LoRA, checkpoints that load without djsb, what is refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
)

from app.commands.check import check
from engine.base.errors import DataError, StudyError
from engine.study.opened import OpenStudy, open_study
from engine.study.rows import silent
from engine.tasks.caption.task import CaptionTask
from engine.tasks.contract import Job, Report, Task
from engine.tasks.registry import fitting_study
from engine.tasks.shared.packed import open_media
from engine.tasks.shared.tokens import EOS
from engine.tasks.vlm.model import NO_LABEL, build_model, image_shape
from engine.tasks.vlm.task import VlmTask
from engine.tasks.vlm.text import NONE, Encoder, collate
from engine.tasks.vlm.training import Examples, backward
from tests.conftest import Row, Tiny, make_tiny, merged, write_jsonl
from tests.engine.tasks.killing import ends_alike

torch.set_num_threads(1)
ROWS, COLOURS = 96, ("red", "green", "blue")
VLM: Row = {
    "task": "vlm",
    "evaluation": {
        "path": None, "label": None, "metrics": ["textvqa_likelihood", "mme_likelihood"],
        "benchmarks": {"textvqa": "../data/textvqa.json", "mme": "../data/mme"},
    },
    "train": {"epochs": 2, "batch_size": 16, "learning_rate": 0.003, "keep_checkpoints": 1},
    "vlm": {"trains": "all", "instructions": "../data/instructions.jsonl", "answer_tokens": 4},
}  # fmt: skip
CAPTION: Row = {
    "task": "caption",
    "evaluation": {"label": None, "metrics": ["likelihood"]},
    "train": {"epochs": 2, "batch_size": 16, "learning_rate": 0.003, "keep_checkpoints": 1},
    "vlm": {"answer_tokens": 8},
}
# what a user does without djsb
LOAD = """
import sys
from peft import PeftModel
from transformers import AutoTokenizer, LlavaForConditionalGeneration
base, folder, adapted = sys.argv[1:]
model = LlavaForConditionalGeneration.from_pretrained(base if adapted == "1" else folder, local_files_only=True)
if adapted == "1":
    model = PeftModel.from_pretrained(model, folder)
print(type(model).__name__, len(AutoTokenizer.from_pretrained(folder)), "engine" in sys.modules)
"""


@pytest.fixture
def shown(tmp_path: Path) -> Tiny:
    """Coloured squares with captions, instructions and questions about them."""
    made = make_tiny(tmp_path, ROWS, 12)
    data = tmp_path / "data"
    told = [
        {"image": row["images"][0], "question": "which colour?", "answer": COLOURS[i % 3]}
        for i, row in enumerate(made.rows[:24])
    ]
    write_jsonl(data / "instructions.jsonl", told)
    asked = [
        {"question": "which colour?", "image_id": f"test/{i:04d}", "question_id": i, "answers": [COLOURS[i % 3]] * 10}
        for i in range(6)
    ]
    (data / "textvqa.json").write_text(json.dumps({"data": asked}))
    (data / "mme" / "color").mkdir(parents=True)
    lines = []
    for i in range(4):
        shutil.copy(data / "test" / f"{i:04d}.png", data / "mme" / "color")
        lines += [f"{i:04d}.png\tis it {COLOURS[(i + k) % 3]}?\t{'No' if k else 'Yes'}\n" for k in (0, 1)]
    (data / "mme" / "color.txt").write_text("".join(lines))
    made.set(VLM)
    return made


def run(tiny: Tiny, task: Task, change: Row, **job: Any) -> tuple[OpenStudy, dict[str, float], list[float]]:
    """The study, metrics and losses of one trial."""
    tiny.set(change)
    losses: list[float] = []
    report = Report(lambda _kind, content: losses.append(content["values"]["loss"]))
    rows = tiny.root / "rows.npy"
    np.save(rows, np.arange(ROWS // 2))
    asked = Job(**{**vars(Job("t", str(rows), 96, 0, None, "")), **job})
    with (study := open_study(tiny.study, 1)).store:
        return study, task.run(study.study, study.prepared, asked, report)["t"], losses


def test_check_accounts_for_every_input_and_leaves_bad_instructions_out(shown: Tiny) -> None:
    data = shown.root / "data"
    lines = (data / "instructions.jsonl").read_text().splitlines()
    (data / "broken.png").write_bytes(b"\x89PNG and no more")
    bad = [{"image": "broken.png", "question": "q", "answer": "a"}, {**json.loads(lines[0]), "answer": None}]
    (data / "instructions.jsonl").write_text("\n".join([*lines, *map(json.dumps, bad)]), encoding="utf-8-sig")
    found = check(shown.study, 1, silent)
    assert found["problems"] == []
    told = [row["line"] for row in found["inputs"]]
    assert told[0] == "training rows: 96 of 96 rows; text from text, images from images, id from id"
    assert told[1:4] == [
        "instructions: 24 of 26 entries; left out: 1 null answer, 1 unreadable image; 24 questions",
        "benchmark textvqa: 6 of 6 questions",
        "benchmark mme: 8 of 8 lines; 1 subtasks",
    ]
    shown.set({**VLM, "dataset": {"max_bad": 0.01}})
    shutil.rmtree(shown.study / ".djsb" / "cache")
    (problem,) = check(shown.study, 1, silent)["problems"]
    assert problem.startswith("instructions: 1 of 26 entries are bad (dataset.max_bad is 1%), the first: ")
    assert "instructions.jsonl, line 26: the answer is null" in problem


def load_outside(base: Path, folder: Path, adapted: bool) -> list[str]:
    """What a process without djsb makes of a checkpoint."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, str(base), str(folder), str(int(adapted))],
        capture_output=True, text=True, cwd="/", timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_a_vlm_trial_is_repeatable_and_its_checkpoint_loads_without_djsb(shown: Tiny, tmp_path: Path) -> None:
    study, first, losses = run(shown, VlmTask(), VLM, output=str(tmp_path / "out"))
    assert losses[-1] < losses[0]
    with study.store:
        named = {m.name: m for m in study.metrics}
        prepared = study.prepared
    assert set(first) == set(named)
    assert all(named[name].low <= value <= named[name].high for name, value in first.items())
    assert named["mme_perception"].high == 200
    assert run(shown, VlmTask(), VLM)[1] == first
    words = len(json.loads((prepared / "base" / "tokenizer.json").read_text())["model"]["vocab"])
    assert load_outside(prepared / "base", tmp_path / "out", False) == [
        "LlavaForConditionalGeneration", str(words), "False",
    ]  # fmt: skip


@pytest.mark.long
def test_a_lora_trial_leaves_the_base_as_it_was_and_loads_with_plain_peft(shown: Tiny, tmp_path: Path) -> None:
    change = {**CAPTION, "lora": {"rank": 4}}
    study, scores, losses = run(shown, CaptionTask(), change, output=str(tmp_path / "out"))
    assert losses[-1] < losses[0]
    assert set(scores) == {
        *(f"{n}_non_ptb" for n in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")),
        "likelihood",
    }
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert weights and all("language_model" in name and "lora_" in name for name in weights)
    assert any(bool(w.any()) for name, w in weights.items() if "lora_B" in name)
    assert load_outside(study.prepared / "base", tmp_path / "out", True)[0] == "PeftModel"
    again = run(shown, CaptionTask(), change, init=str(tmp_path / "out"))[2]
    assert again[0] < losses[0]  # the next cycle goes on from the adapter


@pytest.mark.long
def test_a_part_and_its_rest_are_the_whole_training(shown: Tiny, tmp_path: Path) -> None:
    state = str(tmp_path / "state.safetensors")
    for task, change in ((VlmTask(), VLM), (CaptionTask(), {**CAPTION, "lora": {"rank": 4}})):
        whole = run(shown, task, change)[1]
        run(shown, task, change, samples=48, horizon=96, pause=state)
        assert run(shown, task, change, horizon=96, resume=state)[1] == whole


def test_the_projector_alone_is_trained_when_the_study_says_so(shown: Tiny, tmp_path: Path) -> None:
    change = {**VLM, "vlm": {"trains": "projector", "instructions": None, "answer_tokens": 4}}
    study, _, _ = run(shown, VlmTask(), change, output=str(tmp_path / "out"))
    before = load_file(study.prepared / "base" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("multi_modal_projector" in name for name in moved)


def test_gradients_in_pieces_are_those_of_the_whole_batch(shown: Tiny) -> None:
    shown.set(VLM)
    with (study := open_study(shown.study, 1)).store:
        examples = Examples.of(study.prepared, "train")
        found = []
        for micro in (8, 3):
            model = build_model(study.study, study.prepared, 0, None).eval()
            loss = backward(model, micro)(examples.batch(np.arange(8), torch.device("cpu")))
            found.append((loss, [p.grad for p in model.parameters() if p.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for whole, pieces in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(whole, pieces, rtol=1e-3, atol=1e-6)


def test_a_row_is_head_text_and_answer_and_only_the_answer_is_learned(shown: Tiny) -> None:
    shown.set(CAPTION)
    with (study := open_study(shown.study, 1)).store:
        base = study.prepared / "base"
    encoder = Encoder.of(base, json.loads((base / "config.json").read_text()))
    asked = encoder.question("which colour?")
    (row,) = encoder.captions(["a <__dj__image> red thing"], 24, "which colour?")
    start = len(asked)
    assert row[:start].tolist() == asked
    said = [t for t in row[start:] if t != NONE]
    assert said[-1] == EOS and encoder.tokenizer.decode(said[:-1]).split() == ["a", "red", "thing"]
    ids, mask, labels = collate(row[None].astype(np.int64), np.array([start]), np.array(encoder.head), encoder.pad)
    assert ids.shape == mask.shape and ids.shape[1] == len(encoder.head) + labels.shape[1]
    assert (labels[0, :start] == NO_LABEL).all() and labels[0, start:].tolist() == said


def test_a_long_caption_is_cut_and_still_ends(shown: Tiny) -> None:
    shown.set(CAPTION)
    with (study := open_study(shown.study, 1)).store:
        base = study.prepared / "base"
    encoder = Encoder.of(base, json.loads((base / "config.json").read_text()))
    (row,) = encoder.captions(["red " * 100], 16, None)
    assert row[-1] == EOS and (row != NONE).all()


def test_a_vision_tower_and_a_language_model_are_joined(shown: Tiny, tmp_path: Path) -> None:
    shown.set(CAPTION)
    with (study := open_study(shown.study, 1)).store:
        tokens = study.prepared / "base"
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(**small, image_size=32, patch_size=16)).save_pretrained(tmp_path / "vision")
    words = len(json.loads((tokens / "tokenizer.json").read_text())["model"]["vocab"])
    LlamaForCausalLM(LlamaConfig(**small, vocab_size=words)).save_pretrained(tmp_path / "language")
    for file in tokens.glob("*token*"):
        shutil.copy(file, tmp_path / "language")
    parts = {"vision": str(tmp_path / "vision"), "language": str(tmp_path / "language")}
    change = {**VLM, "vlm": {**VLM["vlm"], **parts, "trains": "projector"}}
    study, scores, _ = run(shown, VlmTask(), change)
    kept, joined = (
        load_file(tmp_path / "vision" / "model.safetensors"),
        load_file(study.prepared / "base" / "model.safetensors"),
    )
    name = next(n for n in kept if n.endswith("patch_embedding.weight"))
    assert torch.equal(kept[name], next(w for n, w in joined.items() if n.endswith("patch_embedding.weight")))
    assert 0 <= scores["textvqa"] <= 1


def test_an_internvl_checkpoint_is_trained(shown: Tiny, tmp_path: Path) -> None:
    shown.set(CAPTION)
    with (study := open_study(shown.study, 1)).store:
        base = study.prepared / "base"
    tokens = Encoder.of(base, json.loads((base / "config.json").read_text())).tokenizer
    tokens.add_special_tokens({"additional_special_tokens": ["<img>", "</img>"]})
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = InternVLConfig(
        vision_config={**small, "image_size": 32, "patch_size": 8},
        text_config={"model_type": "qwen2", **small, "num_key_value_heads": 2, "vocab_size": len(tokens)},
        image_token_id=4,
    )
    assert image_shape(config.to_dict()) == (32, 4)
    InternVLForConditionalGeneration(config).save_pretrained(tmp_path / "internvl")
    tokens.save_pretrained(tmp_path / "internvl")
    change = {**CAPTION, "model": {"checkpoint": str(tmp_path / "internvl")}, "lora": {"rank": 2}}
    _, scores, losses = run(shown, CaptionTask(), change)
    assert losses[-1] < losses[0] and 0 < scores["likelihood"] < 1


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        ("architecture", r"model\.checkpoint: .* is a bert model; this needs one of llava, llava_next"),
        ("tokenizer", r"has no tokenizer that can be read"),
        ("nothing there", r"model\.checkpoint: .* is no transformers checkpoint"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    shown: Tiny, tmp_path: Path, break_it: str, told: str
) -> None:
    folder = tmp_path / "checkpoint"
    if break_it == "tokenizer":
        shown.set(CAPTION)
        with (study := open_study(shown.study, 1)).store:
            shutil.copytree(study.prepared / "base", folder, ignore=shutil.ignore_patterns("*token*", "*.jinja"))
    elif break_it == "architecture":
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "bert"}')
    shown.set({**CAPTION, "model": {"checkpoint": str(folder)}})
    if not folder.exists():
        folder.mkdir()
    with (study := open_study(shown.study, 1)).store, pytest.raises(StudyError, match=told) as caught:
        _ = study.prepared
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_is_named_with_its_remedy(shown: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.tasks.shared.checkpoints.find_spec", lambda _: None)
    shown.set({**CAPTION, "lora": {"rank": 4}})
    with (study := open_study(shown.study, 1)).store, pytest.raises(StudyError) as caught:
        _ = study.prepared
    assert "needs pycocoevalcap and peft; install with: pip install 'djsb[vlm]'" in str(caught.value)


def test_a_benchmark_whose_image_is_missing_stops_before_training(shown: Tiny) -> None:
    (shown.root / "data" / "mme" / "color" / "0002.png").unlink()
    with (study := open_study(shown.study, 1)).store, pytest.raises(DataError, match=r"color\.txt, line 5: the image"):
        _ = study.prepared


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({**VLM, "evaluation": {**VLM["evaluation"], "benchmarks": {"gqa": "x"}}}, "gqa is unknown"),
        ({**VLM, "evaluation": {"path": None, "label": None, "benchmarks": {}}}, "needs evaluation.benchmarks"),
        ({**VLM, "vlm": {"vision": "x"}}, "go together"),
        ({"vlm": {"trains": "all"}}, "does not use vlm"),
    ],
)
def test_what_a_study_lacks_is_said(shown: Tiny, change: Row, told: str) -> None:
    import yaml

    shown.set(change)
    raw = yaml.safe_load((shown.study / "study.yaml").read_text())
    with pytest.raises(StudyError, match=told):
        fitting_study(raw)


@pytest.mark.long
@pytest.mark.parametrize("task", [VLM, {**CAPTION, "lora": {"rank": 4}}], ids=["vlm", "caption"])
def test_killed_and_resumed_it_ends_alike(shown: Tiny, task: Row) -> None:
    ends_alike(shown, task)


def test_an_image_is_kept_once_however_many_turns_ask_for_it(shown: Tiny) -> None:
    """In one array and in packs, with the same results."""
    file = shown.root / "data" / "instructions.jsonl"
    told = [json.loads(line) for line in file.read_text().splitlines()]
    write_jsonl(file, [{**row, "question": f"{row['question']} {n}"} for row in told for n in range(3)])
    study, scores, _ = run(shown, VlmTask(), VLM)
    assert np.load(study.prepared / "instructions-images.npy").shape == (24, 32, 32, 3)
    assert np.load(study.prepared / "instructions-places.npy").tolist() == [n // 3 for n in range(72)]
    shutil.rmtree(shown.study / ".djsb")
    other, same, _ = run(shown, VlmTask(), {**VLM, "cache": {"form": "exact"}})
    assert same == scores and other.root == study.root
    packs = {file.parent.name: file.stat().st_size for file in other.state.rglob("*.pack")}
    assert len(packs) == 2 and sum(packs.values()) > 0
    assert (other.prepared / "instructions-images.json").exists() and (other.prepared / "train-images.json").exists()


@pytest.mark.parametrize("form", ["raw", "exact"])
def test_images_of_instructions_may_lie_in_shards_or_rows(shown: Tiny, form: str) -> None:
    """With the results that the same images have as files."""
    lines = shown.root / "data" / "instructions.jsonl"
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    content = [(lines.parent / row["image"]).read_bytes() for row in told]
    rows = [{**row, "image": {"bytes": one, "path": None}} for row, one in zip(told, content, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), lines.parent / "told.parquet", row_group_size=7)
    with tarfile.open(lines.parent / "told.tar", "w") as archive:
        for number, (row, one) in enumerate(zip(told, content, strict=True)):
            for name, part in (("png", one), ("json", json.dumps(row).encode())):
                info = tarfile.TarInfo(f"{number:03d}.{name}")
                info.size = len(part)
                archive.addfile(info, io.BytesIO(part))
    pixels = []
    for name in ("instructions.jsonl", "told.parquet", "told.tar"):
        change = {"vlm": {**VLM["vlm"], "instructions": f"../data/{name}"}, "cache": {"form": form}}
        shown.set(merged(VLM, change))
        with (opened := open_study(shown.study, 1)).store:
            media = open_media(opened.prepared, "instructions-images")
            places = np.load(opened.prepared / "instructions-places.npy")
            pixels.append(media[places])
    assert np.array_equal(pixels[0], pixels[1]) and np.array_equal(pixels[0], pixels[2]) and pixels[0].any()
