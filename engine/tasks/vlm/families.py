"""The image–text models of `transformers` that djsb trains, and what their parts are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Family:
    """model, processor: classes of `transformers`; no processor for a model of our own.

    projector, language: words in the names of those parts' weights. chats: the model takes conversations by a chat
    template; else one question and its answer.
    """

    model: str
    processor: str
    projector: tuple[str, ...] = ("multi_modal_projector",)
    language: tuple[str, ...] = ("language_model", "lm_head")
    chats: bool = True


_NEWLINE = ("multi_modal_projector", "image_newline")
_MERGERS = ("visual.merger", "visual.deepstack_merger")
FAMILIES = {
    "llava": Family("LlavaForConditionalGeneration", "LlavaProcessor"),
    "llava_next": Family("LlavaNextForConditionalGeneration", "LlavaNextProcessor", _NEWLINE),
    "llava_onevision": Family("LlavaOnevisionForConditionalGeneration", "LlavaOnevisionProcessor", _NEWLINE),
    "internvl": Family("InternVLForConditionalGeneration", "InternVLProcessor"),
    "qwen2_5_vl": Family("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor", _MERGERS),
    "qwen3_vl": Family("Qwen3VLForConditionalGeneration", "Qwen3VLProcessor", _MERGERS),
    "smolvlm": Family("SmolVLMForConditionalGeneration", "SmolVLMProcessor", ("connector",), ("text_model", "lm_head")),
    "paligemma": Family("PaliGemmaForConditionalGeneration", "PaliGemmaProcessor", chats=False),
    "mini_gemini": Family("MiniGeminiForConditionalGeneration", "", ("multi_modal_projector", "mining")),
}  # fmt: skip


STRIDE = 32  # pixels of a cell of the last stage of a ConvNeXt
OWN = f"{__package__}.mini_gemini"  # where the models are that transformers lacks


def class_of(family: Family) -> str:
    """The model's class, with its module."""
    return f"{'transformers' if family.processor else OWN}.{family.model}"


def family_of(config: dict[str, Any]) -> Family:
    """That of a config.json whose kind was checked."""
    return FAMILIES[config["model_type"]]


def has_processor(folder: Path) -> bool:
    """True where a checkpoint brings the program that makes its model's pixels and tokens."""
    return any((folder / name).is_file() for name in PROCESSOR_FILES)


def high_side(low: int, patch: int) -> int:
    """Pixels of a Mini-Gemini's large picture's side: a cell of the ConvNeXt's last stage for each patch of CLIP."""
    return low // patch * STRIDE
