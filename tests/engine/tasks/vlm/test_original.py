"""Checkpoints in their authors' layout become ones of transformers, tensor by tensor, with the same outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    InternVLForConditionalGeneration,
    LlavaForConditionalGeneration,
)

from engine.base.errors import StudyError
from engine.tasks.shared.checkpoints import read_config
from engine.tasks.shared.weights import Weights
from engine.tasks.vlm.chat import Chat, Talk
from engine.tasks.vlm.families import FAMILIES
from engine.tasks.vlm.original import convert
from tests.engine.tasks.vlm.test_families import picture
from tests.engine.tasks.vlm.tiny_models import LAYERS, make_family, make_tokenizer

Tensors = dict[str, torch.Tensor]


def as_released(source: Path, target: Path, language: str) -> Path:
    """InternVL's own layout of a tiny model: query, key and value in one tensor; InternLM2's names for one of it."""
    model = InternVLForConditionalGeneration.from_pretrained(source)
    old: Tensors = {}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in state.items():
        new = name.replace("model.vision_tower.", "vision_model.").replace("encoder.layer.", "encoder.layers.")
        new = new.replace("embeddings.cls_token", "embeddings.class_embedding")
        new = new.replace("position_embeddings", "position_embedding").replace(
            "patch_embeddings.projection", "patch_embedding"
        )
        new = new.replace("lambda_", "ls").replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        new = new.replace("attention.projection_layer", "attn.proj").replace("attention.q_norm", "attn.q_norm")
        for at, part in enumerate(("layer_norm", "linear_1", "linear_2")):
            new = new.replace(f"model.multi_modal_projector.{part}", f"mlp1.{(0, 1, 3)[at]}")
        new = new.replace("model.language_model.", "language_model.model.").replace("lm_head", "language_model.lm_head")
        if ".attention.q_proj." in new:
            parts = [state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            old[new.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
        elif ".attention.k_proj." not in new and ".attention.v_proj." not in new:
            old[new] = value
    config = model.config.to_dict()
    if language == "internlm2":
        old = _internlm(old, config["text_config"])
    target.mkdir()
    save_file(old, target / "model.safetensors", {"format": "pt"})
    seen, text = config["vision_config"], config["text_config"]
    seen |= {"image_size": 32, "patch_size": 8, "qkv_bias": seen["attention_bias"], "qk_normalization": False}
    told = {
        "model_type": "internvl_chat", "vision_config": seen, "llm_config": {**text, "model_type": language},
        "force_image_size": 32, "downsample_ratio": 0.5, "max_dynamic_patch": 4, "ps_version": "v2", "select_layer": -1,
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
    }  # fmt: skip
    (target / "config.json").write_text(json.dumps(told))
    (target / "modeling_internvl_chat.py").write_text("raise SystemExit('code of the checkpoint was run')")
    make_tokenizer("internvl", None).save_pretrained(target)
    return target


def _internlm(old: Tensors, text: dict[str, Any]) -> Tensors:
    groups, width = text["num_key_value_heads"], text["hidden_size"] // text["num_attention_heads"]
    new: Tensors = {}
    names = {"embed_tokens": "tok_embeddings", "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1",
             "mlp.down_proj": "feed_forward.w2", "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm",
             "post_attention_layernorm": "ffn_norm", "lm_head": "output"}  # fmt: skip
    for name, value in old.items():
        if not name.startswith("language_model"):
            new[name] = value
        elif ".q_proj.weight" in name:
            each = [
                old[name.replace("q_proj", p)].view(groups, -1, width, value.shape[1])
                for p in ("q_proj", "k_proj", "v_proj")
            ]
            new[name.replace("self_attn.q_proj", "attention.wqkv")] = torch.cat(each, 1).reshape(-1, value.shape[1])
        elif "k_proj" not in name and "v_proj" not in name:
            for plain, own in names.items():
                name = name.replace(plain, own)
            new[name] = value
    return new


@pytest.mark.parametrize("language", ["qwen2", "internlm2"])
def test_an_internvl_as_released_says_the_same_once_converted(tmp_path: Path, language: str) -> None:
    tiny = make_family("internvl", tmp_path / "tiny", "llama" if language == "internlm2" else None)
    source = as_released(tiny, tmp_path / "released", language)
    with pytest.raises(
        StudyError, match=r"is a internvl_chat model; this needs one of .*: djsb convert .*released TARGET"
    ):
        read_config(source, "model.checkpoint", tuple(FAMILIES))
    told = convert(source, tmp_path / "converted")
    assert told.used == told.expected == len(load_file(source / "model.safetensors"))
    weights = Weights("model.checkpoint", "transformers.InternVLForConditionalGeneration", tmp_path / "converted")
    model, found = weights.counted()
    assert found.used == found.expected
    before = InternVLForConditionalGeneration.from_pretrained(tiny).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    made = Chat.of(tmp_path / "converted").examples([Talk((("<image>which colour", "red"),))], [[picture(70, 40)]])
    with torch.inference_mode():
        model.eval()(**made)
    assert made["pixel_values"].shape[0] > 1  # tiles


def test_what_is_missing_or_left_over_is_refused_and_nothing_stands(tmp_path: Path) -> None:
    source = as_released(make_family("internvl", tmp_path / "tiny"), tmp_path / "released", "qwen2")
    file = source / "model.safetensors"
    whole = load_file(file)
    for change, told in (
        (
            {n: v for n, v in whole.items() if n != "mlp1.1.weight"},
            r"missing: model\.multi_modal_projector\.linear_1\.weight",
        ),
        ({**whole, "vision_model.extra": torch.ones(2)}, "has tensors that no InternVL.* has: vision_model.extra"),
        ({**whole, "mlp1.3.bias": torch.ones(2)}, r"mlp1\.3\.bias of .* is \(2,\), the model wants \(32,\)"),
    ):
        save_file(change, file, {"format": "pt"})
        with pytest.raises(StudyError, match=told):
            convert(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_llava_as_released_takes_its_clip_tower(tmp_path: Path) -> None:
    """Its own file may lack the tower; images are padded to a square, and a token for images is added."""
    tokenizer = make_tokenizer("llava", None)
    words = len(tokenizer)
    clip = CLIPVisionModel(CLIPVisionConfig(**LAYERS, image_size=32, patch_size=8))
    clip.save_pretrained(tmp_path / "clip")
    source = tmp_path / "released"
    tokenizer.save_pretrained(source)
    from transformers import LlamaConfig, LlamaForCausalLM

    llama = LlamaForCausalLM(LlamaConfig(**LAYERS, num_key_value_heads=1, vocab_size=words))
    old = {name: value.clone() for name, value in llama.state_dict().items()}
    for at in (0, 2):
        old |= {
            f"model.mm_projector.{at}.weight": torch.randn(32, 32),
            f"model.mm_projector.{at}.bias": torch.zeros(32),
        }
    save_file(old, source / "model.safetensors", {"format": "pt"})
    told = {
        **llama.config.to_dict(), "model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"],
        "mm_projector_type": "mlp2x_gelu", "mm_hidden_size": 32, "mm_vision_tower": "openai/clip",
        "mm_vision_select_layer": -2, "image_aspect_ratio": "pad",
    }  # fmt: skip
    (source / "config.json").write_text(json.dumps(told))
    with pytest.raises(StudyError, match="give --vision, the folder of openai/clip"):
        convert(source, tmp_path / "out")
    with pytest.raises(StudyError, match=r"in its authors' layout model; this needs .* djsb convert"):
        read_config(source, "model.checkpoint", ("llava",))
    convert(source, tmp_path / "out", tmp_path / "clip")
    model, found = Weights("x", "transformers.LlavaForConditionalGeneration", tmp_path / "out").counted()
    assert found.used == found.expected and isinstance(model, LlavaForConditionalGeneration)
    state = model.state_dict()
    assert torch.equal(state["model.multi_modal_projector.linear_2.weight"], old["model.mm_projector.2.weight"])
    name = next(n for n in state if n.endswith("patch_embedding.weight"))
    assert torch.equal(
        state[name], next(v for n, v in clip.state_dict().items() if n.endswith("patch_embedding.weight"))
    )
    chat = Chat.of(tmp_path / "out")
    assert chat.processor.image_processor.do_pad
    made = chat.examples([Talk((("<image>which colour", "red"), ("A", "B")))], [[picture(70, 40)]])
    with torch.inference_mode():
        model.eval()(**made)
