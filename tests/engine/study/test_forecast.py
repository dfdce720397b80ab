"""What is forecast of a study is what it takes, a sample says it, and a disk that is too small is told before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.commands.check import check
from app.commands.plan import plan, show_plan
from engine.base.errors import MachineError
from engine.loop.run import run_loop
from engine.study import forecast, sample
from engine.study.opened import OpenStudy, open_study
from engine.study.rows import silent
from engine.tasks.shared.images import Squares
from engine.tasks.shared.packed import open_media
from tests.conftest import Row, Tiny, make_tiny, run_djsb, write_jsonl

ROWS = 480
OPS: Row = {"text_length_filter": {}, "words_num_filter": {}}
STUDIES: dict[str, Row] = {
    "decoded": {"cache": {"form": "raw"}},
    "packs": {"cache": {"form": "jpeg"}},
    "text": {"task": "lm", "dataset": {"images": None}, "evaluation": {"label": None}, "ops": OPS},
}


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    """A study whose rows are many beside its sample."""
    monkeypatch.setattr(sample, "ROWS", 64)
    monkeypatch.setattr(sample, "WHOLE", 2)
    made = make_tiny(tmp_path, ROWS)
    made.set({"train": {"batch_size": 16}})
    yield made


def size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def open_tiny(tiny: Tiny) -> OpenStudy:
    return open_study(tiny.study, 1)


@pytest.mark.parametrize("kind", STUDIES)
def test_forecast_of_disk_is_within_a_quarter_of_what_is_used(large: Tiny, kind: str) -> None:
    large.set({"train": {"batch_size": 16}, **STUDIES[kind]})
    opened = open_tiny(large)
    with opened.store:
        seen = sample.look_at(opened, decode=False)
        assert not seen.whole
        assert seen.rows < ROWS / 4
        told = forecast.disk_of(opened, seen)
        of_sample = [opened.state / "cache" / "sample", seen.study.prepared]
        assert opened.op_columns
        for name in ("train-images", "eval-images") if opened.data.fields.images else ():
            media = open_media(opened.prepared, name)
            assert media[np.arange(len(media))].any()
        used = size(opened.state / "cache") - sum(map(size, of_sample)) if opened.prepared else 0
    assert abs(told.size - used) <= 0.25 * used, (told, used)


def test_check_decodes_a_sample_and_deep_decodes_all(large: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    for name in ("decode", "pack"):
        made = getattr(Squares, name)
        monkeypatch.setattr(
            Squares, name, lambda *args, made=made: (decoded.append(1), made(*args))[1]
        )  # in this process, as one worker forks another
    monkeypatch.setattr("engine.tasks.shared.media.run_chunks", lambda work, jobs, *_: map(work, jobs))
    found = check(large.study, 1, silent)
    assert not found["problems"]
    assert len(decoded) <= 2 * forecast.MEASURED
    assert any("images of" in line and "smallest / median / largest: " in line for line in found["findings"])
    assert any(line.startswith("disk: about ") for line in found["findings"])
    assert [i["expected"] for i in found["inputs"]][:2] == [ROWS, 60]
    decoded.clear()
    deep = check(large.study, 1, silent, deep=True)
    assert len(decoded) >= ROWS
    assert deep["inputs"] == found["inputs"]


def test_check_of_a_sample_refuses_what_cannot_be_measured(large: Tiny) -> None:
    write_jsonl(large.test_file, [{**row, "label": "one"} for row in large.test])
    (problem,) = check(large.study, 1, silent)["problems"]
    assert "evaluation.label" in problem


def test_plan_computes_no_statistics(large: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(large.study, 1, silent)
    ahead = found["forecast"]
    assert ahead["rows"] == ROWS
    assert not list((large.study / ".djsb" / "cache" / "statistics").glob("*.npy"))
    assert found["seconds"] > 0
    assert found["stages"][0]["what"].startswith("about ")
    timed = {cost["op"] for cost in ahead["statistics"]}
    assert {"text_length_filter", "reading rows and headers"} <= timed
    assert all(cost["rows"] == ROWS and cost["seconds"] > 0 for cost in ahead["statistics"] if "filter" in cost["op"])
    assert ahead["memory_bytes"] < ahead["memory_available"]
    asked = found["forecast"]["training"]  # by the worker's own calibration
    assert asked["total"] > asked["weights"] > 0 and asked["micro_batch"] is None
    training = {"weights": 4_000, "gradients": 4_000, "moments": 8_000, "activations": 2_000_000, "total": 2_016_000}
    more = {"device": 24 << 30, "micro_batch": 8, "activation_checkpointing": True}
    found["forecast"]["training"] = {**training, **more}
    show_plan(json.loads(json.dumps(found)))
    told = capsys.readouterr().out
    assert "a training takes about 2.02 MB of 25.8 GB on the smallest GPU here (weights 4 kB" in told
    assert "8 rows at once, activations made again" in told


def test_time_of_statistics_is_that_of_the_rows_that_are_left(large: Tiny) -> None:
    opened = open_tiny(large)
    with opened.store:
        assert opened.op_columns
        assert forecast.are_complete(opened)
        assert forecast.forecast(opened, None).costs.ops == ()


def test_a_disk_that_is_too_small_is_told_before_anything_is_filled(
    large: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    large.set({"train": {"batch_size": 16}, "cache": {"form": "raw"}})
    usage = shutil.disk_usage(large.root)
    scarce = usage._replace(free=forecast.SPARE + 500_000)
    monkeypatch.setattr("engine.study.forecast.shutil.disk_usage", lambda _: scarce)
    monkeypatch.setattr(forecast, "LITTLE", 0)
    told = r"the study will write .* whose disk has 1\.07 GB free.*: set cache.form to jpeg, or free .*, or move"
    with pytest.raises(MachineError, match=told):
        plan(large.study, 1, silent)
    assert any("whose disk has" in line for line in check(large.study, 1, silent)["problems"])
    opened = open_tiny(large)
    with opened.store, pytest.raises(MachineError, match=told):
        run_loop(opened, workers=1)
    cache = large.study / ".djsb" / "cache"
    assert not list(cache.glob("statistics/*.npy"))
    assert size(cache) < 2_000_000


def test_a_small_study_is_looked_at_as_it_is(tiny: Tiny) -> None:
    opened = open_tiny(tiny)
    with opened.store:
        seen = sample.look_at(opened)
        assert seen.whole
        assert seen.study is opened


def test_duplicates_of_a_large_study_are_searched_when_pools_are_cut(large: Tiny) -> None:
    large.set({"train": {"batch_size": 16}, "dedup": {"images": "phash"}})
    write_jsonl(large.train_file, [*large.rows[:-1], {**large.rows[-1], "images": large.rows[0]["images"]}])
    found = check(large.study, 1, silent)
    assert not found["problems"]
    assert any(line.startswith("dedup: duplicates are not searched yet") for line in found["findings"])
    assert "left out (dedup)" in run_djsb("check", large.study, "--deep").stdout


def test_checkpoints_and_states_of_trainings_are_counted(tiny: Tiny) -> None:
    tiny.set({"train": {"keep_checkpoints": 3}, "search": {"strategy": "race", "pause_gb": 0.01}, "ops": OPS})
    opened = open_tiny(tiny)
    with opened.store:
        each = opened.task.kept(opened.study, opened.folder)
        assert each is not None
        told = {thing.what: thing for thing in forecast._of_models(opened)}
        assert told["checkpoints"].size == 4 * each.checkpoint
        (states,) = (what for what in told if what.startswith("states of trainings that may go on"))
        assert told[states].size == 10_000_000
        assert f"({10_000_000 // each.state} of " in states and "more start anew" in states
