"""Arrays on disk, written whole or piece by piece."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.durable import written_whole


def new_array(file: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A memory-mapped .npy file of zeros whose space is reserved.

    Raises: OSError when the disk is too full; writing to a file without its space would kill the process.
    """
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    with file.open("r+b") as reserve:
        try:
            os.posix_fallocate(reserve.fileno(), 0, file.stat().st_size)
        except OSError as error:
            file.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(file)) from error
    return array


def save_array(file: Path, array: NDArray[Any]) -> None:
    """Write a .npy file whole, and seal it."""
    with written_whole(file) as scratch:
        scratch.write_bytes(as_npy(array))


def save_arrays(file: Path, **arrays: NDArray[Any]) -> None:
    """Write an .npz file whole, and seal it."""
    with written_whole(file) as scratch, scratch.open("wb") as out:
        np.savez(out, **arrays)  # type: ignore[arg-type]


def as_npy(array: NDArray[Any]) -> memoryview:
    """The content of a .npy file; NumPy's own writing to a file says not why it failed."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getbuffer()
