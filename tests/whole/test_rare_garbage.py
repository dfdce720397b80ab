"""A world whose worst 5 % is poison, at the low end of a statistic that every third of the rows depends on.

Good rows cover twelve regimes, the longer the text the later; a model learns one number a regime and is judged on all.
So a third of the rows lacks eight regimes, whichever third, and the control has the poison: texts of a few characters
whose numbers are wrong. Only all rows without the lowest 5 % teach everything and nothing wrong.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data.cuts import Column, StatisticColumn, realise, single_op_cuts
from engine.data.rare import with_rare
from engine.records.pool import Layer, Pool
from tests.conftest import Tiny, run_djsb, write_jsonl

REGIMES, N, POISON = 12, 2400, 0.05
BEST = "text_len without-lowest-5%"
TRAINER = f"""
import json, sys
pool, out = sys.argv[1:3]
regimes = [[] for _ in range({REGIMES})]
for line in open(pool):
    row = json.loads(line)
    regimes[row["regime"]].append(row["y"])
learnt = [sum(ys) / len(ys) if ys else 0.0 for ys in regimes]
wrong = sum(abs(y - (-1) ** i) for i, y in enumerate(learnt)) / {REGIMES}
open(out + "/metrics.jsonl", "w").write(json.dumps({{"score": max(0.0, 1 - wrong / 2)}}))
"""


def world(seed: int) -> list[dict[str, Any]]:
    """Rows of text, regime and y; the poisoned ones are the first."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(N):
        poison, regime = i < POISON * N, int(rng.integers(REGIMES))
        length = int(rng.integers(1, 5)) if poison else 24 + 6 * regime + int(rng.integers(6))
        y = (-1) ** regime * (-6.0 if poison else 1.0) + rng.normal(0, 0.3)
        rows.append({"id": f"r{i}", "text": "x" * length, "regime": regime, "y": round(float(y), 4)})
    return rows


def learnt(rows: list[dict[str, Any]]) -> float:
    """The score that TRAINER gives."""
    told = [[r["y"] for r in rows if r["regime"] == i] for i in range(REGIMES)]
    wrong = np.mean([abs((np.mean(ys) if ys else 0) - (-1) ** i) for i, ys in enumerate(told)])
    return max(0.0, 1 - float(wrong) / 2)


@pytest.mark.parametrize("seed", range(12))
def test_without_its_worst_twentieth_a_poisoned_world_is_learnt_best(seed: int) -> None:
    rows, good, size = world(seed), np.ones(N, bool), N // 4
    lengths = np.array([len(r["text"]) for r in rows], np.float64)
    source = StatisticColumn("text_length_filter", "text_len", (), Column(lengths, lengths))
    cuts = with_rare(single_op_cuts([source], good, 3, size, None, seed), [source], good, size, None, seed)
    assert [c.label for c in cuts] == ["text_len low", "text_len mid", "text_len high", BEST]
    keys = np.random.default_rng(seed).integers(0, 2**64, N, np.uint64)

    def score(pool: Pool) -> float:
        drawn = [realise(pool, {"text_len": source.column}, keys, good, trial) for trial in range(3)]
        return float(np.mean([learnt([rows[i] for i in numbers]) for numbers in drawn]))

    control, *scores = [score(p) for p in (Pool((Layer(),), size, seed=seed), *(c.pool for c in cuts))]
    assert scores[3] > 1.05 * control > max(scores[:3])


@pytest.mark.long
@pytest.mark.parametrize("rare", [True, False], ids=["with rare pools", "without"])
def test_a_study_ranks_it_first_and_its_recipe_drops_the_poison(tiny: Tiny, tmp_path: Path, rare: bool) -> None:
    write_jsonl(tiny.train_file, world(0))
    tiny.set({
        "task": "command",
        "dataset": {"images": None},
        "evaluation": {"label": None},
        "train": {"epochs": 1},
        "command": {"run": [sys.executable, "trainer.py", "{pool}", "{out}", "{seed}"],
                    "metrics": [{"name": "score", "low": 0, "high": 1}]},
        "search": {"seeds": 3},
        "ops": {"text_length_filter": {}},
        "pools": {"rare": rare},
    })  # fmt: skip
    (tiny.study / "trainer.py").write_text(TRAINER)
    done = run_djsb("auto", tiny.study, "--until", "probe", "--workers", 1)
    assert done.returncode == 0, done.stderr
    ranked = json.loads(run_djsb("rank", tiny.study, "--json").stdout)
    if not rare:  # no third of the rows beats the control
        assert len(ranked) == 3 and all(r["verdict"] == "hurts" for r in ranked)
        return
    assert ranked[0]["label"] == BEST and len(ranked) == 4
    assert ranked[0]["verdict"] == "helps" and all(r["verdict"] == "hurts" for r in ranked[1:])
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "kept.jsonl"
    exported = run_djsb("export", "recipe", tiny.study, "--pool", ranked[0]["pool"], "--out", recipe)
    assert exported.returncode == 0, exported.stderr
    applied = run_djsb("apply", recipe, "--data", tiny.train_file, "--out", out)
    assert applied.returncode == 0, applied.stderr
    kept = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    assert kept == [r["id"] for r in world(0)][round(POISON * N) :]
