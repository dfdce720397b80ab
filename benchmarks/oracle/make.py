"""The oracle: every result that a search policy could ask for, measured once by real training.

    python benchmarks/oracle/make.py        # about half an hour on two idle cores; resumes where it stopped

61 pools on the demo world: the control and low, mid, high of 20 statistics. Eight are real OPs'
statistics; twelve are planted: computed from what the demo's author knows of every row (its
defects) plus noise, so that four point at good rows, four at defects, and four at nothing. Every pool is
trained with 10 seeds at an eighth, a quarter, a half and all of the samples, each an annealed run
of its own; the full runs are also evaluated at a quarter, a half and three quarters of their steps.
`oracle.parquet` holds one row per evaluation.
"""

from __future__ import annotations

import json
import os
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
from numpy.typing import NDArray

from app.commands.init import write_demo
from engine.data.cuts import Column, Cut, StatisticColumn, realise, single_op_cuts
from engine.demo.images import CAPTION_DEFECTS
from engine.records.pool import Layer, Pool
from engine.settings.study import Study
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import Job, Report

TABLE = Path(__file__).with_name("oracle.parquet")
SEEDS = 10
FRACTIONS = (0.125, 0.25, 0.5, 1.0)
REAL = (
    "text_len", "num_words", "special_char_ratio", "alnum_ratio",
    "image_sizes", "aspect_ratios", "image_width", "image_height",
)  # fmt: skip
# planted statistic → (what it sees of a row, standard deviation of the noise on it)
PLANTED = {
    "helps_1": ("clean", 0.3), "helps_2": ("clean", 0.8), "helps_3": ("clean", 1.6), "helps_4": ("matched", 0.5),
    "hurts_1": ("spammed", 0.3), "hurts_2": ("mismatched", 0.3), "hurts_3": ("file_name", 0.6),
    "hurts_4": ("truncated", 0.6),
    "nothing_1": ("", 1.0), "nothing_2": ("", 1.0), "nothing_3": ("", 1.0), "nothing_4": ("", 1.0),
}  # fmt: skip


def planted_columns(truth: Path) -> list[StatisticColumn]:
    """The planted statistics of every training row."""
    defects = [json.loads(line)["defects"] for line in truth.read_text(encoding="utf-8").splitlines()]
    sees = {name: np.array([name in d for d in defects], float) for name in CAPTION_DEFECTS}
    sees["clean"] = np.array([not set(d) & set(CAPTION_DEFECTS) for d in defects], float)
    sees["matched"] = 1 - sees["mismatched"]
    sees[""] = np.zeros(len(defects))
    found = []
    for i, (name, (what, noise)) in enumerate(PLANTED.items()):
        value = sees[what] + np.random.default_rng(i).normal(0, noise, len(defects))
        found.append(StatisticColumn("planted", name, (), Column(value, value)))
    return found


def world(folder: Path) -> tuple[OpenStudy, dict[str, Column], list[Cut]]:
    """The demo study, the columns of all 20 statistics, and their 60 cuts."""
    opened = open_study(write_demo(folder), 2)
    columns = [c for c in opened.statistic_columns if c.statistic in REAL] + planted_columns(
        folder / "data" / "truth.jsonl"
    )
    cuts = single_op_cuts(columns, opened.scan.good, 3, opened.pool_size, None, 0)
    assert len(cuts) == 60 and all(c.reason is None for c in cuts)
    return opened, {c.statistic: c.column for c in columns}, cuts


def results(folder: Path) -> list[dict[str, Any]]:
    """What was measured so far."""
    rows = [json.loads(line) for f in sorted(folder.glob("results-*.jsonl")) for line in f.read_text().splitlines()]
    return list({(r["pool"], r["seed"], r["fraction"], r["at"]): r for r in rows}.values())


def measure(study: Study, prepared: Path, rows: NDArray[np.int64], seed: int, fraction: float) -> list[dict[str, Any]]:
    """One training and what it was on the way, with the device-seconds until then."""
    import torch

    from engine.tasks.clip.model import build_model, train
    from engine.tasks.clip.task import evaluate

    began, paused = time.perf_counter(), 0.0
    model = build_model(study, prepared, seed, None)
    samples = int(len(rows) * study.train.epochs * fraction)
    steps = samples // study.train.batch_size
    marks = {round(steps * q) // 2 * 2: q for q in (0.25, 0.5, 0.75)} if fraction == 1 else {}
    found: list[dict[str, Any]] = []

    def record(step: int, at: float) -> None:
        nonlocal paused
        start = time.perf_counter()
        with torch.inference_mode():
            scores = evaluate(model, study, prepared)
        found.append({"fraction": fraction, "at": at, "step": step, "seconds": start - began - paused, **scores})
        paused += time.perf_counter() - start

    def emit(_kind: str, content: dict[str, Any]) -> None:
        if content["step"] in marks:
            record(content["step"], marks[content["step"]])

    train(model, study, prepared, rows, Job("", "", samples, seed, None, ""), Report(emit))
    record(steps, 1.0)
    return found


def run_share(folder: Path, share: int, shares: int, out: Path) -> None:
    """Train every n-th (seed, pool); append one JSON line per evaluation."""
    import torch

    torch.set_num_threads(1)
    opened, columns, cuts = world(folder)
    pools = {"control": Pool((Layer(),), opened.pool_size)} | {c.label: c.pool for c in cuts}
    done = {(r["pool"], r["seed"]) for r in results(folder)}
    work = [(s, name) for s in range(SEEDS) for name in pools if (name, s) not in done][share::shares]
    with out.open("a", encoding="utf-8") as log:
        for seed, name in work:
            rows = realise(pools[name], columns, opened.scan.keys, opened.scan.good, seed)
            for fraction in FRACTIONS:
                for line in measure(opened.study, opened.prepared, rows, seed, fraction):
                    log.write(json.dumps({"pool": name, "seed": seed, **line}) + "\n")
            log.flush()


def main() -> None:
    """Train what is missing, then write the table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = ROOT / "demo-study" / "oracle"
    _ = world(folder)[0].prepared  # statistics and caches once
    shares = len(os.sched_getaffinity(0))
    files = [folder / f"results-{i}-of-{shares}.jsonl" for i in range(shares)]
    context = get_context("spawn")
    running = [context.Process(target=run_share, args=(folder, i, shares, f)) for i, f in enumerate(files)]
    for process in running:
        process.start()
    for process in running:
        process.join()
        assert process.exitcode == 0
    rows = sorted(results(folder), key=lambda r: (r["pool"], r["seed"], r["fraction"], r["at"]))
    pq.write_table(pa.Table.from_pylist(rows), TABLE, compression="zstd", compression_level=19)
    print(f"{len(rows)} evaluations, {TABLE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
