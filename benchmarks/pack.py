"""Trials per hour on the demo: a process per trial, persistent workers, packs: `python benchmarks/pack.py --write`.

The same trials (random pools of the demo's size, preset tiny, evaluation included) are given to real worker processes,
one per device, in three ways; on a GPU in two. How many trials a pack holds is what the worker's own calibration says.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from app.commands.init import write_demo
from engine.base.gpus import gpus
from engine.records.pool import Layer, Pool
from engine.runner.device import Slot, new_events
from engine.runner.local import LocalSlot, devices
from engine.runner.messages import Bad, Done, Failed, Gone, Ready
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import Job

Results = dict[str, dict[str, float]]


@dataclass
class Run:
    """One way, run once. seconds: in all; after_start: without the start of the first workers."""

    seconds: float = 0.0
    after_start: float = 0.0
    results: Results = field(default_factory=dict)


def make_jobs(opened: OpenStudy, trials: int) -> list[Job]:
    """Trials on random pools, each with its own seed."""
    folder = opened.state / "rows"
    folder.mkdir(exist_ok=True)
    samples = int(opened.pool_size * opened.study.train.epochs)
    jobs = []
    for seed in range(trials):
        file = folder / f"bench-{seed}.npy"
        np.save(file, opened.realise(Pool((Layer(),), opened.pool_size), seed))
        jobs.append(Job(f"trial-{seed}", str(file), samples, seed, None, ""))
    return jobs


def job_of(opened: OpenStudy, do: str, **content: Any) -> dict[str, Any]:
    """What the engine sends to a worker."""
    return {"do": do, "study": opened.study.model_dump(mode="json"), "prepared": str(opened.prepared), **content}


def run(opened: OpenStudy, names: list[str], packs: list[list[Job]], fresh: bool) -> Run:
    """Give the packs to a worker on each device. fresh: with a new process for each pack."""
    events = new_events()
    slots: list[Slot] = [LocalSlot(name, opened.state / "logs" / f"bench-{name}.log", events) for name in names]
    waiting, out, working = deque(packs), Run(), 0.0
    began = time.perf_counter()
    try:
        for slot in slots[: len(packs)]:
            slot.start()
        while sum(len(p) for p in packs) > len(out.results):
            arrival = events.get(timeout=600)
            slot, message = arrival.slot, arrival.message
            if arrival.life != slot.life:
                continue  # of one that was replaced
            if isinstance(message, Gone | Bad | Failed):
                raise SystemExit(f"a worker died: {message}; see {slot.log}")
            if isinstance(message, Ready):
                working = working or time.perf_counter()
            elif isinstance(message, Done):
                out.results |= message.results
                if fresh:
                    slot.kill()
                    if waiting:
                        slot.start()
                    continue
            else:
                continue
            if waiting:
                slot.send(job_of(opened, "trials", jobs=[asdict(job) for job in waiting.popleft()]))
    finally:
        for slot in slots:
            slot.kill()
    ended = time.perf_counter()
    out.seconds, out.after_start = ended - began, ended - working
    return out


def calibrate(opened: OpenStudy, device: str) -> dict[str, Any]:
    """The worker's own calibration on a device."""
    events = new_events()
    slot = LocalSlot(device, opened.state / "logs" / "bench-calibration.log", events)
    slot.start()
    try:
        while not isinstance(message := events.get(timeout=600).message, Gone | Bad | Failed):
            if isinstance(message, Ready):
                slot.send(job_of(opened, "calibrate"))
            elif isinstance(message, Done) and message.calibration:
                return message.calibration.model_dump()
    finally:
        slot.kill()
    raise SystemExit(f"the calibration failed; see {slot.log}")


def split(jobs: list[Job], names: list[str], largest: int) -> list[list[Job]]:
    """Packs of equal size, at most so large, as many for each device."""
    rounds = -(-len(jobs) // (len(names) * largest))
    return [list(p) for p in np.array_split(np.array(jobs, object), min(len(jobs), rounds * len(names)))]


def difference(found: Results, wanted: Results) -> float:
    """Largest relative difference of a metric of the same trial."""
    return max(abs(found[t][n] - v) / max(abs(v), 1e-9) for t, metrics in wanted.items() for n, v in metrics.items())


def measure(opened: OpenStudy, jobs: list[Job], names: list[str], repeats: int, naive: bool) -> list[str]:
    """The table's lines for these devices."""
    found = calibrate(opened, names[0])
    size = int(found["fastest_pack"])
    packs = split(jobs, names, size)
    # a micro-batch of the whole batch is the serial training, and is never packed
    alone = [[replace(job, micro_batch=opened.study.train.batch_size)] for job in jobs]
    held = "–".join(dict.fromkeys(str(n) for n in sorted({len(p) for p in packs})))
    ways = {"a new process per trial": (alone, True)} if naive else {}
    ways |= {
        "persistent workers, trials one by one": (alone, False),
        f"persistent workers, packs of {held}": (packs, False),
    }
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for _ in range(repeats):  # in turns, so that a slow minute hits all
        for name, (work, fresh) in ways.items():
            runs[name].append(run(opened, names, work, fresh))
    lines = []
    for name, made in runs.items():
        cells = []
        for seconds in ([r.seconds for r in made], [r.after_start for r in made]):
            rates = [3600 * len(jobs) / s for s in seconds]
            cells.append(f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})")
        lines.append(f"| {name} | {len(names)} × {names[0].rstrip('0123456789')} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    serial, packed = list(runs.values())[-2:]
    costs = ", ".join(f"{k}: {1e3 * s:.3f}" for k, s in found["packs"].items())
    lines.append(
        f"\nOn {names[0]}, calibration in ms per trained sample by trials of a pack: {costs}; packs hold up to {size}. "
        f"Largest relative difference of a packed trial's metrics from the same trial's alone: "
        f"{max(difference(p.results, s.results) for p, s in zip(packed, serial, strict=True)):.1e}.\n"
    )
    print(lines[-1], flush=True)
    return lines


def utilisation(batch: int = 256) -> str:
    """MFU of preset vit-b-32 in serial training: its floating-point rate over that of a large matrix product."""
    if not gpus():
        return "MFU of vit-b-32: no GPU at hand."
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPConfig, CLIPModel

    from engine.tasks.clip.model import PRESETS, _backward, clip_config
    from engine.tasks.shared.tokens import EOS

    def rate(work: Any, flops: float, times: int) -> float:
        """Floating-point operations a second, after a warm-up."""
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            work()
        torch.cuda.synchronize()
        return flops * times / (time.perf_counter() - began)

    preset = PRESETS["vit-b-32"]
    model = CLIPModel(CLIPConfig(**clip_config(preset))).cuda().train()
    optimizer = torch.optim.AdamW(model.parameters())
    pixels = torch.randn(batch, 3, preset.image, preset.image, device="cuda")
    ids = torch.randint(4, preset.vocabulary, (batch, preset.length), device="cuda")
    ids[:, -1] = EOS

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        _backward(model, pixels, ids, batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step()
    side = 8192
    a = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    peak, trained = rate(lambda: a @ a, 2 * side**3, 20), rate(step, counter.get_total_flops(), 10)
    return (
        f"vit-b-32, batch {batch}, bf16, on {torch.cuda.get_device_name()}: {trained / 1e12:.0f} TFLOP/s, "
        f"{100 * trained / peak:.0f} % of the {peak / 1e12:.0f} that a bf16 matrix product of {side} reaches."
    )


def main() -> None:
    """Run everything, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    cores = [f"cpu{c}" for c in range(len(os.sched_getaffinity(0)))]
    lines = ["| way | devices | trials an hour, starts included | after the first start |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        opened = open_study(write_demo(Path(scratch) / "demo"), len(cores))
        with opened.store:
            jobs = make_jobs(opened, args.trials)
            lines += measure(opened, jobs, cores, args.repeats, naive=True)
            if gpus():
                lines += [*lines[:2], *measure(opened, jobs, devices(1), args.repeats, naive=False)]
    lines.append(utilisation())
    print(lines[-1])
    if args.write:
        from benchmarks.write import write_section

        body = f"{args.trials} trials of the demo; median (range) of {args.repeats} runs.\n\n" + "\n".join(lines)
        write_section("pack", "Packed training (`make bench-pack`)", body)


if __name__ == "__main__":
    main()
