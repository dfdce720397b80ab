"""A search finds what was planted, goes on where it was cut off, and stops what is behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.journal import jobs
from engine.journal.store import Store
from engine.pipeline import process, registry, values
from engine.pipeline.contract import Component, Context, Done, Group, Settings
from engine.pipeline.hooks import PROCESS
from engine.pipeline.start import Ended, checked, start

RECIPE = {"export_path": "out.jsonl", "process": [
    {"text_length_filter": {"min_len": 0}}, {"character_repetition_filter": {"rep_len": 10, "max_ratio": 1.0}},
]}  # fmt: skip
TWO = {"text_length_filter.min_len": {"min": 0, "max": 200},
       "character_repetition_filter.max_ratio": {"distribution": "uniform", "min": 0.0, "max": 1.0}}  # fmt: skip


class Recipe(Group):
    """Any recipe."""

    export_path: str
    process: list[dict[str, Any]]


class Keys(Settings):
    """See Settings."""

    dj_configs: Recipe  # type: ignore[assignment]


class Played(Component[Keys]):
    """A job whose work the test does."""

    name, hooks, settings, gives, tracks = "played", frozenset({PROCESS}), Keys, ("score",), True

    def run(self, settings: Keys, context: Context) -> Done:
        raise AssertionError("the test does its work")


Loss = Callable[[dict[str, Any], int], float]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run a sweep in which a job's loss is a function of its OPs' parameters and the iteration."""
    monkeypatch.setattr(registry, "declared", lambda: {(PROCESS, "played"): Played()})

    def run(loss: Loss, sweep: dict[str, Any], **top: Any) -> Ended:
        calls: list[Any] = []

        def run_job(order: dict[str, Any], _environ: Any, _listener: Any) -> tuple[dict[str, Any], float]:
            groups = values.decode(order["groups"])["dj_configs"]
            ops = {name: params for entry in groups["process"] for name, params in entry.items()}
            calls.append(ops)
            found = loss(ops, int(groups["export_path"].split("iter_")[1].split("/")[0]))
            return {"outputs": [values.encode(found, "")], "tracked": values.encode({"loss": found}, "")}, 0.1

        monkeypatch.setattr(process, "run_job", run_job)
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
        job = {"hook": PROCESS, "meta_name": "p", "output": "score", "dj_configs": RECIPE}
        config = {"work_dir": "work", "hpo_config": "sweep.yaml", "execution_job_configs": [job], **top}
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        ended = start(tmp_path / "p.yaml", tmp_path, tell=lambda _: None)
        run.calls = calls  # type: ignore[attr-defined]
        return ended

    return run


def trials(folder: Path, run: str) -> list[tuple[dict[str, Any], str, float | None]]:
    with Store(folder / "work/.djsb/study.db", readonly=True) as store:
        return [(json.loads(t.params), t.state, t.objective) for t in jobs.sweep(store, run)]


def planted(ops: dict[str, Any], _iteration: int) -> float:
    """Least at min_len 140 and max_ratio 0.3."""
    length, ratio = ops["text_length_filter"]["min_len"], ops["character_repetition_filter"]["max_ratio"]
    assert isinstance(length, int) and ops["character_repetition_filter"]["rep_len"] == 10
    return ((length - 140) / 200) ** 2 + float(ratio - 0.3) ** 2


@pytest.mark.long
def test_bayes_finds_the_planted_optimum_of_two_parameters(tmp_path: Path, play: Any) -> None:
    sweep = {"method": "bayes", "metric": {"name": "p.loss", "goal": "minimize"}, "sweep_max_count": 25,
             "parameters": TWO}  # fmt: skip
    ended = play(planted, sweep)
    found = trials(tmp_path, ended.run)
    assert len(found) == 25
    params, state, loss = min(found, key=lambda t: t[2] or 0.0)
    assert state == "COMPLETE" and loss is not None and loss < 0.002
    assert abs(params["text_length_filter.min_len"] - 140) <= 8 and ended.note.startswith("best p.loss")
    assert abs(params["character_repetition_filter.max_ratio"] - 0.3) <= 0.04


def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path: Path, play: Any) -> None:
    sweep = {"method": "random", "metric": {"name": "anonymous.p.score"}, "sweep_max_count": 6, "parameters": {
        **TWO, "character_repetition_filter.rep_len": {"value": 10}}}  # fmt: skip
    whole = trials(tmp_path, play(planted, sweep).run)
    with Store(tmp_path / "work/.djsb/study.db") as store:
        store.execute("DELETE FROM sweep_trials WHERE variant > 2")
        store.execute("DELETE FROM job_results")
    again = trials(tmp_path, play(planted, sweep).run)
    assert again == whole and len(play.calls) == 4


def test_a_grid_has_every_combination_once(tmp_path: Path, play: Any) -> None:
    grid = {"text_length_filter.min_len": {"values": [1, 2, 3]},
            "p.dj_configs.process.character_repetition_filter.max_ratio": {"values": [0.1, 0.2]}}  # fmt: skip
    found = trials(tmp_path, play(planted, {"method": "grid", "metric": {"name": "p.loss"}, "parameters": grid}).run)
    assert len({tuple(params.values()) for params, _, _ in found}) == len(found) == 6


def test_hyperband_ends_variants_that_are_behind(tmp_path: Path, play: Any) -> None:
    sweep = {"method": "random", "metric": {"name": "p.loss"}, "sweep_max_count": 12, "parameters": TWO,
             "early_terminate": {"type": "hyperband", "min_iter": 1, "max_iter": 4, "eta": 2}}  # fmt: skip
    ended = play(lambda ops, iteration: planted(ops, iteration) / iteration, sweep, max_iter_num=4)
    states = [state for _, state, _ in trials(tmp_path, ended.run)]
    assert "PRUNED" in states and "COMPLETE" in states and len(play.calls) < 48


def test_a_variant_that_fails_is_left_aside(tmp_path: Path, play: Any) -> None:
    def loss(ops: dict[str, Any], iteration: int) -> float:
        if ops["text_length_filter"]["min_len"] == 2:
            raise process.Refused("no rows are left")
        return planted(ops, iteration)

    grid = {"text_length_filter.min_len": {"values": [1, 2, 3]}}
    ended = play(loss, {"method": "grid", "metric": {"name": "p.loss"}, "parameters": grid})
    assert [state for _, state, _ in trials(tmp_path, ended.run)] == ["COMPLETE", "FAIL", "COMPLETE"]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"method": "magic"}, "hpo_config.method: Input should be 'grid', 'random' or 'bayes'"),
        ({"parameters": {"no_filter.x": {"value": 1}}}, "hpo_config.parameters.no_filter.x: names no key of a job"),
        ({"parameters": {"text_length_filter.min_len": {"min": 2, "max": 1}}}, "min lies below max"),
        ({"parameters": {"text_length_filter.min_len": {"distribution": "x", "min": 0, "max": 1}}}, "is none of"),
        ({"parameters": {}}, "there is none"),
        ({"metric": {"name": "q.loss"}}, "q.loss begins with no job's name"),
        ({"sweep_max_count": None}, "method random never ends by itself"),
        ({"unknown": 1}, "hpo_config.unknown: unknown field"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(registry, "declared", lambda: {(PROCESS, "played"): Played()})
    sweep = {"method": "random", "metric": {"name": "p.loss"}, "sweep_max_count": 2, "parameters": TWO, **change}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    job = {"hook": PROCESS, "meta_name": "p", "dj_configs": RECIPE}
    (tmp_path / "p.yaml").write_text(
        yaml.safe_dump({"hpo_config": "sweep.yaml", "execution_job_configs": [job]}), encoding="utf-8"
    )
    found = [str(problem) for problem in checked(tmp_path / "p.yaml", tmp_path).problems]
    assert any(said in line for line in found), found
