"""What a reader looks up or makes of large files once: kept in the study's folder, sealed, for all its processes."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from engine.base.durable import SEAL, discard, is_whole, written_whole
from engine.base.errors import DataError
from engine.base.remote import look_at
from engine.base.scratch import scratch
from engine.data.readers.contract import Options, first_line

LOCK = ".lock"
WHOLE = "shards"  # the kind of what is looked up of whole files, even for a look at their first rows


def kept(files: Sequence[Path], kind: str, options: Options, make: Callable[[Path], None]) -> Path:
    """The folder that `make` has filled for these files as they are now; made again when one of them has changed.

    kind: what is in it, a word. Without `options.index` it is made for this process, and gone with it.
    Raises: DataError when it cannot be written, and what `make` raises.
    """
    place = _hash(str(file) for file in files)
    look_at(files)
    stamp = _hash(f"{s.st_size} {s.st_mtime_ns}" for s in (file.stat() for file in files))
    root = options.index or _own()
    folder = root / f"{kind}-{place}-{stamp}"
    if is_whole(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / LOCK):
            if not is_whole(folder):
                for old in root.glob(f"{kind}-{place}-*"):
                    discard(old)
                with written_whole(folder) as part:
                    part.mkdir()
                    make(part)
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(root)):
            raise  # it is about the files
        raise DataError(
            f"{folder} cannot be written ({error.strerror}); free some space, or mend the folder"
        ) from error
    return folder


def _hash(parts: Iterator[str]) -> str:
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


@cache
def _own() -> Path:
    """A folder of this process alone."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(scratch())


def own_place() -> Path | None:
    """The folder in which this process keeps things for itself, where it keeps any: its workers read them there."""
    return _own() if _own.cache_info().currsize else None


def hand_over(root: Path) -> None:
    """Keep in a study's folder what this process has looked up of whole files for itself. Raises: DataError."""
    own = own_place()
    for made in sorted(own.glob(f"{WHOLE}-*")) if own else ():
        if not is_whole(made) or is_whole(root / made.name):
            continue
        try:
            with written_whole(root / made.name) as part:
                shutil.copytree(made, part, ignore=shutil.ignore_patterns(SEAL))
        except (OSError, shutil.Error) as error:
            raise DataError(f"{root} cannot be written ({first_line(error)}); free some space") from error


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process at a time makes things there."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
