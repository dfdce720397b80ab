"""Devices and the worker process on each: one slot per GPU, or one thread-pinned process per CPU core."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import engine
from engine.store import Row

ENTRY = Path(engine.__file__).resolve().parents[1] / "djsb.py"


def gpus() -> list[str]:
    """Indices of the GPUs that may be used, by nvidia-smi; CUDA_VISIBLE_DEVICES narrows them."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.strip() for line in listed.stdout.splitlines() if line.strip().isdigit()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if visible is None else [v.strip() for v in visible.split(",") if v.strip()]


def devices(workers: int | None) -> list[str]:
    """Names of the devices that trials run on: `gpu0` …, or `cpu0` …; `workers` limits them."""
    found = [f"gpu{g}" for g in gpus()] or [f"cpu{c}" for c in range(len(os.sched_getaffinity(0)))]
    if workers and found[0].startswith("cpu"):
        return [f"cpu{c}" for c in range(workers)]
    return found[:workers] if workers else found


@dataclass
class Slot:
    """One device and the worker process on it."""

    device: str
    log: Path
    events: queue.Queue[tuple[Slot, dict[str, Any] | None]]
    process: subprocess.Popen[str] | None = None
    trial: Row | None = None
    heard: float = 0.0
    seconds: float = 0.0
    ready: bool = False
    _stderr: IO[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start the worker, with its own threads and device."""
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "DJSB_THREADS": "1", "OMP_NUM_THREADS": "1"}
        if self.device.startswith("gpu"):
            env |= {"CUDA_VISIBLE_DEVICES": self.device[3:], "DJSB_THREADS": "4", "OMP_NUM_THREADS": "4"}
        else:
            env["CUDA_VISIBLE_DEVICES"] = ""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._stderr = self.log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, str(ENTRY), "worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True, env=env,
            start_new_session=True,
        )  # fmt: skip
        cores = sorted(os.sched_getaffinity(0))
        if self.device.startswith("cpu") and int(self.device[3:]) < len(cores):
            os.sched_setaffinity(self.process.pid, {cores[int(self.device[3:])]})
        self.ready, self.heard = False, time.monotonic()
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.events.put((self, json.loads(line)))
        process.wait()  # its output may close a moment before it can be reaped
        self.events.put((self, None))

    def send(self, message: dict[str, Any]) -> None:
        """Give the worker a job; a worker that has just died is found by its closed output."""
        assert self.process is not None and self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its end arrives as an event
        self.heard, self.seconds = time.monotonic(), 0.0

    def kill(self) -> None:
        """End the worker at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self._stderr:
                self._stderr.close()
        self.process, self.ready = None, False
