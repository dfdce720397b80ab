"""The GPUs of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess

from engine.base.errors import MachineError


def gpus() -> list[str]:
    """Indices of the GPUs that may be used, by nvidia-smi; CUDA_VISIBLE_DEVICES narrows them, by index, UUID or MIG id.

    Raises: MachineError where it names a GPU that is not there.
    """
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
    if visible is None:
        return found
    named = [v.strip() for v in visible.split(",") if v.strip()]
    if named[:1] in ([], ["-1"], ["NoDevFiles"]):
        return []
    if unknown := [v for v in named if v not in found and not v.startswith(("GPU-", "MIG-"))]:
        raise MachineError(
            f"CUDA_VISIBLE_DEVICES names {', '.join(unknown)}, and nvidia-smi lists {', '.join(found) or 'no GPU'}; "
            "name those, or set it to nothing to train on the CPU"
        )
    return named


def gpu_memory() -> list[int]:
    """Bytes of each GPU of this machine, by nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [int(line) << 20 for line in told.split() if line.isdigit()]
