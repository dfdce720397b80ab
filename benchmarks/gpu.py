"""What is true on a GPU, in at most eight minutes: `make bench-gpu`; `python benchmarks/gpu.py --quick` on a CPU.

Every task's tiny and real preset for a few steps; pause and resume; packed beside serial; memory that runs out; two
trials on one device; idle time between trials; model FLOPs utilisation of large models with random weights, with the
memory that was forecast beside what they took. A section that fails is reported, the others go on, and the exit code
says so. Raw figures go to a JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch

from app.commands.init import write_demo
from benchmarks.pack import run as run_on_workers
from engine.settings.study import Study
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import SILENT, Job, Packing
from engine.tasks.shared.fitting import fit_memory
from engine.tasks.shared.memory import Shell, Way, forecast, language
from engine.tasks.shared.procedure import autocast, begin, make_optimizer, procedure_of, settle

STEPS = 6  # of a short trial
REAL = {"clip": "vit-b-32", "lm": "smol-135m", "vlm": "small", "caption": "small", "t2v": "small"}
Figures = dict[str, Any]


@dataclass
class Bench:
    """What the sections share. until: when it must end, by `time.monotonic`."""

    device: torch.device
    quick: bool
    until: float
    folder: Path
    opened: dict[str, OpenStudy] = field(default_factory=dict)
    peak: float = 0.0

    def study(self, task: str, preset: str = "tiny") -> OpenStudy:
        """A demo, prepared once."""
        key = f"{task}-{preset}"
        if key not in self.opened:
            batch = 16 if self.quick or preset == "tiny" else 8 if task in ("lm", "t2v") else 32
            change = {"model": {"preset": preset}, "train": {"batch_size": batch, "epochs": 1, "learning_rate": 1e-3}}
            self.opened[key] = open_study(write_demo(self.folder / key, task, change), len(os.sched_getaffinity(0)))
        return self.opened[key]

    def job(self, opened: OpenStudy, name: str, steps: int = STEPS, **more: Any) -> Job:
        """A trial of so many steps on the first good rows."""
        rows = self.folder / f"{name}.npy"
        np.save(rows, np.flatnonzero(opened.scanned.good)[:256].astype(np.int64))
        samples = steps * opened.study.train.batch_size
        if opened.study.task == "lm":
            from engine.tasks.lm.task import sample

            samples = int(steps * sample(opened.study, opened.prepared)[1]) + 1
        return Job(name, str(rows), samples, 0, None, **{"output": "", **more})

    def run(self, opened: OpenStudy, job: Job) -> dict[str, float]:
        """Its metrics."""
        return opened.task.run(opened.study, opened.prepared, job, SILENT)[job.trial]


@contextmanager
def measured(device: torch.device, into: Figures) -> Iterator[None]:
    """Seconds, and on a GPU the most memory and the median utilisation, by nvidia-smi ten times a second."""
    used: list[float] = []
    ended = threading.Event()

    def look() -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0"]
        while not ended.wait(0.1):
            told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
            used.extend([float(told)] if told.isdigit() else [])

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        threading.Thread(target=look, daemon=True).start()
    began = time.perf_counter()
    yield
    into["seconds"] = round(time.perf_counter() - began, 3)
    ended.set()
    if device.type == "cuda":
        torch.cuda.synchronize()
        into["memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        into["utilisation_percent"] = statistics.median(used) if used else None


def timed(device: torch.device, work: Callable[[], Any], times: int) -> float:
    """Median seconds of a call, after two."""
    found = []
    for number in range(times + 2):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number > 1:
            found.append(time.perf_counter() - began)
    return statistics.median(found)


def product(bench: Bench) -> Figures:
    """The rate of a matrix product, which utilisation is a share of."""
    on_gpu = bench.device.type == "cuda"
    side, kind = (8192, torch.bfloat16) if on_gpu else (512, torch.float32)
    a = torch.randn(side, side, device=bench.device, dtype=kind)
    bench.peak = 2 * side**3 / timed(bench.device, lambda: a @ a, 10)
    return {"side": side, "type": str(kind), "teraflops": round(bench.peak / 1e12, 3)}


def trial(task: str, preset: str) -> Callable[[Bench], Figures]:
    """A short trial, evaluation included."""

    def section(bench: Bench) -> Figures:
        opened, found = bench.study(task, preset), Figures()
        with measured(bench.device, found):
            scores = bench.run(opened, bench.job(opened, f"{task}-{preset}"))
        if not scores or not all(np.isfinite(list(scores.values()))):
            raise ValueError(f"metrics that are no numbers: {scores}")
        return found

    return section


def pausing(task: str) -> Callable[[Bench], Figures]:
    """A trial in one go, again, and in two parts: how far their metrics and weights are from each other."""

    def section(bench: Bench) -> Figures:
        opened = bench.study(task)
        whole = bench.job(opened, f"{task}-whole", STEPS, output=str(bench.folder / f"{task}-whole"))
        half = bench.job(opened, f"{task}-half", STEPS // 2)
        state = str(bench.folder / f"{task}-state")
        first, again = bench.run(opened, whole), bench.run(opened, replace(whole, output=""))
        bench.run(opened, replace(half, horizon=whole.samples, pause=state))
        rest = bench.run(opened, replace(whole, resume=state, output=""))
        found = {"again": distance(first, again), "resumed": distance(first, rest)}
        if found["resumed"] > found["again"] + 1e-6:
            raise ValueError(f"a resumed trial differs from a whole one: {found}")
        return found

    return section


def distance(a: dict[str, float], b: dict[str, float]) -> float:
    """Largest relative difference of a metric."""
    return max(abs(a[name] - b[name]) / max(abs(a[name]), 1e-9) for name in a)


def packed(bench: Bench) -> Figures:
    """Four trials as a pack, and each alone: time and the largest difference of a metric."""
    opened, found = bench.study("clip"), Figures()
    task = opened.task
    assert isinstance(task, Packing)
    jobs = [replace(bench.job(opened, f"member-{seed}"), seed=seed) for seed in range(4)]
    alone, together = Figures(), Figures()
    begin(opened.study)
    with measured(bench.device, together):
        pack = task.pack(opened.study, opened.prepared, jobs, SILENT)
    with measured(bench.device, alone):
        serial = {job.trial: bench.run(opened, job) for job in jobs}
    found |= {"packed": together, "serial": alone}
    found["difference"] = max(distance(serial[name], pack[name]) for name in serial)
    return found


def out_of_memory(bench: Bench) -> Figures:
    """Rows at once are fitted where memory runs out; on a CPU it is played."""
    study = Study.model_validate({"name": "x", "dataset": {"path": "x"}, "ops": {}, "train": {"batch_size": 256}})
    tried: list[tuple[int, str]] = []
    take = torch.cuda.mem_get_info()[1] // 60 if bench.device.type == "cuda" else 0

    def attempt(candidate: Study) -> bool:
        rows = candidate.train.micro_batch or 0
        tried.append((rows, candidate.train.activation_checkpointing))
        if take:
            torch.cuda.empty_cache()
            held = torch.empty(rows * take, dtype=torch.uint8, device=bench.device)  # a sixtieth of it for each row
            del held
        elif rows > 16:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (played)")
        return True

    found = fit_memory(study, 256, attempt, lambda: "")
    if not found.train.micro_batch or found.train.micro_batch >= 256:
        raise ValueError("memory did not run out")
    return {"tried": tried, "rows": found.train.micro_batch}


def two_on_one(bench: Bench) -> Figures:
    """Trials by one worker of the device and by two: trials an hour, and what a worker does between trials."""
    opened = bench.study("lm")
    name, number = ("gpu0" if bench.device.type == "cuda" else "cpu0"), 2 if bench.quick else 8
    jobs = [replace(bench.job(opened, f"worker-{n}"), micro_batch=opened.study.train.batch_size) for n in range(number)]
    own = timed(bench.device, lambda: bench.run(opened, replace(jobs[0], trial="own")), 1)
    found: Figures = {"trial_seconds": round(own, 3)}
    for workers in (1, 2):
        made = run_on_workers(opened, [name] * workers, [[job] for job in jobs], fresh=False)
        found[f"{workers}_workers_trials_an_hour"] = round(3600 * number / made.after_start)
        if workers == 1:
            found["between_trials_seconds"] = round(made.after_start / number - own, 3)
    return found


def training(bench: Bench, shell: Shell, build: Callable[[], Any], study: Study, rows: int) -> Figures:
    """Steps of a model with random weights: its share of the matrix product's rate, and its memory."""
    begin(study)
    model = build()
    settle(model, study)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(study, trained, bench.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.device(bench.device), autocast(bench.device, keep=False):
            loss = shell.loss(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    found: Figures = {"weights_millions": round(sum(p.numel() for p in model.parameters()) / 1e6, 1), "rows": rows}
    with measured(bench.device, found):
        seconds = timed(bench.device, step, 3 if bench.quick else 8)
    rate = counter.get_total_flops() / seconds
    found |= {"step_seconds": round(seconds, 4), "teraflops": round(rate / 1e12, 3)}
    found["utilisation_of_product_percent"] = round(100 * rate / bench.peak, 1) if bench.peak else None
    way = Way(rows, procedure_of(study, bench.device))
    found["forecast_gb"] = round(forecast(shell, way).total / 1e9, 2)
    return found


def plain(**train: Any) -> Study:
    """A study for models that no data stand behind."""
    return Study.model_validate({"name": "x", "dataset": {"path": "x"}, "ops": {}, "train": train})


def on(device: Any, build: Callable[[], Any], kind: torch.dtype = torch.float32) -> Any:
    """A model made on a device in a type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        with torch.device(device):
            return build()
    finally:
        torch.set_default_dtype(before)


def vit_b_32(bench: Bench) -> Figures:
    """The contrastive loss of CLIP ViT-B/32."""
    from transformers import CLIPConfig, CLIPModel

    from engine.tasks.clip.model import PRESETS, clip_config, contrastive_loss, image_features, text_features

    preset = PRESETS["tiny" if bench.quick else "vit-b-32"]

    def build() -> Any:
        return CLIPModel(CLIPConfig(**clip_config(preset)))

    def loss(model: Any, rows: int) -> torch.Tensor:
        pixels, ids = torch.rand(rows, 3, preset.image, preset.image), torch.ones(rows, preset.length, dtype=torch.long)
        return contrastive_loss(image_features(model, pixels), text_features(model, ids), model.logit_scale)

    rows = 16 if bench.quick else 1024
    return training(bench, Shell(on("meta", build), loss, rows), lambda: on(bench.device, build), plain(), rows)


def language_135m(bench: Bench) -> Figures:
    """A Llama of 135 million weights on 2,048 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from engine.tasks.lm.model import PRESETS, llama_config

    preset = PRESETS["tiny" if bench.quick else "smol-135m"]

    def build() -> Any:
        return LlamaForCausalLM(LlamaConfig(**llama_config(preset, preset.vocabulary, 1, 2, 3)))

    rows = 2 if bench.quick else 8
    shell = language(on("meta", build), preset.length, rows)
    return training(bench, shell, lambda: on(bench.device, build), plain(), rows)


def language_7b_lora(bench: Bench) -> Figures:
    """Adapters of a Llama of 7 billion weights, 2,048 tokens, activations made again."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    if not bench.quick:
        size = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}

    def build() -> Any:
        model = LlamaForCausalLM(LlamaConfig(**size, vocab_size=1000 if bench.quick else 32000))  # type: ignore[arg-type]
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        return get_peft_model(model, LoraConfig(r=16, target_modules=targets))

    rows, length = (1, 64) if bench.quick else (2, 2048)
    shell = language(on("meta", build), length, rows)
    study = plain(activation_checkpointing="on")
    return training(bench, shell, lambda: on(bench.device, build, torch.bfloat16), study, rows)


def video_lora(bench: Bench) -> Figures:
    """Adapters of a Latte of 16 frames of 256 pixels, in the latents of its autoencoder."""
    from diffusers import LatteTransformer3DModel
    from peft import LoraConfig, get_peft_model

    layers, heads, frames, side, words = (1, 2, 2, 8, 4) if bench.quick else (28, 16, 16, 32, 120)
    width = 72 * heads if not bench.quick else 32

    def build() -> Any:
        model = LatteTransformer3DModel(
            num_attention_heads=heads, attention_head_dim=width // heads, in_channels=4, out_channels=8,
            num_layers=layers, cross_attention_dim=width, attention_bias=True, sample_size=side, patch_size=2,
            activation_fn="gelu-approximate", norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
            caption_channels=4096 if not bench.quick else 16, video_length=frames,
        )  # fmt: skip
        return get_peft_model(model, LoraConfig(r=16, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))

    def loss(model: Any, rows: int) -> torch.Tensor:
        clean = torch.randn(rows, 4, frames, side, side)
        said = torch.randn(rows, words, 4096 if not bench.quick else 16)
        steps = torch.ones(rows, dtype=torch.long)
        made: torch.Tensor = model(clean, timestep=steps, encoder_hidden_states=said).sample
        return (made[:, :4].float() - clean).square().mean()

    rows = 1 if bench.quick else 2
    shell = Shell(on("meta", build), loss, rows)
    return training(bench, shell, lambda: on(bench.device, build, torch.bfloat16), plain(), rows)


def sections(quick: bool) -> dict[str, Callable[[Bench], Figures]]:
    """All of them, the shorter first."""
    tasks = ("clip", "lm") if quick else tuple(REAL)
    found: dict[str, Callable[[Bench], Figures]] = {"matrix product": product}
    found |= {"model: ViT-B/32": vit_b_32, "model: language, 135M": language_135m}
    found |= {"model: language, 7B, LoRA": language_7b_lora, "model: video, LoRA": video_lora}
    found["out of memory"] = out_of_memory
    found |= {f"trial: {task} tiny": trial(task, "tiny") for task in tasks}
    found |= {f"pause and resume: {task}": pausing(task) for task in tasks}
    found |= {"packed and serial": packed, "two trials on one device": two_on_one}
    if not quick:
        found |= {f"trial: {task} {preset}": trial(task, preset) for task, preset in REAL.items()}
    return found


def run(bench: Bench) -> dict[str, Figures]:
    """Each section's figures, or its error."""
    found: dict[str, Figures] = {}
    for name, section in sections(bench.quick).items():
        began = time.monotonic()
        if began > bench.until:
            found[name] = {"error": "not run: the time is up"}
        else:
            try:
                torch.cuda.empty_cache()  # what the last section left; nothing on a CPU
                found[name] = section(bench)
            except Exception as error:  # the next sections are not to blame
                traceback.print_exc()
                found[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        found[name]["took"] = round(time.monotonic() - began, 1)
        print(name, json.dumps(found[name]), flush=True)
    return found


def table(found: dict[str, Figures]) -> str:
    """As docs/benchmarks.md has it."""
    lines = ["| section | came to |", "|---|---|"]
    for name, figures in found.items():
        told = "; ".join(f"{key.replace('_', ' ')} {_text(value)}" for key, value in figures.items() if key != "took")
        lines.append(f"| {name} | {told} |")
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_text(each)}" for key, each in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run all, print, keep the raw figures, write the table on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no section is begun")
    parser.add_argument("--quick", action="store_true", help="tiny models, on a CPU too")
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark.json"))
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.quick:
        raise SystemExit("torch sees no GPU; run it on one, or with --quick")
    torch.set_deterministic_debug_mode("warn")
    torch.utils.deterministic.fill_uninitialized_memory = False
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(device, args.quick, time.monotonic() + 60 * args.minutes, Path(scratch))
        found = run(bench)
        for opened in bench.opened.values():
            opened.store.close()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    about = {"device": name, "torch": torch.__version__, "procedure": asdict(procedure_of(plain(), device))}
    args.out.write_text(json.dumps({**about, "sections": found}, indent=1, default=str), encoding="utf-8")
    print(table(found))
    if args.write:
        from benchmarks.write import write_section

        write_section("gpu", "On a GPU (`make bench-gpu`)", f"{name}, torch {torch.__version__}.\n\n{table(found)}")
    sys.exit(1 if any("error" in figures for figures in found.values()) else 0)


if __name__ == "__main__":
    main()
