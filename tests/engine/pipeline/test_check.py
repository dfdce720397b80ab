"""All that is wrong with a pipeline is told before anything runs, one line each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from engine.data.readers.pool_rows import write_rows_file
from engine.journal import jobs
from engine.journal.store import Store
from engine.pipeline.configuration import PipelineError, read
from engine.pipeline.start import checked
from engine.pipeline.start import start as begin
from tests.engine.pipeline.made import dup, job, jsonl, problems, write


def test_a_sound_pipeline_has_no_problem(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{}])
    second = job("eval", values={"pools": "later"}, input={"extra_configs.values.pools": "-1.pools"})
    found = checked(write(tmp_path, [dup(), second]), tmp_path)
    assert found.problems == []
    assert [node.after for node in found.nodes] == [(), ("anonymous.dup",)]


def test_every_kind_of_fault_is_told_with_job_and_key(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        [
            {"hook": "NoSuchHook"},
            {"hook": "TrainModelHook", "extra_configs": {"type": "nothing"}},
            {"hook": "TrainModelHook", "outputs": []},
            dup(duplicating_times=[0], unknown=1),
            job("b", input={"extra_configs.values.x": "anonymous.dup.pool", "other.x": "-1.pools"}),
            job("c", input={"extra_configs.values.x": "anonymous.d.res"}),
            job("d", output=["one", "two"]),
            job("e", local={"extra_configs.run.first.x": 1}),
        ],
        iter_targets=["anonymous.b.res = 3", "anonymous.b.loss >= 3"],
        iter_updater={"anonymous.b.res": "anonymous.none.extra_configs.x"},
    )
    for start in (
        "anonymous.execution_job_configs[0]: hook: 'NoSuchHook' is no hook",
        "anonymous.anonymous_meta_name: extra_configs.type: 'nothing' is no type of TrainModelHook; there are ",
        "anonymous.execution_job_configs[2]: outputs: unknown field",
        "anonymous.dup: extra_configs.duplicating_times.0: Input should be greater than or equal to 1",
        "anonymous.dup: extra_configs.unknown: unknown field",
        "anonymous.dup: extra_configs.dataset_path: a.jsonl is not there",
        "anonymous.b: input.other.x: begins with neither dj_configs nor extra_configs",
        "anonymous.b: input.extra_configs.values.x: anonymous.dup.pool: anonymous.dup gives pools, not pool",
        "anonymous.c: input.extra_configs.values.x: anonymous.d.res: anonymous.d runs only after it",
        "anonymous.d: output: names 2, and command gives 1 output(s): outputs",
        "anonymous.e: local.extra_configs.run.first.x: leads through a value that has no keys",
        "iter_targets: 'anonymous.b.res = 3' is no target",
        "iter_targets (anonymous.b.loss >= 3): anonymous.b gives res, not loss",
        "iter_updater.anonymous.b.res: anonymous.none.extra_configs.x names no job",
    ):
        assert any(line.startswith(start) for line in found), f"{start}\n" + "\n".join(found)


def test_jobs_that_wait_for_each_other_are_a_cycle(tmp_path: Path) -> None:
    found = problems(tmp_path, [
        job("a", values={"x": ""}, input={"extra_configs.values.x": "anonymous.b.res"}),
        job("b", values={"x": ""}, input={"extra_configs.values.x": "anonymous.a.res"}),
    ])  # fmt: skip
    assert "anonymous.a: input: a cycle: anonymous.b ← anonymous.a ← anonymous.b" in found


def test_a_file_that_an_earlier_job_writes_need_not_be_there(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{}])
    reads = {**dup(dataset_path="pools/iter_1/a_x2.jsonl", export_path="more"), "meta_name": "again"}
    assert problems(tmp_path, [dup(), reads]) == []
    assert problems(tmp_path, [reads, dup()]) == [
        "anonymous.again: extra_configs.dataset_path: pools/iter_1/a_x2.jsonl is not there; anonymous.dup writes it "
        "only after that; move it before"
    ]


def test_what_a_job_reads_it_does_not_write(tmp_path: Path) -> None:
    found = problems(tmp_path, [job("a") | {"extra_configs": job("a")["extra_configs"] | {
        "reads": ["program.py"], "writes": ["./program.py", "pipeline.yaml"]}}])  # fmt: skip
    assert [line.split(": ", 2)[2] for line in found] == [
        "./program.py is what it reads; write elsewhere", "pipeline.yaml is what it reads; write elsewhere",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "top, said",
    [
        ({"pipelines": [{"a": {"jobs": []}}]}, "pipelines.a.jobs: is no list of jobs"),
        ({"pipelines": [{"a": {}}, {"a": {}}]}, "pipelines.a: is there twice"),
        ({"pipelines": [{"a.b": {}}]}, "pipelines.a.b: is no name"),
        ({"pipelines": [{"a": {}, "b": {}}]}, "pipelines: each entry is one name"),
        ({"pipelines": [], "probe_job_configs": ["x.yaml"]}, "pipelines: stands beside lists of jobs"),
        ({"probe_job_configs": ["x.yaml"]}, "anonymous.probe_job_configs[0]: x.yaml cannot be read"),
        ({"probe_job_configs": None}, "pipelines: it has no job"),
        ({"max_iter_num": 0}, "iter_targets: max_iter_num is 0 and there is no target"),
    ],
)
def test_faults_of_the_whole(tmp_path: Path, top: dict[str, object], said: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(top), encoding="utf-8")
    _, found = read(file, tmp_path)
    assert any(str(problem).startswith(said) for problem in found), found


@pytest.mark.parametrize("text", ["- a", "work_dir: [", "a: !!python/object:os.system {}", "unknown: 1", "debug: x"])
def test_a_file_that_is_no_configuration_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PipelineError) as error:
        read(file, tmp_path)
    assert "\n" not in str(error.value) and str(file) in str(error.value)


def test_a_pool_of_which_only_the_row_numbers_are_there_is_known(tmp_path: Path) -> None:
    """It is read, and a job is run again when they change."""
    rows = jsonl(tmp_path / "a.jsonl", [{"id": i, "text": str(i)} for i in range(10)])
    write_rows_file(tmp_path / "pool.jsonl", rows, np.arange(4))
    copy = dup(dataset_path="pool.jsonl")
    assert problems(tmp_path, [copy]) == []
    file = write(tmp_path, [copy])
    states = []
    for count in (4, 4, 6):
        write_rows_file(tmp_path / "pool.jsonl", rows, np.arange(count))
        ended = begin(file, tmp_path, tell=lambda _: None)
        with Store(tmp_path / "work/.djsb/study.db", readonly=True) as store:
            (row,) = jobs.jobs_of(store, ended.run)
        (made,) = (tmp_path / "pools").rglob("pool_x2.jsonl")
        states.append((bool(row.reused), len(made.read_text().splitlines())))
    assert states == [(False, 8), (True, 8), (False, 12)]
    (tmp_path / "pool.jsonl.rows").unlink()
    (problem,) = problems(tmp_path, [copy])
    assert "pool.jsonl is not there; check the path" in problem
