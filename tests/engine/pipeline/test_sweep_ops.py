"""A sweep over parameters of two of Data-Juicer's OPs finds what was planted: real rows, OPs and evaluator."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from engine.journal import jobs
from engine.journal.store import Store
from engine.pipeline import child, process
from engine.pipeline.start import start
from tests.engine.pipeline.made import jsonl

LENGTH, WORDS = (40, 200), (1, 20)
BEST = (125, 8)  # texts of 125 letters or more, and of 8 words or fewer, have the smallest error on average
TRIALS = 25


def plant(file: Path) -> np.ndarray:
    """600 rows; (rows, 3) length, words, squared error. It grows with the distance from 150 letters and 6 words."""
    rng = np.random.default_rng(3)
    found = np.zeros((600, 3))
    rows = []
    for i, (length, words) in enumerate(zip(rng.integers(*LENGTH, 600), rng.integers(*WORDS, 600), strict=True)):
        ends = np.sort(rng.choice(np.arange(1, length - 1, 2), words - 1, replace=False)) if words > 1 else []
        letters = np.full(length, "a")
        letters[list(map(int, ends))] = " "
        error = np.hypot((length - 150) / 50, (words - 6) / 5)
        rows.append({"text": "".join(letters), "said": float(error), "true": 0.0})
        found[i] = length, words, error**2
    jsonl(file, rows)
    return found


def mse(rows: np.ndarray, length: float, words: float) -> float:
    """Of the rows that both bounds keep."""
    kept = (rows[:, 0] >= length) & (rows[:, 1] <= words)
    return float(rows[kept, 2].mean()) if kept.any() else np.inf


@pytest.mark.long  # 25 recipes are applied
def test_the_planted_bounds_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in the test's process: that they have one of their own is tested elsewhere, and takes seconds each."""
    rows = plant(tmp_path / "a.jsonl")
    process_job = {"hook": "ProcessDataHook", "meta_name": "cut", "output": "rows", "dj_configs": {
        "dataset_path": "a.jsonl", "export_path": "out/kept.jsonl", "np": 1,
        "process": [{"text_length_filter": {"min_len": 40}},
                    {"words_num_filter": {"min_num": 1, "max_num": 20}}]}}  # fmt: skip
    judge = {"hook": "EvaluateDataHook", "meta_name": "judge", "output": ["results", "error"],
             "input": {"extra_configs.predicted_dataset_path": "anonymous.cut.rows"},
             "extra_configs": {"type": "mse", "predicted_dataset_path": "x", "predicted_value_key": "said",
                               "ground_truth_value_key": "true"}}  # fmt: skip
    sweep = {"method": "bayes", "metric": {"name": "anonymous.judge.error", "goal": "minimize"}, "run_cap": TRIALS,
             "parameters": {"text_length_filter.min_len": {"min": LENGTH[0], "max": LENGTH[1] - 10},
                            "words_num_filter.max_num": {"min": WORDS[0] + 1, "max": WORDS[1]}}}  # fmt: skip
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    file = tmp_path / "p.yaml"
    content: dict[str, Any] = {"work_dir": "work", "hpo_config": "sweep.yaml"}
    file.write_text(yaml.safe_dump({**content, "execution_job_configs": [process_job, judge]}))
    here = os.getcwd()  # noqa: PTH109 (a job goes to its root)

    def in_place(order: dict[str, Any], _environ: Any, _listener: Any) -> tuple[dict[str, Any], float]:
        try:
            child._work(order, lambda *_args, **_content: None)
        finally:
            os.chdir(here)
        return json.loads(Path(order["answer"]).read_text()), 0.1

    monkeypatch.setattr(process, "run_job", in_place)
    ended = start(file, tmp_path, tell=lambda _: None)
    with Store(tmp_path / "work/.djsb/study.db", readonly=True) as store:
        trials = [(json.loads(t.params), t.objective) for t in jobs.sweep(store, ended.run) if t.objective is not None]
    assert len(trials) <= TRIALS
    params, error = min(trials, key=lambda trial: trial[1])
    length, words = params["text_length_filter.min_len"], params["words_num_filter.max_num"]
    assert error == pytest.approx(mse(rows, length, words))  # the OPs keep what is planted, and the evaluator says so
    every = sorted(mse(rows, a, b) for a in range(LENGTH[0], LENGTH[1] - 9) for b in range(WORDS[0] + 1, WORDS[1] + 1))
    assert error <= every[len(every) // 50], f"{params}: {error}"  # among the best 2 % of all pairs
    assert abs(length - BEST[0]) <= 15 and abs(words - BEST[1]) <= 2
