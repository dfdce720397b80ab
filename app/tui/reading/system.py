"""What the machine does now, and what trials took of it, for the system screen; runs in the reading process."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.journal.store import Row

TRIALS = 300  # latest, whose usage is shown
DISK = 30.0  # seconds at least between two looks at how large the study's folder is
_cores_asked = False


class _Disk:
    """How large the parts of a study's folder are, looked up in a thread: there may be many files."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.parts: dict[str, int] | None = None
        self._due = 0.0

    def of(self, folder: Path) -> dict[str, int] | None:
        """Bytes by part; None until they were counted once."""
        if folder != self.folder:
            self.folder, self.parts, self._due = folder, None, 0.0
        if time.monotonic() >= self._due:
            self._due = float("inf")
            threading.Thread(target=self._look, args=(folder,), daemon=True).start()
        return self.parts

    def _look(self, folder: Path) -> None:
        began = time.monotonic()
        parts = {"database": 0}
        for top, _, files in os.walk(folder):
            names = Path(top).relative_to(folder).parts
            part = names[0] if names else "database"
            parts[part] = parts.get(part, 0) + sum(_size(Path(top) / name) for name in files)
        if folder == self.folder:
            took = time.monotonic() - began
            self.parts, self._due = parts, time.monotonic() + max(DISK, 20 * took)


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0  # it was deleted meanwhile


_disk = _Disk()


def system(view: Any) -> Row:
    """The machine now, and the usage of the trials that began last, each measure with its peak and mean."""
    import psutil  # in the reading process only

    from engine.base import nvml
    from engine.journal import usage

    global _cores_asked
    cpu, _cores_asked = (psutil.cpu_percent() if _cores_asked else None), True  # the first answer has no time behind it
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(view.state)
    trials: dict[str, dict[str, Row]] = {}
    setup = getattr(view, "setup", None)  # a folder of pipelines has none
    for one in usage.latest(view.store, setup, TRIALS) if setup else ():
        trials.setdefault(one.trial, {})[one.name] = {"peak": one.peak, "mean": one.mean, "latest": one.latest}
    return {
        "node": platform.node(), "cpu": cpu, "cores": os.cpu_count(), "load": os.getloadavg()[0],
        "memory": memory.total - memory.available, "memory_total": memory.total,
        "disk": disk.used, "disk_total": disk.total, "disk_free": disk.free, "parts": _disk.of(view.state),
        "gpus": [asdict(gpu) for gpu in nvml.read()], "no_gpu": nvml.why_none(), "trials": trials,
    }  # fmt: skip
