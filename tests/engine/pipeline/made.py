"""Pipelines of small programs, for tests: each notes that it ran, and gives what the test asks for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

PROGRAM = """
import json, os, sys, time
name, out, content = sys.argv[1:4]
print("it runs")
with open("ran.txt", "a") as file:
    file.write(name + "\\n")
time.sleep(float(os.environ.get("PIPE_WAIT", "0")) if name == os.environ.get("PIPE_SLOW") else 0)
given = eval(content, {"seed": int(sys.argv[4]), "got": [a if a[:1] == "/" else json.loads(a) for a in sys.argv[5:]]})
json.dump(given, open(os.path.join(out, "outputs.json"), "w"))
"""


def job(name: str, gives: str = "{}", values: Any = None, **more: Any) -> dict[str, Any]:
    """A job that runs PROGRAM. gives: an expression over seed and got, the values. more: other keys of the job."""
    values = values or {}
    run = [sys.executable, "program.py", name, "{out}", gives, "{seed}", *(f"{{{key}}}" for key in values)]
    extra = {"type": "command", "run": run, "values": values, "env": ["PIPE_WAIT", "PIPE_SLOW"]}
    return {"hook": "EvaluateDataHook", "meta_name": name, "output": "res", **more, "extra_configs": extra}


def dup(**keys: Any) -> dict[str, Any]:
    """A job that writes a pool of a.jsonl twice over, as pools/iter_N/a_x2.jsonl."""
    usual = {"dataset_path": "a.jsonl", "export_path": "pools", "duplicating_times": [2], "form": "jsonl"}
    extra = {"type": "data_pool_duplication", **usual, **keys}
    return {"hook": "DataPoolManipulationHook", "meta_name": "dup", "output": "pools", "extra_configs": extra}


def write(folder: Path, jobs: list[dict[str, Any]] | dict[str, list[dict[str, Any]]], **top: Any) -> Path:
    """A configuration of these jobs, or of pipelines of jobs."""
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    pipelines: dict[str, Any] = {"execution_job_configs": jobs}
    if isinstance(jobs, dict):
        pipelines = {"pipelines": [{name: {"execution_job_configs": one}} for name, one in jobs.items()]}
    file = folder / "pipeline.yaml"
    file.write_text(yaml.safe_dump({"work_dir": "work", **pipelines, **top}, sort_keys=False), encoding="utf-8")
    return file


def ran(folder: Path) -> list[str]:
    """The jobs that ran since the last look, in order."""
    file = folder / "ran.txt"
    names = file.read_text(encoding="utf-8").split() if file.exists() else []
    file.unlink(missing_ok=True)
    return names


def problems(folder: Path, jobs: Any, **top: Any) -> list[str]:
    """What is wrong with such a configuration."""
    from engine.pipeline.start import checked

    return [str(problem) for problem in checked(write(folder, jobs, **top), folder).problems]


def jsonl(file: Path, rows: list[Any]) -> Path:
    """One row a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
