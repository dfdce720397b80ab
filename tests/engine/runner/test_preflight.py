"""A worker that was given a GPU which torch does not see: it says so, and takes no job."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.runner.device import new_events
from engine.runner.local import LocalSlot
from engine.runner.messages import Unfit


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_worker_of_a_gpu_that_is_not_there_refuses_before_its_first_job(tmp_path: Path) -> None:
    events = new_events()
    slot = LocalSlot("gpu0", tmp_path / "worker.log", events)
    slot.start()
    try:
        message = events.get(timeout=120).message
    finally:
        slot.kill()
    assert isinstance(message, Unfit)
    assert message.why.startswith("gpu0: torch") and "CUDA_VISIBLE_DEVICES=" in message.why
