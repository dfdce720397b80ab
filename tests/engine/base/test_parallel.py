"""Work over processes goes on when one of them is killed, and ends with a plain line when that happens again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from engine.base.errors import MachineError
from engine.base.parallel import place, run_chunks


def die_of_three(job: tuple[int, Path, bool]) -> int:
    """Its process is killed at the third job: once, or whenever it comes."""
    number, file, always = job
    if number == 3 and (always or not file.exists()):
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_process_loses_no_job_and_repeats_no_result(tmp_path: Path) -> None:
    jobs = [(n, tmp_path / "killed", False) for n in range(40)]
    assert sorted(run_chunks(die_of_three, jobs, 2)) == list(range(40))
    assert (tmp_path / "killed").exists()


def test_processes_that_are_killed_again_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="a data worker died, most often for want of memory; lower --workers"):
        list(run_chunks(die_of_three, [(n, tmp_path / "killed", True) for n in range(5)], 2))


def where(job: tuple[int, Path | None]) -> tuple[int, str, str]:
    """(process, its place, the GPUs that it sees); its process is killed once at the third job."""
    number, file = job
    if number == 3 and file and not file.exists():
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return os.getpid(), place(), os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.parametrize("killed", [False, True])
def test_each_gpu_has_one_process_which_sees_no_other(tmp_path: Path, killed: bool) -> None:
    jobs = [(n, tmp_path / "killed" if killed else None) for n in range(20)]
    told = list(run_chunks(where, jobs, 7, ("0", "GPU-b")))
    assert len(told) == 20
    assert {"0"} <= {name for _, name, _ in told} <= {"0", "GPU-b"}
    assert all(name == seen for _, name, seen in told)
    names: dict[int, set[str]] = {}
    for process, name, _ in told:
        names.setdefault(process, set()).add(name)
    assert all(len(held) == 1 for held in names.values())
    assert len(names) == 2 or killed  # the work of a killed process is done by another one
    assert place() == ""
