"""The GPUs of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess


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
