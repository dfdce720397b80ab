"""Work over processes goes on when one of them is killed, and ends with a plain line when that happens again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from engine.base.errors import MachineError
from engine.base.parallel import run_chunks


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
