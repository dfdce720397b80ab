"""Caches of libraries, where the home folder is absent or cannot be written, as in a container."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

FOLDERS = {
    "XDG_CACHE_HOME": "cache",
    "HF_HOME": "huggingface",
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
}  # torch and others ask for the user's name otherwise, which a container's user may lack


def is_writable() -> bool:
    """True when files can be made in `~/.cache`, or where it would be made."""
    folder = Path(os.path.expanduser("~/.cache"))  # noqa: PTH111  # Path's own raises where there is no home
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return folder.is_absolute()
    except OSError:
        return False


def use_instead(folder: Path) -> None:
    """Let libraries, and the processes that are started, keep their caches below a folder."""
    for name, inner in FOLDERS.items():
        os.environ[name] = os.environ.get(name) or str(folder / inner)
