"""A worker's calibration, where memory runs out after what was fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import MachineError
from engine.runner.worker import _timed
from engine.settings.study import Study


class Hungry:
    """A task whose evaluation takes a share of memory for each row at once."""

    def __init__(self, most: int, error: str = "CUDA out of memory") -> None:
        self.most, self.error = most, error
        self.tried: list[int] = []

    def calibrate(self, study: Study, _prepared: Path) -> tuple[float, float]:
        rows = study.train.micro_batch or study.train.batch_size
        self.tried.append(rows)
        if rows > self.most:
            raise RuntimeError(self.error)
        return 0.1, 2.0


def timed(task: Any) -> tuple[Study, tuple[float, float]]:
    study = {"name": "s", "dataset": {"path": "x"}, "ops": {}, "train": {"batch_size": 16}}
    return _timed(task, Study.model_validate(study), Path())


def test_a_calibration_for_want_of_memory_is_tried_with_fewer_rows_at_once() -> None:
    task = Hungry(5)
    study, found = timed(task)
    assert task.tried == [16, 8, 4] and found == (0.1, 2.0)
    assert (study.train.micro_batch, study.train.batch_size) == (4, 16)
    with pytest.raises(MachineError, match=r"with 1 row at once either; free memory on the device"):
        timed(Hungry(0))
    with pytest.raises(RuntimeError, match="a shape"):
        timed(Hungry(5, "a shape does not fit"))
