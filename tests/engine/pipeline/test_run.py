"""Pipelines run job by job: what has finished is not run again, whatever ended the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.base.paths import ENTRY
from engine.journal import costs, jobs
from engine.journal.store import Store
from engine.pipeline import values
from engine.pipeline.configuration import PipelineError
from engine.pipeline.contract import ComponentError
from engine.pipeline.start import Ended, start
from tests.engine.pipeline.made import dup, job, jsonl, ran, write


def go(folder: Path, **options: Any) -> Ended:
    return start(folder / "pipeline.yaml", folder, tell=lambda _: None, **options)


def outputs(folder: Path, ended: Ended) -> dict[str, Any]:
    """Job → its first output, of the last iteration."""
    with Store(folder / "work/.djsb/study.db", readonly=True) as store:
        return {row.key: values.decode(jobs.outputs(store, row.result)[0])
                for row in jobs.jobs_of(store, ended.run) if row.result and row.state == "COMPLETE"}  # fmt: skip


CHAIN = [
    job("a", "{'zero': 0.0, 'none': {}}"),
    job("b", "{'got': got[0]}", values={"x": ""}, input={"extra_configs.values.x": "-1.res.zero"}),
    job("c", "{'got': got[0]}", values={"x": ""}, input={"extra_configs.values.x": "anonymous.a.res.none"}),
]


def test_outputs_pass_from_job_to_job_and_nothing_runs_twice(tmp_path: Path) -> None:
    write(tmp_path, CHAIN)
    assert outputs(tmp_path, go(tmp_path)) == {
        "anonymous.a": {"zero": 0.0, "none": {}}, "anonymous.b": {"got": 0.0}, "anonymous.c": {"got": {}},
    }  # fmt: skip
    assert ran(tmp_path) == ["a", "b", "c"]
    go(tmp_path)
    assert ran(tmp_path) == []


def test_a_changed_job_reruns_itself_and_what_hangs_on_it(tmp_path: Path) -> None:
    write(tmp_path, CHAIN)
    go(tmp_path)
    ran(tmp_path)
    changed = job("b", "{'got': 7}", values={"x": ""}, input={"extra_configs.values.x": "-1.res.zero"})
    more = job("d", "{}", values={"x": ""}, input={"extra_configs.values.x": "anonymous.b.res"})
    write(tmp_path, [CHAIN[0], changed, CHAIN[2], more])
    go(tmp_path)
    assert ran(tmp_path) == ["b", "d"]
    go(tmp_path, again=["anonymous.b"])
    assert ran(tmp_path) == ["b", "d"]
    with pytest.raises(PipelineError, match=r"anonymous\.x"):
        go(tmp_path, again=["anonymous.x"])


def test_files_that_are_read_or_were_written_count(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{"x": 1}])
    write(tmp_path, [dup(), job("e", values={"p": ""}, input={"extra_configs.values.p": "-1.pools"})])
    go(tmp_path)
    assert ran(tmp_path) == ["e"]
    target = tmp_path / "pools/iter_1/a_x2.jsonl"
    target.unlink()
    go(tmp_path)
    assert target.exists() and ran(tmp_path) == []  # it came out as it had been
    jsonl(tmp_path / "a.jsonl", [{"x": 2}])
    go(tmp_path)
    assert ran(tmp_path) == ["e"]


def test_a_failed_job_ends_the_run_in_one_line_and_is_tried_again(tmp_path: Path) -> None:
    write(tmp_path, [CHAIN[0], job("bad", "1 / 0"), job("after")])
    with pytest.raises(ComponentError, match=r"anonymous\.bad: .* ended with exit code 1"):
        go(tmp_path)
    with pytest.raises(ComponentError):
        go(tmp_path)
    assert ran(tmp_path) == ["a", "bad", "bad"]
    with closing(Store(tmp_path / "work/.djsb/study.db", readonly=True)) as store:
        (run,) = jobs.runs(store)
        rows = {row.label: row for row in jobs.jobs_of(store, run.run)}
        assert (run.state, rows["bad"].state, rows["after"].state) == ("failed", "FAIL", "WAITING")
        assert "ZeroDivisionError" in "\n".join(line.text for line in jobs.lines(store, rows["bad"].result or ""))


def test_a_string_is_never_run(tmp_path: Path) -> None:
    text = "__import__('os').system('touch hacked')"
    write(tmp_path, [job("a", repr({"x": text}))], iter_targets=["anonymous.a.res.x >= 1"], max_iter_num=2)
    with pytest.raises(PipelineError, match="no finite number"):
        go(tmp_path)
    assert not (tmp_path / "hacked").exists()


def test_iterations_go_on_until_the_target_holds(tmp_path: Path) -> None:
    counts = job("count", "{'n': got[0] + 1}", values={"n": 0})
    top = {"iter_updater": {"anonymous.count.res.n": "anonymous.count.extra_configs.values.n"}}
    write(tmp_path, [counts], max_iter_num=0, iter_targets="anonymous.count.res.n >= 3", **top)
    ended = go(tmp_path)
    assert ended.iterations == 3 and outputs(tmp_path, ended)["anonymous.count"] == {"n": 3}
    targets = ["anonymous.count.res.n >= 5", "anonymous.count.res.n == 2"]
    for mode, iterations, new in (("any", 2, 0), ("all", 4, 1)):
        write(tmp_path, [counts], max_iter_num=4, iter_targets=targets, iter_targets_mode=mode, **top)
        ran(tmp_path)
        assert go(tmp_path).iterations == iterations
        assert len(ran(tmp_path)) == new


def test_each_iteration_writes_to_its_own_folder(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{}])
    write(tmp_path, [dup()], max_iter_num=2)
    go(tmp_path)
    assert sorted(f.name for f in (tmp_path / "pools").iterdir()) == ["iter_1", "iter_2"]


def spent(folder: Path) -> float:
    with Store(folder / "work/.djsb/study.db", readonly=True) as store:
        return costs.total(store)


@pytest.mark.long
def test_the_budget_ends_a_job_and_the_run_goes_on_with_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.pipeline.process.TICK", 0.1)
    write(tmp_path, CHAIN[:1])
    go(tmp_path)
    write(tmp_path, CHAIN)
    monkeypatch.setenv("PIPE_SLOW", "b")
    monkeypatch.setenv("PIPE_WAIT", "600")
    limit = 3 * spent(tmp_path) + 1
    ended = go(tmp_path, budget=f"{limit:.3f}s")
    assert ended.how == "budget" and "budget is spent" in ended.note
    assert limit <= spent(tmp_path) < limit + 60  # a busy machine may look late
    again = go(tmp_path, budget=f"{limit:.3f}s")
    assert again.how == "budget" and "does not fit" in again.note
    monkeypatch.setenv("PIPE_WAIT", "0")
    ran(tmp_path)
    assert go(tmp_path).how == "done"
    assert ran(tmp_path) == ["b", "c"]


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_killed_in_a_job_it_goes_on_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    write(tmp_path, CHAIN)
    environment = {**os.environ, "PIPE_SLOW": "b", "PIPE_WAIT": "300"}
    command = [sys.executable, str(ENTRY), "run", "pipeline.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    file = tmp_path / "ran.txt"
    deadline = time.monotonic() + 120
    while not file.exists() or "b" not in file.read_text(encoding="utf-8").split():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any("program.py" in line and str(tmp_path) in _place(line) for line in _processes()):
        assert time.monotonic() < deadline, "its program goes on"
        time.sleep(0.2)
    ran(tmp_path)
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    assert ran(tmp_path) == ["b", "c"]


def _processes() -> list[str]:
    return subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()


def _place(line: str) -> str:
    try:
        return str(Path(f"/proc/{line.split()[0]}/cwd").readlink())
    except OSError:
        return ""


def test_seeds_repeat_what_hangs_on_a_seed(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{}])
    score = job("score", "{'loss': seed + 1}", values={"p": ""}, input={"extra_configs.values.p": "-1.pools"})
    write(tmp_path, [dup(), score], seeds=3, iter_targets=["anonymous.score.res.loss == 2"], max_iter_num=2)
    ended = go(tmp_path)
    assert ended.iterations == 1  # the mean of 1, 2 and 3
    with Store(tmp_path / "work/.djsb/study.db", readonly=True) as store:
        assert [(row.label, row.seed) for row in jobs.jobs_of(store, ended.run)] == [
            ("dup", 0), ("score", 0), ("score", 1), ("score", 2),
        ]  # fmt: skip
