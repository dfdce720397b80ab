"""What pools were ranked by stands with seeds, control and intervals, or is marked as single runs."""

from __future__ import annotations

import json
from pathlib import Path

from textual.widgets import Tree

from app.tui.reading import pipelines as reading
from app.tui.screens.pipelines import _add_pools
from engine.base.errors import StudyError
from engine.journal import jobs
from engine.journal.store import Store
from engine.pipeline.board import LONE, SINGLE, boards, short
from engine.pipeline.start import start
from engine.pools.control import is_control
from tests.conftest import run_djsb
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
    assert board.notes == (SINGLE, LONE)
    assert [short(row.pool)[-1] for row in board.rows] == ["2", "1", "0"]  # best first
    assert all(row.verdict is None and row.deviations == {"score": None} for row in board.rows)
    shown = run_djsb("rank", tmp_path / "work").stdout
    assert SINGLE in shown and LONE in shown and "helps" not in shown
    nothing = run_djsb("rank", tmp_path)
    assert nothing.returncode == 1 and "does not exist yet" in nothing.stderr


def test_seeds_and_a_control_give_intervals_and_the_control_is_not_ranked(tmp_path: Path) -> None:
    scores, top = ranked(tmp_path, seeds=3, control=True)
    (board,) = boards(scores)
    assert board.notes == () and [row.seeds for row in board.rows] == [3, 3, 3, 3]
    *rest, control = board.rows
    assert is_control(control.pool) and control.change is None and short(control.pool) == "a_control"
    assert [row.verdict for row in rest] == ["helps", "helps", "unclear"]
    assert all(row.ci_low is not None and row.ci_low <= (row.change or 0) for row in rest)
    assert "a_control" not in top[0].replace("test_seeds_and_a_control", "") and top[0].count("a_text_len_") == 2
    shown = run_djsb("rank", tmp_path / "work")
    assert shown.returncode == 0, shown.stderr
    lines = [line.split() for line in shown.stdout.splitlines() if "a_" in line]
    assert [(line[0], line[-4:-3] == ["3"] or "3" in line) for line in lines] == [
        (n, True) for n in ("1", "2", "3", "–")
    ]
    assert "▲ helps" in shown.stdout and "a_control" in shown.stdout and SINGLE not in shown.stdout
    (table,) = json.loads(run_djsb("rank", tmp_path / "work", "--json").stdout)
    assert [row["seeds"] for row in table["rows"]] == [3, 3, 3, 3] and table["rows"][0]["ci_low"] is not None
    view = reading.opened(tmp_path / "work", StudyError("no study"))
    with view.store:
        tree: Tree[None] = Tree("pipelines")
        _add_pools(tree.root, reading.light(view)["pipelines"][0])
    (pools,) = tree.root.children
    assert len(pools.children) == 4 and "helps" in str(pools.children[0].label)
