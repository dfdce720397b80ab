"""What GPUs do now, by NVIDIA's library NVML. A number that a GPU does not tell is None, and none is made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Gpu:
    """One GPU. use: percent of the time in which it computed. memory, total: bytes. power: W. temperature: °C."""

    name: str
    model: str | None
    use: float | None
    memory: float | None
    total: float | None
    power: float | None
    temperature: float | None


@cache
def why_none() -> str:
    """Why no GPU can be asked here; nothing where one can."""
    import pynvml  # start-up time: workers and the system pane alone come here

    try:
        pynvml.nvmlInit()
        return "" if pynvml.nvmlDeviceGetCount() else "NVML knows of no GPU"
    except pynvml.NVMLError as error:
        return str(error)


def read(names: Sequence[str] | None = None) -> list[Gpu]:
    """These GPUs, by index, UUID or MIG id as CUDA_VISIBLE_DEVICES has them; None: all of this machine."""
    if why_none():
        return []
    import pynvml  # as above

    every = map(str, range(pynvml.nvmlDeviceGetCount())) if names is None else names
    return [gpu for gpu in map(_one, every) if gpu]


def _one(name: str) -> Gpu | None:
    import pynvml  # as above

    find = pynvml.nvmlDeviceGetHandleByIndex if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
    handle = _asked(find, int(name) if name.isdigit() else name)
    if handle is None:
        return None
    model = _asked(pynvml.nvmlDeviceGetName, handle)
    rates = _asked(pynvml.nvmlDeviceGetUtilizationRates, handle)
    memory = _asked(pynvml.nvmlDeviceGetMemoryInfo, handle)
    milliwatts = _asked(pynvml.nvmlDeviceGetPowerUsage, handle)
    return Gpu(
        name, model.decode("utf-8", "replace") if isinstance(model, bytes) else model, rates and float(rates.gpu),
        memory and float(memory.used), memory and float(memory.total),
        None if milliwatts is None else milliwatts / 1000,
        _asked(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
    )  # fmt: skip


def _asked(function: Callable[..., T], *arguments: Any) -> T | None:
    """What NVML says, or None where this GPU does not tell that."""
    import pynvml  # as above

    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None
