"""What is measured of a trial's worker."""

from __future__ import annotations

# measure → its unit; of the worker, its children and its GPUs
MEASURES = {
    "cpu": "%", "memory": "bytes", "written": "bytes", "gpu": "%", "gpu_memory": "bytes", "gpu_power": "W",
    "gpu_temperature": "°C",
}  # fmt: skip
