"""The second world: every result that a search policy could ask for on the demo of task `lm`, by real training.

    nice -n 15 python benchmarks/oracle/make_lm.py        # about three minutes of one core; resumes where it stopped

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
from collections.abc import Sequence
from itertools import pairwise
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
from engine.data.cuts import Column, StatisticColumn, realise, single_op_cuts
from engine.demo.text import DEFECTS
from engine.records.pool import Layer, Pool
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import Job, Report

TABLE = Path(__file__).with_name("lm.parquet")
SEEDS, ROWS, PIECES, WORKERS = 8, 160, 60, 6
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
    from engine.tasks.lm.model import build_model, log_likelihoods, sequences, train
    from engine.tasks.shared.caches import read_meta

    study, prepared = opened.study, opened.prepared
    samples = int(len(rows) * study.train.epochs)
    steps = sequences(read_meta(prepared), samples) // study.train.batch_size
    # the curve has points at even steps
    marks = {round(steps * share) // 2 * 2 if share < 1 else steps: share for share in SHARES}
    offsets, stream = np.load(prepared / "eval-offsets.npy"), np.memmap(prepared / "eval-tokens.bin", np.int32, "r")
    held = [np.asarray(stream[a:b])[:64] for a, b in pairwise(offsets.tolist()[: PIECES + 1])]
    tokens = sum(len(t) - 1 for t in held)
    found: list[dict[str, Any]] = []
    began, paused = time.process_time(), 0.0
    model = build_model(study, prepared, seed, None)

    def emit(_kind: str, content: dict[str, Any]) -> None:
        nonlocal paused
        if (share := marks.get(content["step"])) is None:
            return
        start = time.process_time()
        nats = -float(log_likelihoods(model, held, [1] * len(held)).sum()) / tokens
        model.train()
        seconds = start - began - paused
        found.append(
            {"fraction": 1.0, "at": share, "step": content["step"], "seconds": seconds, "log_perplexity": nats}
        )
        paused += time.process_time() - start

    train(model, study, prepared, rows, Job("", "", samples, seed, None, ""), Report(emit))
    assert [f["at"] for f in found] == list(SHARES), (steps, found)
    return found


def run_share(opened: OpenStudy, work: Sequence[tuple[int, str, Any]], out: Path) -> None:
    """Train these seeds, pools and rows; append one JSON line per evaluation."""
    with out.open("a", encoding="utf-8") as log:
        for seed, name, rows in work:
            for line in measure(opened, rows, seed):
                log.write(json.dumps({"pool": name, "seed": seed, **line}) + "\n")
            log.flush()


def write(folder: Path, pools: int) -> None:
    """The table of all seeds that every pool has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = sorted(results(folder), key=lambda r: (r["pool"], r["seed"], r["at"]))
    whole = {s for s in range(SEEDS) if len({r["pool"] for r in rows if r["seed"] == s}) == pools}
    rows = [r for r in rows if r["seed"] in whole]
    pq.write_table(pa.Table.from_pylist(rows), TABLE, compression="zstd", compression_level=19)
    print(f"{len(rows)} evaluations, {len(whole)} seeds, {TABLE.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    """Train what is missing, then write the table."""
    import torch
    import transformers.models.llama.modeling_llama  # before the fork, so that it is loaded once

    _ = transformers
    folder = ROOT / "demo-study" / "oracle-lm"
    opened, columns, pools = world(folder)
    _ = opened.prepared
    torch.set_num_threads(1)
    done = {(r["pool"], r["seed"]) for r in results(folder)}
    work = [
        (s, name, realise(pool, columns, opened.scan.keys, opened.scan.good, s))
        for s in range(SEEDS) for name, pool in pools.items() if (name, s) not in done
    ]  # fmt: skip
    running = [
        get_context("fork").Process(target=run_share, args=(opened, work[i::WORKERS], folder / f"results-{i}.jsonl"))
        for i in range(WORKERS)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join()
        assert process.exitcode == 0
    write(folder, len(pools))


if __name__ == "__main__":
    main()
