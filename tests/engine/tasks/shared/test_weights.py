"""Checkpoints of which a tensor is missing, of another shape or unreadable are refused; what is read is counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.base.errors import StudyError
from engine.tasks.shared import weights as module
from engine.tasks.shared.training_state import pause, resume
from engine.tasks.shared.weights import Weights, accounted, adapter_gaps

Tensors = dict[str, torch.Tensor]
LAYERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model: 20 tensors, its head tied to its words."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("lm") / "whole"
    LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=True, **LAYERS)).save_pretrained(folder)
    return folder


def changed(whole: Path, target: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """The model with other tensors."""
    shutil.copytree(whole, target)
    save_file(change(load_file(target / "model.safetensors")), target / "model.safetensors", {"format": "pt"})
    return target


def of(folder: Path, kind: str = "transformers.AutoModelForCausalLM", *may_miss: str) -> Weights:
    """The weights in a folder."""
    return Weights("model.checkpoint", kind, folder, may_miss)


def test_a_whole_checkpoint_is_counted(whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, found = of(whole).counted()
    assert (found.expected, found.used, found.problem) == (20, 20, None)
    assert found.line == "weights of model.checkpoint: 20 of 20 tensors; AutoModelForCausalLM"
    assert torch.equal(
        model.state_dict()["lm_head.weight"], load_file(whole / "model.safetensors")["model.embed_tokens.weight"]
    )
    more = changed(whole, tmp_path / "more", lambda t: t | {"value_head.weight": torch.ones(2)})
    assert of(more).counted()[1].note == "AutoModelForCausalLM; not of it, and not used: value_head.weight"
    assert capfd.readouterr() == ("", "")


PREFIXED = ["0 of 20 tensors", "missing: model.embed_tokens.weight", "not of it: backbone.model"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: {f"backbone.{n}": v for n, v in t.items()}, PREFIXED),
        (lambda t: {n: v for n, v in t.items() if "layers.1." not in n}, ["11 of 20", "model.layers.1.input"]),
        (lambda t: {n: v[..., :8].contiguous() for n, v in t.items()}, ["0 of 20", "of another shape: model.embed"]),
        (lambda t: {n: v for n, v in t.items() if n != "model.norm.weight"}, ["19 of 20", "missing: model.norm"]),
    ],
    ids=["prefix", "layer", "size", "one"],
)
def test_what_is_not_all_there_is_refused(
    whole: Path, tmp_path: Path, change: Callable[[Tensors], Tensors], says: list[str]
) -> None:
    with pytest.raises(StudyError) as error:
        of(changed(whole, tmp_path / "other", change)).load()
    assert all(text in str(error.value) for text in [*says, "model.checkpoint", "names LlamaForCausalLM"]), error.value


@pytest.mark.parametrize("cut", [100, 0], ids=["truncated", "emptied"])
def test_a_cut_file_is_refused_in_one_line(whole: Path, tmp_path: Path, cut: int) -> None:
    folder = changed(whole, tmp_path / "cut", lambda t: t)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] if cut else b"")
    with pytest.raises(StudyError, match=r"cannot be read as a AutoModelForCausalLM \(.*\); copy it again"):
        of(folder).load()


def test_a_pickle_is_never_opened(whole: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    folder = changed(whole, tmp_path / "pickled", lambda t: t)
    (folder / "model.safetensors").unlink()
    torch.save({"a": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(StudyError, match=r"no \*\.safetensors; save its weights as safetensors"):
        of(folder).load()
    assert not (tmp_path / "ran").exists()


def test_a_tower_of_a_whole_clip_is_told_with_what_it_leaves(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    from engine.tasks.clip.model import PRESETS, clip_config

    CLIPModel(CLIPConfig(**clip_config(PRESETS["tiny"]))).save_pretrained(tmp_path / "clip")
    found = of(tmp_path / "clip", "transformers.CLIPVisionModel").counted()[1]
    assert found.expected == found.used > 20
    assert "not used: logit_scale, text_model" in found.note
    with pytest.raises(StudyError, match=r"0 of 20 tensors|missing|cannot be read"):
        of(tmp_path / "clip").load()


def test_what_a_task_makes_itself_may_be_missing(whole: Path, tmp_path: Path) -> None:
    folder = changed(whole, tmp_path / "headless", lambda t: {n: v for n, v in t.items() if n != "model.norm.weight"})
    found = of(folder, "transformers.AutoModelForCausalLM", "model.norm").counted()[1]
    assert (found.used, found.left_out, found.problem) == (19, (("missing and not needed", 1),), None)


def test_it_is_counted_once_until_its_files_change(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = changed(whole, tmp_path / "model", lambda t: t)
    first = accounted(tmp_path, [of(folder)])
    monkeypatch.setattr(module.Weights, "counted", None)
    assert accounted(tmp_path, [of(folder)]) == first
    monkeypatch.undo()
    save_file({"a": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(StudyError, match="0 of 20 tensors"):
        accounted(tmp_path, [of(folder)])


def test_adapters_of_another_model_are_refused(whole: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(of(whole).load(), LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path)
    adapter_gaps(adapted, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    first = sorted(tensors)[0]
    save_file({("base_model.other" if n == first else n): v for n, v in tensors.items()}, file, {"format": "pt"})
    with pytest.raises(StudyError, match=r"missing: base_model.*lora_A.*; not of it: base_model.other"):
        adapter_gaps(adapted, tmp_path)


def test_a_state_of_another_model_is_not_gone_on_from(tmp_path: Path) -> None:
    def parts(**sizes: int) -> tuple[Tensors, torch.optim.Optimizer]:
        parameters: Tensors = {name: torch.nn.Parameter(torch.ones(size)) for name, size in sizes.items()}
        return parameters, torch.optim.AdamW(parameters.values())

    file = str(tmp_path / "state.safetensors")
    pause(file, 3, *parts(a=2, b=4))
    assert resume([file], *parts(a=2, b=4)) == 3
    for other in ({"a": 2}, {"a": 2, "b": 4, "c": 1}, {"a": 2, "b": 2}):
        with pytest.raises(ValueError, match="of another model"):
            resume([file], *parts(**other))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("config", r"are quantised \(bitsandbytes\); give the model as its authors trained it"),
        ("packed", r"are quantised \(I8\)"),
        ("pointer", r"model\.safetensors is a pointer of git-lfs, not weights; run `git lfs pull` there"),
        ("shard", r"1 of 2 files of .* are missing: model-2\.safetensors; copy them there"),
    ],
)
def test_what_is_no_plain_weights_is_refused_in_one_line(whole: Path, tmp_path: Path, change: str, says: str) -> None:
    folder = changed(
        whole, tmp_path / "other", lambda t: {n: v.to(torch.int8) if change == "packed" else v for n, v in t.items()}
    )
    if change == "config":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes"}})
        )
    elif change == "pointer":
        (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    elif change == "shard":
        told = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(told))
    with pytest.raises(StudyError, match=says) as caught:
        of(folder).load()
    assert "\n" not in str(caught.value)
