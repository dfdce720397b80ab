"""The forecast of checkpoints and training states is what is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.tasks.clip.model import PRESETS as CLIP
from engine.tasks.clip.model import clip_config
from engine.tasks.lm.model import PRESETS as LM
from engine.tasks.lm.model import llama_config
from engine.tasks.shared.kept import PRESETS, of_preset, of_shapes, shapes_in
from engine.tasks.shared.training_state import pause
from engine.tasks.t2v.model import PRESETS as T2V
from engine.tasks.t2v.model import latte_config
from engine.tasks.vlm.model import LORA_TARGETS, llava_config
from engine.tasks.vlm.model import PRESETS as VLM


def clip(name: str) -> Any:
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig(**clip_config(CLIP[name])))


def lm(name: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**llama_config(LM[name], LM[name].vocabulary, 0, 0, 0)))


def t2v(name: str) -> Any:
    import diffusers

    window, network = T2V[name]
    assert network is not None
    latte: Any = diffusers.LatteTransformer3DModel
    return latte(**latte_config(window, network))


def vlm(name: str) -> Any:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    return LlavaForConditionalGeneration(LlavaConfig(**llava_config(VLM[name])))


MAKERS: dict[str, Callable[[str], Any]] = {"clip": clip, "lm": lm, "t2v": t2v, "vlm": vlm}


def study(rank: int = 0, preset: str = "tiny") -> Any:
    return SimpleNamespace(lora=SimpleNamespace(rank=rank), model=SimpleNamespace(preset=preset))


@pytest.mark.parametrize("family", MAKERS)
def test_presets_have_as_many_weights_as_is_said(family: str) -> None:
    with torch.device("meta"):
        for name, weights in PRESETS[family].items():
            assert sum(p.numel() for p in MAKERS[family](name).parameters()) == weights, name


def test_a_checkpoint_and_a_state_are_as_large_as_forecast(tmp_path: Path) -> None:
    model = vlm("tiny")
    model.save_pretrained(tmp_path / "whole")
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    pause(str(tmp_path / "state.safetensors"), 1, dict(model.named_parameters()), optimizer)
    told = of_shapes(shapes_in(tmp_path / "whole"), study())
    assert told is not None and told == of_preset("vlm", study())
    assert (tmp_path / "whole" / "model.safetensors").stat().st_size == pytest.approx(told.checkpoint, rel=0.05)
    assert (tmp_path / "state.safetensors").stat().st_size == pytest.approx(told.state, rel=0.05)


def test_of_adapters_only_they_count(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = lm("tiny")
    model.save_pretrained(tmp_path / "whole")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=list(LORA_TARGETS)))
    adapted.save_pretrained(tmp_path / "adapters")
    told = of_shapes(shapes_in(tmp_path / "whole"), study(rank=4), targets=LORA_TARGETS)
    assert told is not None
    size = (tmp_path / "adapters" / "adapter_model.safetensors").stat().st_size
    assert size == pytest.approx(told.checkpoint, rel=0.15)
    assert of_shapes({}, study()) is None
