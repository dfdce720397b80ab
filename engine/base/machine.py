"""Errors of the machine: a full disk, too little memory, a missing package. What was being read is not to blame."""

from __future__ import annotations

import errno
import re

from engine.base.errors import MachineError

REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "make the disk writable",
    errno.ENOMEM: "lower --workers, or free some memory",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network drive",
    errno.EHOSTDOWN: "check the network drive",
    errno.ENOTCONN: "check the network drive",
}
ACCELERATOR = re.compile(r"CUDA|cu(BLAS|DNN|SOLVER|SPARSE)|CUBLAS|CUDNN|NVIDIA|HIP error")
MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|Insufficient memory", re.IGNORECASE)
SCARCE = 256 << 20  # bytes of free memory below which a codec that finds none is believed


def refuse(error: BaseException, doing: str) -> None:
    """Let an error of the machine end the work. Any other error is the caller's.

    doing: what was being done. Raises: MachineError.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MachineError):
            raise cause
        if remedy := _remedy(cause):
            why = (str(cause).splitlines() or [type(cause).__name__])[0]
            raise MachineError(f"{doing}: {why}; {remedy}, and run the same command again: it goes on") from error
        cause = cause.__cause__


def lacks_memory(error: BaseException) -> bool:
    """True for an error of too little memory, of the machine or of a GPU."""
    return (_remedy(error) or "").startswith(REMEDIES[errno.ENOMEM])


def _remedy(error: BaseException) -> str | None:
    """What to do about an error of the machine; None for any other."""
    if type(error).__module__.partition(".")[0] == "av":
        # FFmpeg says so of a broken file too, whose header asks for more than there is
        import psutil  # start-up time: few commands come here

        scarce = getattr(error, "errno", 0) == errno.ENOMEM and psutil.virtual_memory().available < SCARCE
        return REMEDIES[errno.ENOMEM] if scarce else None
    if isinstance(error, OSError):
        return REMEDIES.get(error.errno or 0)
    if isinstance(error, ImportError):
        return "install what is missing"
    if isinstance(error, MemoryError):
        return REMEDIES[errno.ENOMEM]
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError" or MEMORY.search(text):
        return REMEDIES[errno.ENOMEM] + (" of the GPU" if ACCELERATOR.search(text) else "")
    if isinstance(error, RuntimeError) and ACCELERATOR.search(text):
        return "check the GPU and its driver"
    return None
