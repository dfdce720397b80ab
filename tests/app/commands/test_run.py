"""`djsb run` at the command line: exit codes, one line for an error, what it prints."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import run_djsb, the_error
from tests.engine.pipeline.made import job, write


def test_a_run_is_printed_and_reported(tmp_path: Path) -> None:
    write(tmp_path, [job("a", "{'loss': 0.0}")], project_name="<b>demo</b>")
    done = run_djsb("run", "pipeline.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "anonymous.a" in done.stdout and "res = {'loss': 0.0}" in done.stdout
    again = json.loads(run_djsb("run", "pipeline.yaml", "--json", cwd=tmp_path).stdout)
    assert again["how"] == "done" and again["jobs"][0]["outputs"] == {"res": {"loss": 0.0}}
    page = Path(run_djsb("report", "work", cwd=tmp_path).stdout.strip()).read_text(encoding="utf-8")
    log = run_djsb("log", "work", "--job", "anonymous.a", cwd=tmp_path)
    assert log.returncode == 0 and "it runs" in log.stdout
    assert "there are anonymous.a" in the_error(run_djsb("log", "work", "--job", "anonymous.b", cwd=tmp_path))
    assert "&lt;b&gt;demo" in page and "<b>demo" not in page and "anonymous.a" in page


def test_a_failure_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    write(tmp_path, [job("a", "1 / 0")])
    done = run_djsb("run", "pipeline.yaml", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith("djsb: anonymous.a: ") and "ZeroDivisionError" in done.stderr


def test_what_is_wrong_is_told_and_nothing_runs(tmp_path: Path) -> None:
    write(tmp_path, [job("a"), job("b", input={"extra_configs.values.x": "-1.nothing"})], iter_targets="x >= one")
    shown = run_djsb("run", "pipeline.yaml", "--dry-run", cwd=tmp_path)
    assert shown.returncode == 1 and "2 problem(s)" in shown.stdout
    error = the_error(run_djsb("run", "pipeline.yaml", cwd=tmp_path))
    assert "iter_targets" in error and "(and 1 more" in error and not (tmp_path / "work").exists()
