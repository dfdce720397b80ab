"""Devices and the worker process on each: one slot per GPU, or one thread-pinned process per CPU core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from engine.base.environment import passed
from engine.base.gpus import gpus
from engine.base.lifetime import state
from engine.base.paths import ENTRY
from engine.runner.device import CHUNK, Events, Listener, Slot, worker_env
from engine.runner.ranks import PINS
from engine.tasks.contract import BARE


def devices(workers: int | None) -> list[str]:
    """Names of this machine's devices that trials run on: `gpu0` …, or `cpu0` …; `workers` limits them."""
    found = [f"gpu{g}" for g in gpus()] or [f"cpu{c}" for c in range(len(os.sched_getaffinity(0)))]
    if workers and found[0].startswith("cpu"):
        return [f"cpu{c}" for c in range(workers)]
    return found[:workers] if workers else found


def launch(env: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a worker process. log: its standard error."""
    return subprocess.Popen(
        [sys.executable, str(ENTRY), "worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=dict(env), start_new_session=True,
    )  # fmt: skip


class LocalSlot(Slot):
    """A device of this machine, or several, and the worker process on it."""

    def __init__(
        self, device: str, log: Path, events: Events, extra: Mapping[str, str] | None = None,
        devices: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """extra: what the worker's environment holds besides."""
        super().__init__(device, log, events, devices)
        self.extra = extra or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    @property
    def started(self) -> bool:
        """See Slot."""
        return self._process is not None

    def start(self) -> None:
        """See Slot."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._stderr = self.log.open("ab")
        cores = self._cores()
        apart = self.width > 1 and BARE not in self.extra  # a process each, which pins itself
        pins = {PINS: " ".join(map(str, cores))} if apart and cores else {}
        self._process = launch({**passed(), **self.extra, **worker_env(self.devices), **pins}, self._stderr)
        if cores and not apart:
            os.sched_setaffinity(self._process.pid, cores)
        threading.Thread(target=self._listen, args=(self._process, self.reborn()), daemon=True).start()

    def _cores(self) -> list[int]:
        """The core of each of its devices; empty on GPUs, and where there are fewer cores than devices."""
        cores = sorted(os.sched_getaffinity(0))
        if not self.devices[0].startswith("cpu") or any(int(d[3:]) >= len(cores) for d in self.devices):
            return []
        return [cores[int(d[3:])] for d in self.devices]

    def _listen(self, process: subprocess.Popen[bytes], listener: Listener) -> None:
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), CHUNK):
            listener.feed(data)
        process.wait()  # its output may close a moment before it can be reaped
        listener.end()

    def send(self, message: dict[str, Any]) -> None:
        """See Slot."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message, allow_nan=False).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its end arrives as an event
        self.heard = time.monotonic()

    def is_stopped(self) -> bool:
        """See Slot."""
        return self._process is not None and state(self._process.pid) in ("T", "t")

    def kill(self) -> None:
        """See Slot."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._stderr:
                self._stderr.close()
        self._process = None
        self.reborn()

    def died(self) -> str | None:
        """See Slot."""
        if self._process is None or self._process.poll() is None:
            return None
        return f"the worker died (exit code {self._process.returncode})"
