"""What a process with its children and its GPUs takes of the machine, between one reading and the next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from engine.base import nvml


class Sampler:
    """Reads what this process takes. gpus: those that are its own, as CUDA_VISIBLE_DEVICES names them.

    cpu: percent of one core; memory: resident; written: to disks, since the sampler was made. Of several GPUs gpu is
    the mean, gpu_memory of the fullest (whoever fills it), gpu_power the sum, gpu_temperature of the hottest.
    """

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        self._gpus = gpus
        self._own = psutil.Process()
        self._worked: dict[int, tuple[float, float]] = {}  # process → seconds of a core, bytes written
        self._at = time.monotonic()
        self._look()
        self._began = sum(written for _, written in self._worked.values())

    def read(self) -> tuple[float, dict[str, float]]:
        """(seconds since the last reading, what was measured); what this system does not tell is not there."""
        before, at = sum(cpu for cpu, _ in self._worked.values()), self._at
        memory = self._look()
        self._at = time.monotonic()
        seconds = max(self._at - at, 1e-3)
        worked = sum(cpu for cpu, _ in self._worked.values()) - before
        values = {"cpu": 100 * max(0.0, worked) / seconds, "memory": float(memory)}
        if hasattr(self._own, "io_counters"):
            values["written"] = max(0.0, sum(written for _, written in self._worked.values()) - self._began)
        return seconds, values | _of_gpus(nvml.read(self._gpus) if self._gpus else [])

    def _look(self) -> int:
        """Note what each process has worked; one that has ended keeps what it had. Bytes of memory now."""
        memory = 0
        for process in (self._own, *_below(self._own)):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    written = process.io_counters().write_bytes if hasattr(process, "io_counters") else 0
                    memory += process.memory_info().rss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it has just ended, or is another user's
            self._worked[process.pid] = times.user + times.system, float(written)
        return memory


def _of_gpus(gpus: Sequence[nvml.Gpu]) -> dict[str, float]:
    found = {
        "gpu": [g.use for g in gpus], "gpu_memory": [g.memory for g in gpus], "gpu_power": [g.power for g in gpus],
        "gpu_temperature": [g.temperature for g in gpus],
    }  # fmt: skip
    told = {name: [float(v) for v in values if v is not None] for name, values in found.items()}
    joined = {"gpu": lambda values: sum(values) / len(values), "gpu_power": sum}
    return {name: float(joined.get(name, max)(values)) for name, values in told.items() if values}


def _below(process: psutil.Process) -> Iterator[psutil.Process]:
    """A process's children and theirs. Linux lists them; psutil would read every process of the machine."""
    if not Path(f"/proc/{process.pid}/task/{process.pid}/children").exists():
        yield from process.children(recursive=True)
        return
    waiting = [process.pid]
    while waiting:
        for number in _children(waiting.pop()):
            waiting.append(number)
            try:
                yield psutil.Process(number)
            except psutil.NoSuchProcess:
                continue  # it has just ended


def _children(process: int) -> list[int]:
    try:
        return [
            int(word) for task in Path(f"/proc/{process}/task").iterdir()
            for word in (task / "children").read_text(encoding="ascii").split()
        ]  # fmt: skip
    except OSError:
        return []  # it has just ended
