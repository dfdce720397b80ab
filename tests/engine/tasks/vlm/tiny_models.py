"""Tiny checkpoints of the right architecture, with random weights, a tokenizer and their own processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedTokenizerFast

from engine.tasks.shared.tokens import byte_level_bpe
from engine.tasks.vlm.chat import still
from engine.tasks.vlm.families import FAMILIES

WORDS = "red green blue a photo of the which colour is it yes no A B Provide one sentence caption image".split()  # noqa: SIM905
LAYERS: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
TOKENS = {
    "llava": {"image_token": "<image>"},
    "qwen": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_start_token": "<|vision_start|>",
             "vision_end_token": "<|vision_end|>"},
    "internvl": {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
                 "video_token": "<video>"},
    "smolvlm": {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
                "global_image_token": "<global-img>", "end_of_utterance_token": "<end_of_utterance>"},
}  # fmt: skip
# with and without generation spans, as released templates are
TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPANS = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{{ '\n' }}{% elif m['role'] == 'assistant' %}"
    "{% generation %}{{ c['text'] + ' ' }}{% endgeneration %}{% else %}{{ c['text'] + ' ' }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def make_tokenizer(family: str, template: str | None) -> Any:
    """A byte-level BPE that knows the family's marks."""
    kind = "qwen" if family.startswith("qwen") else "llava" if family.startswith(("llava", "pali")) else family
    own = TOKENS[kind]
    rows = [f"<row_{i}_col_{j}>" for i in (1, 2) for j in (1, 2)] if family == "smolvlm" else []
    special = ["<pad>", "<bos>", "<unk>", "<|im_end|>", "<|im_start|>", *own.values(), *rows]
    made: Any = PreTrainedTokenizerFast
    return made(
        tokenizer_object=byte_level_bpe(iter(WORDS * 3), 420, special, lower=False), pad_token="<pad>",
        bos_token="<bos>", eos_token="<|im_end|>", unk_token="<unk>", extra_special_tokens=own, chat_template=template,
    )  # fmt: skip


def _text(family: str, tokenizer: Any) -> dict[str, Any]:
    kind = {"paligemma": "gemma", "llava": "llama", "llava_next": "mistral", "smolvlm": "llama"}.get(family, "qwen2")
    more = {"head_dim": 16} if family in ("paligemma", "qwen3_vl") else {}
    return {
        "model_type": kind, **LAYERS, "num_key_value_heads": 1, "vocab_size": len(tokenizer), **more,
        "max_position_embeddings": 4096, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3,
    }  # fmt: skip


def _clip(tower: str = "clip_vision_model") -> dict[str, Any]:
    return {"model_type": tower, **LAYERS, "image_size": 32, "patch_size": 8}


def make_family(family: str, folder: Path, language: str | None = None) -> Path:
    """Write the checkpoint of a family into the folder. language: in place of its usual language model."""
    template = None if family == "paligemma" else SPANS if family == "llava" else TURNS
    marks = {"internvl": "<IMG_CONTEXT>", "smolvlm": "<image>"}
    mark = "<|vision_start|><|image_pad|><|vision_end|>" if family.startswith("qwen") else marks.get(family, "<image>")
    template = template.replace("IMAGE", mark) if template else None
    tokenizer = make_tokenizer(family, template)
    config, image, options = PARTS[family](tokenizer)
    if language:
        text = {**_text(family, tokenizer), "model_type": language}
        config = type(config)(**{**config.to_dict(), "text_config": text, "tie_word_embeddings": False})
    torch.manual_seed(0)
    model = getattr(hf, FAMILIES[family].model)(config)
    model.generation_config.eos_token_id = 3
    model.save_pretrained(folder)
    kind = getattr(hf, FAMILIES[family].processor)
    videos = {"video_processor": None} if "video_processor" in kind.get_attributes() else {}
    made = still(kind)(image_processor=image, tokenizer=tokenizer, chat_template=template, **videos, **options)
    made.save_pretrained(folder)
    return folder


def _llava(tokenizer: Any) -> Any:
    text = _text("llava", tokenizer)
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = hf.LlavaConfig(
        vision_config=_clip(), text_config=text, image_token_index=image, image_seq_length=16, vision_feature_layer=-1
    )
    pixels = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return (
        config,
        pixels,
        {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    )


def _llava_next(tokenizer: Any) -> Any:
    text, image = _text("llava_next", tokenizer), tokenizer.convert_tokens_to_ids("<image>")
    grid = [[32, 64], [64, 32], [64, 64]]
    config = hf.LlavaNextConfig(
        vision_config=_clip(), text_config=text, image_token_index=image, image_grid_pinpoints=grid,
        image_seq_length=16, vision_feature_layer=-1,
    )  # fmt: skip
    pixels = hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=grid
    )
    return (
        config,
        pixels,
        {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    )


def _onevision(tokenizer: Any) -> Any:
    text, image = _text("llava_onevision", tokenizer), tokenizer.convert_tokens_to_ids("<image>")
    grid = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = hf.LlavaOnevisionConfig(
        vision_config=_clip("siglip_vision_model"), text_config=text, image_token_index=image,
        image_grid_pinpoints=grid, vision_feature_select_strategy="full", vision_feature_layer=-1,
    )  # fmt: skip
    pixels = hf.LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=grid)
    return config, pixels, {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}


def _internvl(tokenizer: Any) -> Any:
    config = hf.InternVLConfig(
        vision_config={**LAYERS, "image_size": 32, "patch_size": 8}, text_config=_text("internvl", tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4,
    )  # fmt: skip
    pixels = hf.GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=4)
    return config, pixels, {"image_seq_length": 4}


def _qwen(family: str) -> Any:
    def make(tokenizer: Any) -> Any:
        text = _text(family, tokenizer)
        ids = {f"{n}_token_id": tokenizer.convert_tokens_to_ids(f"<|{n}_pad|>") for n in ("image", "video")}
        ids |= {f"vision_{n}_token_id": tokenizer.convert_tokens_to_ids(f"<|vision_{n}|>") for n in ("start", "end")}
        rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
        seen: dict[str, Any] = {
            "depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 32,
            "patch_size": 8,
        }  # fmt: skip
        if family == "qwen2_5_vl":
            text |= {"model_type": "qwen2_5_vl_text", "rope_parameters": rope}
            seen |= {"fullatt_block_indexes": [0], "window_size": 32}
            config = hf.Qwen2_5_VLConfig(vision_config=seen, text_config=text, **ids)
        else:
            text |= {"model_type": "qwen3_vl_text", "rope_parameters": {**rope, "mrope_interleaved": True}}
            seen |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
            config = hf.Qwen3VLConfig(vision_config=seen, text_config=text, **ids)
        pixels = hf.Qwen2VLImageProcessorPil(
            patch_size=8, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
        )
        return config, pixels, {}

    return make


def _smolvlm(tokenizer: Any) -> Any:
    config = hf.SmolVLMConfig(
        vision_config={**LAYERS, "image_size": 32, "patch_size": 8}, text_config=_text("smolvlm", tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=2, pad_token_id=0,
    )  # fmt: skip
    pixels = hf.SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return config, pixels, {"image_seq_len": 4}


def _paligemma(tokenizer: Any) -> Any:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    words = len(tokenizer) + 1024 + 128
    text = {**_text("paligemma", tokenizer), "vocab_size": words}
    config = hf.PaliGemmaConfig(
        vision_config={**_clip("siglip_vision_model"), "projection_dim": 32}, text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), projection_dim=32,
    )  # fmt: skip
    pixels = hf.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    pixels.image_seq_length = 16
    return config, pixels, {}


PARTS: dict[str, Any] = {
    "llava": _llava, "llava_next": _llava_next, "llava_onevision": _onevision, "internvl": _internvl,
    "qwen2_5_vl": _qwen("qwen2_5_vl"), "qwen3_vl": _qwen("qwen3_vl"), "smolvlm": _smolvlm, "paligemma": _paligemma,
}  # fmt: skip
