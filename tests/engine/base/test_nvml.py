"""GPUs are asked by NVML's own functions; a fake of the module has their signatures and errors."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pynvml
import pytest

from engine.base import nvml

FUNCTIONS = {
    "nvmlInit": lambda: None,
    "nvmlDeviceGetCount": lambda: 2,
    "nvmlDeviceGetHandleByIndex": lambda index: index,
    "nvmlDeviceGetHandleByUUID": lambda uuid: ["GPU-a", "GPU-b"].index(uuid),
    "nvmlDeviceGetName": lambda handle: f"NVIDIA H{handle}",
    "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=40 + 20 * handle, memory=7),
    "nvmlDeviceGetMemoryInfo": lambda handle, version=None: SimpleNamespace(
        total=80 << 30, free=0, used=(10 + handle) << 30
    ),
    "nvmlDeviceGetPowerUsage": lambda handle: 250_500 + 1000 * handle,
    "nvmlDeviceGetTemperature": lambda handle, sensor: 50 + 5 * handle + sensor,
}


def fake(monkeypatch: pytest.MonkeyPatch, **other: Any) -> None:
    """Let pynvml be one that has two GPUs. other: functions in place of those above."""
    module = ModuleType("pynvml")
    module.NVMLError, module.NVML_TEMPERATURE_GPU = pynvml.NVMLError, pynvml.NVML_TEMPERATURE_GPU  # type: ignore[attr-defined]
    for name, function in {**FUNCTIONS, **other}.items():
        real = inspect.signature(getattr(pynvml, name))
        assert list(inspect.signature(function).parameters) == list(real.parameters), name
        setattr(module, name, function)
    monkeypatch.setitem(sys.modules, "pynvml", module)


def fails(code: int) -> Any:
    def function(handle: Any) -> Any:
        raise pynvml.NVMLError(code)

    return function


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing is remembered of another NVML."""
    nvml.why_none.cache_clear()
    yield
    nvml.why_none.cache_clear()


def test_gpus_are_read_in_percent_bytes_watts_and_degrees(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    assert nvml.why_none() == ""
    first, second = nvml.read()
    assert first == nvml.Gpu("0", "NVIDIA H0", 40.0, 10 << 30, 80 << 30, 250.5, 50)
    assert nvml.read(["GPU-b"]) == [nvml.Gpu("GPU-b", "NVIDIA H1", 60.0, 11 << 30, 80 << 30, 251.5, 55)]
    assert nvml.read(["1"])[0].use == second.use


def test_what_a_gpu_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    mute = fails(pynvml.NVML_ERROR_NOT_SUPPORTED)
    fake(monkeypatch, nvmlDeviceGetUtilizationRates=mute, nvmlDeviceGetPowerUsage=mute)
    gpu = nvml.read()[0]
    assert (gpu.use, gpu.power, gpu.memory) == (None, None, 10 << 30)


def test_a_gpu_that_is_lost_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(index: int) -> int:
        if index:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    fake(monkeypatch, nvmlDeviceGetHandleByIndex=lost)
    assert [gpu.name for gpu in nvml.read()] == ["0"]


def test_without_the_driver_there_is_no_gpu_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    fake(monkeypatch, nvmlInit=missing)
    assert nvml.why_none() == "NVML Shared Library Not Found"
    assert nvml.read() == [] and nvml.read(["0"]) == []
