"""Arrays on disk, written piece by piece."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np


def new_array(file: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A memory-mapped .npy file of zeros whose space is reserved.

    Raises: OSError when the disk is too full; writing to a file without its space would kill the process.
    """
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    with file.open("r+b") as reserve:
        try:
            os.posix_fallocate(reserve.fileno(), 0, file.stat().st_size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(file)) from error
    return array
