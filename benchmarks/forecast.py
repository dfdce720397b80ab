"""What LLaVA-1.5-7B and InternVL3-8B take of a GPU's memory: `make bench-forecast`, no GPU and no weights needed.

Then a tiny model of every family: its forecast without weights beside what a training of it allocates on this CPU.

The models are built from their configurations on the device meta. One forward and one backward pass of a row are traced
(`engine/tasks/shared/memory.py`). Full training, as the second stage of LLaVA: projector and language model; LoRA: of
rank 16 in every layer of the language model. bf16 with fp32 weights where they are trained; AdamW.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch

from engine.tasks.shared.memory import Memory, Shell, Way, activations, forecast, image_text
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


def image_text_family(name: str, folder: Path) -> tuple[Shell, Any]:
    """(a tiny one without weights, the same with weights), on a picture of 100 × 70 pixels and its caption."""
    import numpy as np
    from PIL import Image

    from engine.tasks.shared.memory import without_weights
    from engine.tasks.shared.tracing import computed
    from engine.tasks.shared.weights import Weights
    from engine.tasks.vlm.chat import Chat, Talk
    from engine.tasks.vlm.families import FAMILIES
    from engine.tasks.vlm.native import part_losses
    from tests.engine.tasks.vlm.tiny_models import make_family

    chat = Chat.of(make_family(name, folder))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 100, 3), np.uint8))
    talk = Talk((("<image>which colour", "red photo of it"),))

    @lru_cache  # rows are made by another thread in a training, and their making is none of its memory
    def part(rows: int) -> Any:
        with computed():
            return chat.examples([talk] * rows, [[picture]] * rows)

    def loss(like: Any, rows: int) -> torch.Tensor:
        return part_losses(like, part(rows))[0].sum()

    weights = Weights(name, f"transformers.{FAMILIES[name].model}", folder)
    return Shell(without_weights(weights), loss, 4), weights.load()


def video_family(name: str, folder: Path) -> tuple[Shell, Any]:
    """The same of a pipeline's transformer, on a clip of 6 frames of 16 pixels (32 where it takes no less)."""
    from engine.settings.study import Study
    from engine.tasks.t2v.model import weights_of
    from engine.tasks.t2v.shell import shell as without_weights
    from tests.engine.tasks.t2v.pipelines import PIPELINES

    study = Study.model_validate({
        "name": "x", "task": "t2v", "dataset": {"path": "x"}, "ops": {}, "train": {"batch_size": 4},
        "model": {"preset": "tiny", "checkpoint": str(PIPELINES[name](folder))},
        "video": {"side": 32 if name == "ltx" else 16},
    })  # fmt: skip
    made = without_weights(study, folder / ".djsb" / "cache" / "x")
    assert made is not None
    return made, weights_of(folder)[0].load()


def allocated(work: Callable[[], Any]) -> int:
    """Bytes at most that torch has allocated on this CPU during it, and not freed, beyond those before."""
    from torch.profiler import profile

    with profile(profile_memory=True) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    return int(max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))))


def beside(made: Shell, model: Any, rows: int) -> tuple[int, int]:
    """(activations as they are forecast, as they are measured) of so many rows at once; gradients aside."""

    def forget(parameter: torch.Tensor) -> None:
        parameter.grad = None

    for parameter in model.train().parameters():
        parameter.requires_grad_().register_post_accumulate_grad_hook(forget)

    def step() -> None:
        made.loss(model, rows).backward()  # type: ignore[no-untyped-call]

    step()
    return activations(made, rows, Procedure()), allocated(step)


FAMILIES = {
    **dict.fromkeys(
        ("llava", "llava_next", "llava_onevision", "internvl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "paligemma"),
        image_text_family,
    ),
    **dict.fromkeys(
        ("latte", "easyanimate", "cogvideox", "cogvideox-1.5", "wan-2.1", "wan-2.2", "ltx", "hunyuan"), video_family
    ),
}


def of_families() -> str:
    """The table of tiny models."""
    lines = ["| family | rows | forecast, kB | measured, kB | forecast of measured |", "|---|---|---|---|---|"]
    for name, make in FAMILIES.items():
        with tempfile.TemporaryDirectory() as scratch:
            told, found = beside(*make(name, Path(scratch) / "model"), 4)
        lines.append(f"| {name} | 4 | {told / 1e3:,.0f} | {found / 1e3:,.0f} | {told / found:.0%} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    """Print the tables, and write them on request."""
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
    tiny = of_families()
    if args.write:
        from benchmarks.write import write_section

        body = (
            "GB (10⁹ bytes) on each device for one sequence of 2,048 tokens at once, bf16, trained weights in fp32, "
            "AdamW; several devices by FSDP2. Nothing of it is measured on a GPU: weights, gradients and moments are "
            "counted, activations traced. `fits`: the smallest GPU of which it takes at most 90 %.\n\n"
        )
        held = (
            "\n\nActivations of a tiny model of each family (random weights, fp32), forecast without weights, and what "
            "torch's CPU allocator held at most in a forward and a backward pass, by its profiler.\n\n"
        )
        body += "\n".join(lines) + held + tiny
        write_section("forecast", "Memory of large models, forecast (`make bench-forecast`)", body)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
