"""What LLaVA-1.5-7B and InternVL3-8B take of a GPU's memory: `make bench-forecast`, no GPU and no weights needed.

The models are built from their configurations on the device meta. One forward and one backward pass of a row are traced
(`engine/tasks/shared/memory.py`). Full training, as the second stage of LLaVA: projector and language model; LoRA: of
rank 16 in every layer of the language model. bf16 with fp32 weights where they are trained; AdamW.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch

from engine.tasks.shared.memory import Memory, Shell, Way, forecast, image_text
from engine.tasks.shared.procedure import Procedure

GPUS = {"24 GB": 24e9, "48 GB": 48e9, "80 GB": 85.9e9, "141 GB": 150.8e9}
ROWS = 1  # at once on each device
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def llava_7b() -> tuple[Any, int, int]:
    """(LLaVA-1.5-7B, side of its images, tokens of text): 576 tokens of the image and 1,472 of text."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    seen = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
        patch_size=14, projection_dim=768,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32064,
        max_position_embeddings=4096,
    )  # fmt: skip
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=seen, text_config=text)), 336, 1472


def internvl3_8b() -> tuple[Any, int, int]:
    """The same of InternVL3-8B: one tile of 256 tokens and 1,792 of text."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, Qwen2Config

    text = Qwen2Config(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        vocab_size=151674, max_position_embeddings=32768, tie_word_embeddings=False,
    )  # fmt: skip
    config = InternVLConfig(vision_config=InternVLVisionConfig(), text_config=text)
    return InternVLForConditionalGeneration(config), 448, 1792


MODELS = {"LLaVA-1.5-7B": llava_7b, "InternVL3-8B": internvl3_8b}


def shell(name: str, lora: bool) -> Shell:
    """A model without weights, of which the language model and the projector are trained, or adapters."""
    with torch.device("meta"):
        model, side, text = MODELS[name]()
        if lora:
            from peft import LoraConfig, get_peft_model

            targets = r".*language_model.*\.(" + "|".join(TARGETS) + ")"
            model = get_peft_model(model, LoraConfig(r=16, target_modules=targets))
        else:
            for part, parameter in model.named_parameters():
                parameter.requires_grad_("vision_tower" not in part)
    return image_text(model, side, text, ROWS, lora)


def forecasts(name: str, devices: tuple[int, ...] = (1, 2, 4, 8)) -> list[tuple[str, bool, int, Memory]]:
    """(what is trained, checkpointing, devices, bytes on each)."""
    found = []
    for what in ("full", "LoRA"):
        made = shell(name, what == "LoRA")
        for checkpointing in (False, True):
            procedure = Procedure("bf16", "bf16", checkpointing=checkpointing)
            found += [(what, checkpointing, n, forecast(made, Way(ROWS, procedure, n))) for n in devices]
    return found


def main() -> None:
    """Print the table, and write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    began = time.perf_counter()
    lines = [
        "| model | trained | checkpointing | devices | weights | gradients | moments | activations | gathered | in all "
        "| fits |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in MODELS:
        for what, checkpointing, devices, memory in forecasts(name):
            parts = (memory.weights, memory.gradients, memory.moments, memory.activations, memory.gathered)
            fits = next((gpu for gpu, size in GPUS.items() if memory.fits(int(size))), "none of these")
            cells = " | ".join(f"{part / 1e9:.1f}" for part in (*parts, memory.total))
            kept = "on" if checkpointing else "off"
            lines.append(f"| {name} | {what} | {kept} | {devices} | {cells} | {fits} |")
            print(lines[-1], flush=True)
    if args.write:
        from benchmarks.write import write_section

        body = (
            "GB (10⁹ bytes) on each device for one sequence of 2,048 tokens at once, bf16, trained weights in fp32, "
            "AdamW; several devices by FSDP2. Nothing of it is measured on a GPU: weights, gradients and moments are "
            "counted, activations traced. `fits`: the smallest GPU of which it takes at most 90 %.\n\n"
        )
        write_section("forecast", "Memory of large models, forecast (`make bench-forecast`)", body + "\n".join(lines))
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
