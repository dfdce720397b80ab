"""What pools were ranked by stands with seeds, control and intervals, or is marked as single runs."""

from __future__ import annotations

from pathlib import Path

from engine.journal import jobs
from engine.journal.store import Store
from engine.pipeline.board import LONE, SINGLE, boards, short
from engine.pipeline.start import start
from engine.pools.control import is_control
from tests.engine.pipeline.made import job, jsonl, write


def ranked(folder: Path, **top: object) -> tuple[list[jobs.PoolScore], list[str]]:
    """The scores that a run's ranking had, and the pools that it gave."""
    rows = [{"id": i, "text": "a", "__dj__stats__": {"text_len": i}} for i in range(60)]
    jsonl(folder / "a.jsonl", rows)
    pools = {"hook": "DataPoolManipulationHook", "meta_name": "pools", "output": "pools", "extra_configs": {
        "type": "data_pool_construction", "dataset_path": "a.jsonl", "export_path": "pools"}}  # fmt: skip
    gives = "[{'score': 1 + (0 if p.endswith('control.jsonl') else int(p[-7])) + 0.01 * seed} for p in got[0]]"
    score = job("score", gives, values={"p": ""}, input={"extra_configs.values.p": "-1.pools"})
    rank = {"hook": "GeneralProbeHook", "meta_name": "rank", "output": "top", "input": {
        "extra_configs.dataset_path": "anonymous.pools.pools", "extra_configs.metrics": "-1.res"}, "extra_configs": {
        "type": "data_pool_ranking", "dataset_path": "x", "metrics": "x", "ranking_keys": ["score"], "top_n": 2,
    }}  # fmt: skip
    ended = start(write(folder, [pools, score, rank], **top), folder, tell=lambda _: None)
    with Store(folder / "work/.djsb/study.db", readonly=True) as store:
        row = next(r for r in jobs.jobs_of(store, ended.run) if r.label == "rank")
        return jobs.scores(store, ended.run), jobs.outputs(store, row.result or "")


def test_single_runs_are_marked(tmp_path: Path) -> None:
    scores, _ = ranked(tmp_path)
    (board,) = boards(scores)
    assert board.notes == (SINGLE, LONE) and len(board.rows) == 3
    assert all(row.verdict is None and row.deviations == {"score": None} for row in board.rows)


def test_seeds_and_a_control_give_intervals_and_the_control_is_not_ranked(tmp_path: Path) -> None:
    scores, top = ranked(tmp_path, seeds=3, control=True)
    (board,) = boards(scores)
    assert board.notes == () and [row.seeds for row in board.rows] == [3, 3, 3, 3]
    *rest, control = board.rows
    assert is_control(control.pool) and control.change is None and short(control.pool) == "a_control"
    assert [row.verdict for row in rest] == ["helps", "helps", "unclear"]
    assert all(row.ci_low is not None and row.ci_low <= (row.change or 0) for row in rest)
    assert "a_control" not in top[0].replace("test_seeds_and_a_control", "") and top[0].count("a_text_len_") == 2
