"""What a step of consistency distillation takes, beside one of the denoising loss: `make bench-distillation`.

A pipeline of ModelScope's architecture with random weights, and a CLIP that rewards, made here, on this machine's
device. The same rows by the denoising loss and by each way of distilling; seconds are those of the clock on a GPU, of
one core on a CPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
STUDY: dict[str, Any] = {
    "name": "bench", "task": "t2v", "budget": "1h", "ops": {"text_length_filter": {}},
    "dataset": {"path": "train.jsonl", "text": "text", "videos": "videos", "id": "id"},
    "evaluation": {"path": "test.jsonl"}, "model": {"checkpoint": "pipeline"},
}  # fmt: skip
WAYS: dict[str, dict[str, Any] | None] = {
    "denoising": None,
    "L_CD": {"image_weight": 0, "video_weight": 0},
    "L_CD, L_real": {"image_weight": 0, "video_weight": 0, "real_weight": 0.5, "consistency_weight": 0.5},
    "L_CD, L_real, R_img, R_vid": {"real_weight": 0.5, "consistency_weight": 0.5},
}


def make_models(folder: Path, width: int, side: int) -> None:
    """A pipeline with a UNet of two levels, and a CLIP."""
    import diffusers
    import transformers

    made: Any = diffusers
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "words.txt").write_text("\n".join([*words, *(f"##{w}" for w in words[5:])]))
    layers = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**layers, "vocab_size": 100, "max_position_embeddings": 32, "eos_token_id": 3}
    tokenizer: Any = transformers.BertTokenizer(str(folder / "words.txt"), model_max_length=32)
    made.TextToVideoSDPipeline(
        tokenizer=tokenizer, text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**text)),
        vae=made.AutoencoderKL(
            block_out_channels=(16, 32, 32), down_block_types=("DownEncoderBlock2D",) * 3, norm_num_groups=8,
            up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=4, layers_per_block=1,
        ),
        unet=made.UNet3DConditionModel(
            block_out_channels=(width, 2 * width), down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), layers_per_block=1, norm_num_groups=8,
            cross_attention_dim=64, attention_head_dim=8,
        ),
        scheduler=made.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
        ),
    ).save_pretrained(folder / "pipeline")  # fmt: skip
    seen = {**layers, "image_size": side, "patch_size": 8}
    transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=seen, projection_dim=32)
    ).save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")


def trial(folder: Path, way: dict[str, Any] | None, args: argparse.Namespace) -> float:
    """Seconds of a step; a first training has loaded what rewards."""
    import yaml

    from engine.study.opened import open_study
    from engine.tasks.contract import SILENT, Job
    from engine.tasks.t2v.distillation import train_rows
    from engine.tasks.t2v.frozen import Clips
    from engine.tasks.t2v.model import build_model

    raw = {
        **STUDY, "lora": {"rank": 64, "alpha": 64},
        "train": {"epochs": 1, "batch_size": args.batch, "learning_rate": 0.001, "weight_decay": 0},
        "video": {
            "frames": args.frames, "stride": 1, "side": args.side, "drop_text": 0, "steps": 4,
            **({"objective": "distillation"} if way else {}),
        },
    }  # fmt: skip
    if way:
        raw["distill"] = {"image_model": "clip", "video_model": "clip", **way}
    (folder / "study.yaml").write_text(yaml.safe_dump(raw))
    with (opened := open_study(folder, 1)).store:
        study, prepared, rows = opened.study, opened.prepared, np.arange(args.rows)
        parts = build_model(study, prepared, 0, None)
        encoded = parts.encoded(Clips(prepared, "train"))
        encoded.fill(rows)
        job = Job("bench", "", args.steps * args.batch, 0, None, "")
        clock = time.perf_counter if parts.device.type == "cuda" else time.process_time
        train_rows(parts, study, prepared, rows, job, SILENT)
        began = clock()
        train_rows(parts, study, prepared, rows, job, SILENT)
        return (clock() - began) / args.steps


def main() -> None:
    """Run, print, and write on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()

    import torch

    from engine.demo.video import write_test, write_train

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_models(folder, args.width, args.side)
        write_train(folder, args.rows, 0)
        write_test(folder, 2, 0)
        found = {name: trial(folder, way, args) for name, way in WAYS.items()}
    plain = found["denoising"]
    lines = ["| what is trained | a step, s | of the denoising |", "|---|---|---|"]
    lines += [f"| {name} | {step:.2f} | {step / plain:.1f} × |" for name, step in found.items()]
    device = "the GPU's clock" if torch.cuda.is_available() else "one core"
    about = (
        f"ModelScope's UNet with random weights (widths {args.width}, {2 * args.width}), LoRA of rank 64, "
        f"{args.frames} frames of {args.side} px, {args.steps} steps of {args.batch} clips. Seconds of {device}.\n\n"
    )
    print(body := about + "\n".join(lines))
    if args.write:
        from benchmarks.write import write_section

        write_section("distillation", "Video: consistency distillation with rewards (`make bench-distillation`)", body)


if __name__ == "__main__":
    main()
