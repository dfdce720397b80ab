"""What a worker takes of the machine is measured, children included, and costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.base import nvml
from engine.base.usage import Sampler
from engine.records.usage import MEASURES

BUSY = """
import os, sys, time
held, end = bytearray(100 << 20), time.process_time() + 0.5
while time.process_time() < end: pass
with open(sys.argv[1], "wb") as file:
    file.write(bytes(8 << 20)); file.flush(); os.fsync(file.fileno())
print("done", flush=True); sys.stdin.read()
"""


def test_children_count_and_keep_what_they_worked_when_they_have_ended(tmp_path: Path) -> None:
    sampler = Sampler()
    command = [sys.executable, "-S", "-c", BUSY, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdin
        child.stdout.readline()
        seconds, values = sampler.read()
        child.stdin.close()
        child.wait()
    assert values["cpu"] * seconds / 100 >= 0.5
    assert values["memory"] > 100 << 20 and values["written"] >= 8 << 20
    _, after = sampler.read()
    assert after["memory"] < values["memory"] and after["written"] >= values["written"]
    assert set(after) <= set(MEASURES) and "gpu" not in after


def test_of_several_gpus_each_measure_is_joined_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [nvml.Gpu("0", "H", 20.0, 5.0, 9.0, 100.0, 40.0), nvml.Gpu("1", "H", 40.0, 7.0, 9.0, None, 60.0)]
    monkeypatch.setattr(nvml, "read", lambda names: gpus if names == ("0", "1") else [])
    _, values = Sampler(("0", "1")).read()
    told = {name: value for name, value in values.items() if name.startswith("gpu")}
    assert told == {"gpu": 30.0, "gpu_memory": 7.0, "gpu_power": 100.0, "gpu_temperature": 60.0}


def test_a_reading_takes_less_than_a_hundredth_of_the_time_between_two() -> None:
    sampler = Sampler()
    began = time.process_time()
    for _ in range(20):
        sampler.read()
    assert (time.process_time() - began) / 20 < 0.02
