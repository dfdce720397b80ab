"""Mini-Gemini: each token looks into its own patch of the large picture; towers and language model are joined to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModel, ConvNextConfig, ConvNextModel, LlamaConfig, LlamaForCausalLM

from engine.base.errors import StudyError
from engine.tasks.registry import fitting_study
from engine.tasks.vlm.mini_gemini import MiniGeminiForConditionalGeneration, PatchMining
from engine.tasks.vlm.task import VlmTask
from tests.conftest import Tiny, merged
from tests.engine.tasks.vlm.test_task import VLM, run, shown  # noqa: F401 - a fixture
from tests.engine.tasks.vlm.tiny_models import LAYERS, make_tokenizer

torch.set_num_threads(1)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, str]:
    """A CLIP tower of 2 × 2 patches, a ConvNeXt, a Llama."""
    torch.manual_seed(0)
    CLIPVisionModel(CLIPVisionConfig(**LAYERS, image_size=32, patch_size=16)).save_pretrained(tmp_path / "vision")
    ConvNextModel(ConvNextConfig(hidden_sizes=[4, 6, 8, 10], depths=[1, 1, 1, 1])).save_pretrained(
        tmp_path / "vision_high"
    )
    tokenizer = make_tokenizer("llava", None)
    LlamaForCausalLM(LlamaConfig(**LAYERS, num_key_value_heads=1, vocab_size=len(tokenizer))).save_pretrained(
        tmp_path / "language"
    )
    tokenizer.save_pretrained(tmp_path / "language")
    return {
        "vision": str(tmp_path / "vision"),
        "vision_high": str(tmp_path / "vision_high"),
        "language": str(tmp_path / "language"),
    }


def test_a_token_finds_what_lies_in_its_patch_alone() -> None:
    torch.manual_seed(0)
    mining = PatchMining(8, 6)
    tokens, cells = torch.randn(2, 4, 8), torch.randn(2, 4, 9, 6)
    before = mining(tokens, cells)
    cells[0, 1] = torch.randn(9, 6)
    changed = (mining(tokens, cells) - before).abs().sum(-1) > 1e-6
    assert changed.nonzero().tolist() == [[0, 1]]
    asked = mining.query(tokens[0, 0]) @ mining.key(cells[0, 0]).T / 8**0.5
    torch.testing.assert_close(before[0, 0], asked.softmax(-1) @ mining.value(cells[0, 0]))


@pytest.mark.long
def test_projector_and_mining_are_trained_and_read_again(
    shown: Tiny, parts: dict[str, str], tmp_path: Path,  # noqa: F811
) -> None:  # fmt: skip
    """Towers and language model stay; the checkpoint makes four tokens of a picture."""
    change = merged(VLM, {"vlm": {**VLM["vlm"], **parts, "trains": "projector", "instructions": None}})
    study, scores, losses = run(shown, VlmTask(), change, samples=32, output=str(tmp_path / "out"))
    assert losses[-1] < losses[0] and 0 <= scores["textvqa"] <= 1
    base = load_file(study.prepared / "base" / "model.safetensors")
    out = load_file(tmp_path / "out" / "model.safetensors")
    moved = {name for name in base if not torch.equal(base[name], out[name])}
    assert {name.split(".")[1] for name in moved} == {"multi_modal_projector", "mining"}
    high = load_file(tmp_path / "vision_high" / "model.safetensors")
    assert torch.equal(
        base["model.high_tower.embeddings.patch_embeddings.weight"], high["embeddings.patch_embeddings.weight"]
    )
    model: Any = MiniGeminiForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        (cells,) = model.model._cells(pixels, 2)
        assert cells.shape == (4, 64, 28)
        tokens = model.get_image_features(pixel_values=pixels).pooler_output[0]
        assert tokens.shape == (4, 32)
    again = run(shown, VlmTask(), change, init=str(tmp_path / "out"), samples=16)[2]
    assert again[0] < losses[0]


@pytest.mark.long
def test_a_mini_gemini_takes_adapters_and_pauses(
    shown: Tiny, parts: dict[str, str], tmp_path: Path,  # noqa: F811
) -> None:  # fmt: skip
    change = merged(VLM, {"vlm": {**VLM["vlm"], **parts, "trains": "projector", "instructions": None}})
    study, whole, _ = run(shown, VlmTask(), change, samples=32)
    memory = VlmTask().memory(study.study, study.prepared)
    assert memory is not None and 0 < memory["gradients"] < memory["weights"] and memory["activations"] > 10_000
    state = str(tmp_path / "state.safetensors")
    run(shown, VlmTask(), change, samples=16, horizon=32, pause=state)
    assert run(shown, VlmTask(), change, samples=32, resume=state)[1] == whole
    lora = merged(change, {"lora": {"rank": 4}, "train": {"learning_rate": 0.01}})
    scores, losses = run(shown, VlmTask(), lora, samples=32, output=str(tmp_path / "out"))[1:]
    assert losses[-1] < losses[0] and 0 <= scores["textvqa"] <= 1
    adapters = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert adapters and all("language_model" in name for name in adapters)


def test_what_a_mini_gemini_lacks_is_said(shown: Tiny, parts: dict[str, str]) -> None:  # noqa: F811
    import yaml

    shown.set(merged(VLM, {"vlm": {"vision_high": parts["vision_high"]}}))
    raw = yaml.safe_load((shown.study / "study.yaml").read_text())
    with pytest.raises(StudyError, match="vision_high goes with"):
        fitting_study(raw)
