"""What `djsb check` says of a study's devices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from app.commands.check import _check_slurm
from engine.settings.study import Study


def checked(**executor: Any) -> dict[str, list[str]]:
    study = {"name": "s", "dataset": {"path": "x"}, "ops": {}, "executor": executor, "devices_per_trial": 2}
    found: dict[str, list[str]] = {"findings": [], "problems": []}
    _check_slurm(SimpleNamespace(study=Study.model_validate(study)), None, found)  # type: ignore[arg-type]
    return found


def test_what_slurm_would_be_asked_for_is_told_and_what_lacks_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = checked(kind="slurm", slurm={"gpus": 4, "partition": "a100", "time": "8h"})
    assert found["findings"] == [
        "slurm: up to 4 job(s) at once, each of 4 GPU(s) and 16 CPU core(s) of one node for 8h; partition a100",
        "slurm: 2 trial(s) at once in a job; charged is what a job takes, its idle time too",
    ]
    (problem,) = found["problems"]
    assert problem == (
        "executor: slurm needs sbatch, squeue, scancel, srun; run djsb on a machine that submits to the cluster"
    )
    too_few = checked(kind="slurm")["problems"][0]
    assert too_few == "devices_per_trial is 2, and a job has 1; raise executor.slurm.gpus, or lower it"
