"""A step of a video model with latents and texts that are kept, beside one without: `make bench-t2v`.

A pipeline of a released architecture with random weights, made here, on this machine's device. The same trial (rows,
noise, seed) three times: nothing is kept; the first that keeps, which encodes; the next, which finds all. Seconds are
those of the clock on a GPU, of one core on a CPU, where others may work too.
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
STUDY = """name: bench
task: t2v
budget: 1h
dataset: {{path: train.jsonl, text: text, videos: videos, id: id}}
evaluation: {{path: test.jsonl}}
model: {{checkpoint: {checkpoint}}}
train: {{epochs: 1, batch_size: {batch}, learning_rate: 0.0001}}
video: {{frames: {frames}, stride: 1, side: {side}}}
ops: {{text_length_filter: {{}}}}
"""


def make_pipeline(folder: Path, width: int, layers: int) -> None:
    """A CogVideoX, its text encoder twice as deep as its transformer."""
    import diffusers
    import transformers

    made: Any = diffusers
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    folder.mkdir()
    (folder / "words.txt").write_text("\n".join([*words, *(f"##{w}" for w in words[5:])]))
    text = transformers.T5Config(
        d_model=width, d_ff=4 * width, d_kv=32, num_heads=width // 32, num_layers=2 * layers, vocab_size=100
    )
    made.CogVideoXPipeline(
        tokenizer=transformers.BertTokenizer(str(folder / "words.txt")),
        text_encoder=transformers.T5EncoderModel(text),
        vae=made.AutoencoderKLCogVideoX(block_out_channels=(16, 32, 32, 64), norm_num_groups=8, layers_per_block=2),
        transformer=made.CogVideoXTransformer3DModel(
            num_attention_heads=width // 32, attention_head_dim=32, num_layers=layers, text_embed_dim=width,
            sample_height=8, sample_width=8, use_rotary_positional_embeddings=True,
        ),
        scheduler=made.CogVideoXDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
    ).save_pretrained(folder)  # fmt: skip


def trial(opened: Any, steps: int, keep: bool) -> tuple[float, float, list[float]]:
    """(seconds of encoding before the training, seconds of a step, losses of every step)."""
    from engine.tasks.contract import Job, Report
    from engine.tasks.t2v.frozen import Clips
    from engine.tasks.t2v.model import build_model
    from engine.tasks.t2v.training import train

    study, losses = opened.study, []
    parts = build_model(study, opened.prepared, 0, None)
    encoded = parts.encoded(Clips(opened.prepared, "train"), keep)
    rows = np.arange(len(encoded))
    job = Job("bench", "", steps * study.train.batch_size, 0, None, "")
    clock = time.perf_counter if parts.device.type == "cuda" else time.process_time
    began = clock()
    encoded.fill(rows)
    filled = clock()
    train(parts, study, encoded, rows, job, Report(lambda kind, c: losses.append(c["values"]["loss"])))  # type: ignore[func-returns-value]
    return filled - began, (clock() - filled) / steps, losses


def main() -> None:
    """Run, print, and write on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()

    import torch

    from engine.demo.video import write_test, write_train
    from engine.study.opened import open_study

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_pipeline(folder / "pipeline", args.width, args.layers)
        write_train(folder, args.rows, 0)
        write_test(folder, 2, 0)
        (folder / "study.yaml").write_text(
            STUDY.format(checkpoint=folder / "pipeline", batch=args.batch, frames=args.frames, side=args.side)
        )
        with (opened := open_study(folder, 1)).store:
            found = {"nothing kept": trial(opened, args.steps, False)}
            found |= {name: trial(opened, args.steps, True) for name in ("kept, the first trial", "kept, later trials")}
        kept = sum(f.stat().st_size for f in (folder / ".djsb" / "cache" / "packs").rglob("*.pack")) / args.rows
    plain = found["nothing kept"]
    lines = [
        "| | encoding before, s a clip | a step, s | of the step without | loss of the last step |",
        "|---|---|---|---|---|",
    ]
    for name, (encoding, step, losses) in found.items():
        lines.append(f"| {name} | {encoding / args.rows:.3f} | {step:.3f} | {step / plain[1]:.0%} | {losses[-1]:.6f} |")
    apart = max(abs(a - b) / b for _, _, losses in found.values() for a, b in zip(losses, plain[2], strict=True))
    lines.append(
        f"\nLosses of {len(plain[2])} points differ by {apart:.1e} at most; {kept / 1e6:.2f} MB a clip are kept."
    )
    device = "the GPU's clock" if torch.cuda.is_available() else "one core"
    about = (
        f"A CogVideoX with random weights (width {args.width}, {args.layers} layers), {args.frames} frames of "
        f"{args.side} px, steps of {args.batch} clips. Seconds of {device}.\n\n"
    )
    print(body := about + "\n".join(lines))
    if args.write:
        from benchmarks.write import write_section

        write_section("t2v", "Video: latents and texts that are kept (`make bench-t2v`)", body)


if __name__ == "__main__":
    main()
