"""Folders of files in the making. A command that is killed leaves them; the next that works there removes them.

Each folder has a lock beside it, which its owner holds: the system releases it when that process has ended, whatever
ended it, also on another machine.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from engine.base.durable import discard
from engine.base.errors import DjsbError

HERE = ".djsb-scratch"  # beside what is being made, where no study's folder is at hand
LOCK = ".lock"
LEFT = (".unpack-*", "*.tmp", "*.tmp.np[yz]")  # what is being written in a study's folder
FRESH = 60.0  # seconds since the last write within which another command may still be at it


@contextmanager
def scratch(root: Path | None = None) -> Iterator[Path]:
    """A new folder below `root` for as long as the block runs. root: None for the system's folder of such files."""
    root = root or _common()
    sweep(root)
    folder, lock = _own(root)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(folder.name + LOCK).unlink(missing_ok=True)
        os.close(lock)
        with contextlib.suppress(OSError):  # others are at work there
            root.rmdir()


def of_process() -> Path:
    """A folder for what the libraries of this process write where temporary files go; it goes when the process ends.

    They remove some of it at the process's end, after all blocks.
    """
    stack = contextlib.ExitStack()
    folder = stack.enter_context(scratch())
    tempfile.tempdir = str(folder)
    atexit.register(stack.close)
    return folder


def sweep(root: Path | None = None) -> None:
    """Remove the folders whose owner has ended."""
    root = root or _common()
    for file in root.glob(f"*{LOCK}") if root.is_dir() and not root.is_symlink() else ():
        with contextlib.suppress(OSError):  # it is held, has gone meanwhile, or the place is read-only
            lock = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(file, lock):
                    shutil.rmtree(file.with_name(file.name.removesuffix(LOCK)), ignore_errors=True)
                    file.unlink()
            finally:
                os.close(lock)


def tidy(state: Path) -> None:
    """Remove what killed commands have left half-made in a study's folder. The caller holds the study's lock."""
    for folder, folders, files in os.walk(state):
        for name in [n for n in (*folders, *files) if any(fnmatch(n, pattern) for pattern in LEFT)]:
            left = Path(folder) / name
            newest = max((f.lstat().st_mtime for f in (left, *left.rglob("*"))), default=0.0)
            if time.time() - newest > FRESH:
                discard(left)
        folders[:] = [n for n in folders if not any(fnmatch(n, pattern) for pattern in LEFT)]


def _own(root: Path) -> tuple[Path, int]:
    """A name below `root`, and the lock on it."""
    while True:
        _make(root)
        try:
            lock, file = tempfile.mkstemp(LOCK, "", root)
        except FileNotFoundError:  # the one who was here before has just removed the empty folder
            continue
        with contextlib.suppress(OSError):  # a file system without locks: then nobody sweeps there either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_at(Path(file), lock):
            return Path(file.removesuffix(LOCK)), lock
        os.close(lock)  # somebody swept it before it was locked


def _is_at(file: Path, lock: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(lock))
    except FileNotFoundError:
        return False


def _make(root: Path) -> None:
    """Make the folder; that below TMPDIR for the user alone. Raises: DjsbError when somebody else has made it."""
    own = root == _common()
    root.mkdir(mode=0o700 if own else 0o777, parents=True, exist_ok=True)
    if root.is_symlink():
        raise DjsbError(f"{root} is a link; remove it, as what is written there would be deleted")
    if own and root.stat().st_uid != os.geteuid():
        raise DjsbError(f"{root} is not yours; set TMPDIR to a folder of your own")


def _common() -> Path:
    return Path(tempfile.gettempdir()) / f"djsb-{os.geteuid()}"
