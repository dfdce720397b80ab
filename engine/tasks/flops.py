"""Floating-point operations of a trained sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.base.scratch import scratch
from engine.settings.study import Study

if TYPE_CHECKING:
    from engine.tasks.contract import Task


def count_flops(task: Task, study: Study, prepared: Path) -> float:
    """FLOPs of a trained sample, forward and backward, by torch's counter: two steps less one, without evaluation."""
    from torch.utils.flop_counter import FlopCounterMode

    from engine.tasks.contract import SILENT, Job

    batch, counted = study.train.batch_size, []
    with scratch() as folder:
        rows = folder / "rows.npy"
        np.save(rows, np.arange(batch, dtype=np.int64))
        for steps in (1, 2):
            job = Job("flops", str(rows), steps * batch, 0, None, "", horizon=2 * batch)
            with FlopCounterMode(display=False) as counter:
                task.run(study, prepared, job, SILENT)
            counted.append(counter.get_total_flops())
    return float(counted[1] - counted[0]) / batch
