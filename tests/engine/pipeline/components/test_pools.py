"""The seven manipulations of pools as jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine.base.errors import PoolError
from engine.data.readers.opening import open_reader
from engine.pipeline.hooks import GENERAL_PROBE, POOLS
from tests.engine.pipeline.components.run import run_component


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def rows(path: str) -> list[Any]:
    reader = open_reader(Path(path))
    return [row["n"] for row in reader.read(0, len(reader))]


def test_from_analysed_rows_to_a_merged_pool(tmp_path: Path) -> None:
    data = [{"n": n, "__dj__stats__": {"a": n, "b": n * 5 % 9}} for n in range(9)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    said: list[str] = []

    def job(kind: str, source: Any, **extra: Any) -> Any:
        asked = {"type": f"data_pool_{kind}", "dataset_path": source, "export_path": f"out/{kind}", **extra}
        (outputs,) = run_component(tmp_path, POOLS, asked, say=said.append).outputs
        return outputs

    pools = job("construction", "d.jsonl", split_ratios=["1/3", "2/3"])
    assert names(pools) == [f"d_{s}_{i}.jsonl.rows" for s in "ab" for i in range(3)]
    ranking = {"type": "data_pool_ranking", "dataset_path": pools, "metrics": [{"s": n} for n in (5, 1, 3, 4, 2, 0)]}
    (best,) = run_component(tmp_path, GENERAL_PROBE, {**ranking, "ranking_keys": ["s"], "top_n": 2}).outputs
    assert best == [pools[0], pools[3]]
    made = job("combination", best)
    assert names(made) == ["d__top_0_num_3.jsonl.rows", "d__top_1_num_3.jsonl.rows", "d__top_0_1_num_2.jsonl.rows"]
    aligned = job("downsampling", made, seed=42, form="jsonl")
    assert names(aligned) == [name.replace(".jsonl.rows", "_2.jsonl") for name in names(made)]
    twice = job("duplication", aligned[0], duplicating_times=[2])
    assert rows(twice[0]) == rows(aligned[0]) * 2
    merged = job("merging", [made[2], aligned[0]])
    assert rows(merged) == [0, 2, *rows(aligned[0])]
    (tmp_path / "p.jsonl").write_text('{"p": 1}\n', encoding="utf-8")
    joining = {"type": "data_pool_cartesian_join", "dataset_path_1": "p.jsonl", "dataset_path_2": pools[:2]}
    (joined,) = run_component(tmp_path, POOLS, {**joining, "export_path": "out"}).outputs
    assert [rows(path) for path in joined] == [[0, 1, 2], [3, 4, 5]]
    assert said == []


def test_keys_that_are_unknown_or_impossible_are_refused(tmp_path: Path) -> None:
    for kind, extra, message in (
        ("duplication", {"duplicating_times": [0]}, "duplicating_times"),
        ("duplication", {"duplicating_times": [1], "duplicate": 2}, r"extra_configs\.duplicate"),
        ("downsampling", {"target_num_samples": 0}, "target_num_samples"),
        ("construction", {"form": "csv"}, "form"),
    ):
        with pytest.raises(ValidationError, match=message):
            asked = {"type": f"data_pool_{kind}", "dataset_path": "d.jsonl", "export_path": "out", **extra}
            run_component(tmp_path, POOLS, asked)
    with pytest.raises(PoolError, match="no such pool"):
        run_component(tmp_path, POOLS, {"type": "data_pool_merging", "dataset_path": "d.jsonl", "export_path": "out"})
