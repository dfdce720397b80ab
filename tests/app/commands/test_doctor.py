"""`djsb doctor`: what is missing is named with what gets it; nothing is fetched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from app.commands.doctor import doctor
from engine.tasks.registry import task_names
from tests.conftest import run_djsb


def test_what_this_machine_has_is_said_without_a_study(tmp_path: Path) -> None:
    ran = run_djsb("doctor", tmp_path, "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["problems"] == [] and {t["task"] for t in found["tasks"]} == set(task_names())
    assert found["machine"]["folder"] == str(tmp_path) and found["versions"]["torch"].startswith("2.")
    reasons = {line["op"]: line["reason"] for line in found["ops"]["lacking"]}
    assert "ops.stopwords_filter.stopwords_dir" in reasons["stopwords_filter"] and "text_length_filter" not in reasons
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_or_of_another_version_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = [
        "torch==1.0",
        "rich>=1",
        "nosuch>=2; extra == 'vlm'",
        "peft>=0.1; extra == 'vlm'",
        "djsb[vlm]; extra == 't2v'",
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: needs)
    found = doctor(tmp_path)
    assert any(p.startswith("torch 2.") and "is not ==1.0" in p for p in found["problems"])
    assert len(found["problems"]) == 1
    lacking = {t["task"]: (t["lacks"], t["get"]) for t in found["tasks"]}
    assert lacking["caption"] == (["nosuch is missing"], "pip install 'djsb[vlm]'")
    assert lacking["t2v"] == (["nosuch is missing"], "pip install 'djsb[t2v]'") and lacking["lm"] == ([], None)


def test_gpus_that_torch_does_not_see_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    [problem] = doctor(tmp_path)["problems"]
    assert "lists 2 GPU(s)" in problem and "CUDA_VISIBLE_DEVICES" in problem


def test_a_disk_that_is_nearly_full_is_a_problem_and_a_folder_may_not_be_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    [problem] = doctor(tmp_path / "to" / "be")["problems"]
    assert problem.startswith(f"{tmp_path} has 1.05 MB free")
