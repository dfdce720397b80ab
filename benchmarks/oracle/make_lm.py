"""The second world: every result that a search policy could ask for on the demo of task `lm`, by real training.

    nice -n 15 python benchmarks/oracle/make_lm.py        # about eight minutes of one core; resumes where it stopped

30 pools: the control and low, mid, high of ten statistics (six of real OPs, four planted), but for a bucket that is too
small. Eight seeds each, whole trainings, evaluated at a quarter, a half, three quarters and the end. No rung
was chosen on it.
`lm.parquet` holds one row per evaluation.
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

from app.commands.init import write_demo
from benchmarks.oracle.make import results
from benchmarks.oracle.table import SHARES
from engine.data.cuts import Column, StatisticColumn, single_op_cuts
from engine.demo.text import DEFECTS
from engine.records.pool import Layer, Pool
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import Job, Report

TABLE = Path(__file__).with_name("lm.parquet")
SEEDS, ROWS, WORKERS = 8, 240, 3
REAL = (
    "text_len", "num_words", "special_char_ratio", "alnum_ratio", "char_rep_ratio", "word_rep_ratio",
)  # fmt: skip
# planted statistic → (what it sees of a row, standard deviation of the noise on it)
PLANTED = {"helps_1": ("clean", 0.5), "helps_2": ("clean", 1.5), "hurts_1": ("wrong", 0.4), "nothing_1": ("", 1.0)}


def planted_columns(truth: Path) -> list[StatisticColumn]:
    """The planted statistics of every training row."""
    defects = [json.loads(line)["defects"] for line in truth.read_text(encoding="utf-8").splitlines()]
    sees = {name: np.array([name in d for d in defects], float) for name in DEFECTS}
    sees["clean"], sees[""] = np.array([not d for d in defects], float), np.zeros(len(defects))
    found = []
    for i, (name, (what, noise)) in enumerate(PLANTED.items()):
        value = sees[what] + np.random.default_rng(i).normal(0, noise, len(defects))
        found.append(StatisticColumn("planted", name, (), Column(value, value)))
    return found


def world(folder: Path) -> tuple[OpenStudy, dict[str, Column], dict[str, Pool]]:
    """The demo study, the columns of all statistics, and the control with their 29 pools."""
    opened = open_study(write_demo(folder, "lm", {"pools": {"size": ROWS}}), 2)
    columns = [c for c in opened.statistic_columns if c.statistic in REAL] + planted_columns(
        folder / "data" / "truth.jsonl"
    )
    cuts = single_op_cuts(columns, opened.scan.good, 3, ROWS, None, 0)
    pools = {"control": Pool((Layer(),), ROWS)} | {c.label: c.pool for c in cuts if c.reason is None}
    assert len(pools) == 30, list(pools)
    return opened, {c.statistic: c.column for c in columns}, pools


def measure(opened: OpenStudy, rows: Any, seed: int) -> list[dict[str, Any]]:
    """One whole training and what it was on the way, with the device-seconds until then."""
    import torch

    from engine.tasks.lm.model import build_model, sequences, train
    from engine.tasks.lm.task import evaluate
    from engine.tasks.shared.caches import read_meta

    study, prepared = opened.study, opened.prepared
    samples = int(len(rows) * study.train.epochs)
    steps = sequences(read_meta(prepared), samples) // study.train.batch_size
    # the curve has points at even steps
    marks = {round(steps * share) // 2 * 2 if share < 1 else steps: share for share in SHARES}
    found: list[dict[str, Any]] = []
    began, paused = time.process_time(), 0.0
    model = build_model(study, prepared, seed, None)

    def emit(_kind: str, content: dict[str, Any]) -> None:
        nonlocal paused
        if (share := marks.get(content["step"])) is None:
            return
        start = time.process_time()
        with torch.inference_mode():
            scores = evaluate(model, study, prepared)
        model.train()
        found.append(
            {"fraction": 1.0, "at": share, "step": content["step"], "seconds": start - began - paused, **scores}
        )
        paused += time.process_time() - start

    train(model, study, prepared, rows, Job("", "", samples, seed, None, ""), Report(emit))
    assert [f["at"] for f in found] == list(SHARES), (steps, found)
    return found


def run_share(folder: Path, share: int, shares: int, out: Path) -> None:
    """Train every n-th (seed, pool); append one JSON line per evaluation."""
    import torch

    from engine.data.cuts import realise

    torch.set_num_threads(1)
    opened, columns, pools = world(folder)
    done = {(r["pool"], r["seed"]) for r in results(folder)}
    work = [(s, name) for s in range(SEEDS) for name in pools if (name, s) not in done][share::shares]
    with out.open("a", encoding="utf-8") as log:
        for seed, name in work:
            rows = realise(pools[name], columns, opened.scan.keys, opened.scan.good, seed)
            for line in measure(opened, rows, seed):
                log.write(json.dumps({"pool": name, "seed": seed, **line}) + "\n")
            log.flush()


def main() -> None:
    """Train what is missing, then write the table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = ROOT / "demo-study" / "oracle-lm"
    _ = world(folder)[0].prepared  # statistics and caches once
    shares = WORKERS
    files = [folder / f"results-{i}-of-{shares}.jsonl" for i in range(shares)]
    context = get_context("spawn")
    running = [context.Process(target=run_share, args=(folder, i, shares, f)) for i, f in enumerate(files)]
    for process in running:
        process.start()
    for process in running:
        process.join()
        assert process.exitcode == 0
    rows = sorted(results(folder), key=lambda r: (r["pool"], r["seed"], r["at"]))
    pq.write_table(pa.Table.from_pylist(rows), TABLE, compression="zstd", compression_level=19)
    print(f"{len(rows)} evaluations, {TABLE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
