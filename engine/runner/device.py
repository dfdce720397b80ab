"""The contract of a device: a slot that runs one worker."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any, Protocol

from engine.journal.trials import QueuedTrial

Events = queue.Queue[tuple["Slot", dict[str, Any] | None]]


class Slot(Protocol):
    """A device and the worker on it.

    device: its unique name. log: file of the worker's standard error. ready: the worker waits for jobs.
    heard: time of its last event. lost: the device is gone for good. trials: what runs on it now, by id.
    seconds: device-seconds of the running job that are charged. Events arrive on one queue, None when
    the worker is gone.
    """

    device: str
    log: Path
    ready: bool
    heard: float
    lost: bool
    trials: dict[str, QueuedTrial]
    seconds: float

    @property
    def started(self) -> bool:
        """True while there is a worker, ready or not."""
        ...

    def start(self) -> None:
        """Start the worker, with its own threads and device."""
        ...

    def send(self, message: dict[str, Any]) -> None:
        """Give the worker a job; a worker that has just died is found by its last event."""
        ...

    def kill(self) -> None:
        """End the worker at once."""
        ...

    def died(self) -> str | None:
        """How a worker that was started has ended, or None."""
        ...


def worker_env(device: str) -> dict[str, str]:
    """What a worker's environment adds: its device and its threads (one on a CPU core, four beside a GPU)."""
    threads = "4" if device.startswith("gpu") else "1"
    visible = device[3:] if device.startswith("gpu") else ""
    return {
        "PYTHONUNBUFFERED": "1", "DJSB_THREADS": threads, "OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": visible,
        "DJSB_DEVICE": device,
    }  # fmt: skip
