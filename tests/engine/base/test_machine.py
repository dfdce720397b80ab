"""Errors of the machine are told from those of what was read."""

from __future__ import annotations

import errno
import os

import pytest

from engine.base import machine
from engine.base.errors import MachineError


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


OF_THE_MACHINE = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/b"),
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    OSError(errno.EIO, os.strerror(errno.EIO)),
    MemoryError(),
    ModuleNotFoundError("No module named 'kenlm'"),
    OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
]
OF_THE_DATA = [
    FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a.png"),
    PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a.png"),
    OSError("image file is truncated (7 bytes not processed)"),
    ValueError("unreadable image"),
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
]


@pytest.mark.parametrize("error", OF_THE_MACHINE, ids=str)
def test_an_error_of_the_machine_ends_the_work_with_one_line(error: Exception) -> None:
    caused = ValueError("row 3 is bad")
    caused.__cause__ = error
    for raised in (error, caused):
        with pytest.raises(MachineError, match=r"^image_shape_filter: .*, and run the same command again: it goes on$"):
            machine.refuse(raised, "image_shape_filter")


@pytest.mark.parametrize("error", OF_THE_DATA, ids=str)
def test_an_error_of_the_data_is_left_to_the_caller(error: Exception) -> None:
    machine.refuse(error, "image_shape_filter")
