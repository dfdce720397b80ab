"""What files hold, as a hash of all their bytes; a file is read again only where it may have changed.

A hash is kept, in the process and in the study's database, beside a stamp: size, times, inode, a sample of the bytes.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.base import machine
from engine.base.errors import DataError
from engine.base.remote import is_remote, look_at
from engine.journal import caches
from engine.journal.caches import FileHash
from engine.journal.store import Store

SMALL = 64 << 10  # bytes of a file up to which it is always read
SETTLED = 2 * 10**9  # nanoseconds that a file was left alone; one that changes again at once may keep its times
BLOCKS, BLOCK = 16, 4096  # of a sample: how many, and bytes of each


class _Known:
    """Hashes by name of file. store: where they are kept beyond this process; thread: that may write there."""

    def __init__(self) -> None:
        self.hashes: dict[str, FileHash] = {}
        self.kept: dict[str, FileHash] = {}
        self.store: Store | None = None
        self.thread = 0

    def keep(self, found: list[FileHash]) -> None:
        self.hashes |= {f.name: f for f in found}
        store = self.store
        if not found or store is None or store.closed or store.still or self.thread != threading.get_ident():
            return
        for new in found:
            old = self.kept.get(new.name)
            if old and old.stamp == new.stamp and old.hash != new.hash:
                text = (
                    f"{new.name} holds other bytes than when it was last read, though its size and times are the same"
                )
                store.event("data", f"{text}; what was computed of it is computed again", level="warning")
        caches.keep_hashes(store, found)
        self.kept |= {f.name: f for f in found}


_known = _Known()


def keep_in(store: Store) -> None:
    """Let the database of a study keep the hashes that this process makes, and use those that it has."""
    _known.store, _known.thread = store, threading.get_ident()
    _known.kept = {f.name: f for f in caches.file_hashes(store)}
    _known.hashes |= _known.kept


def read_all_again() -> None:
    """Trust no hash that was kept; what differs from it is told in the log."""
    _known.hashes.clear()


def content_hash(path: Path) -> str:
    """Hash of what a file, or all files of a folder, hold.

    Raises: DataError when there is no such file.
    """
    return hash_of(sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])


def hash_of(files: Sequence[Path]) -> str:
    """Hash of what these files hold, one after the other. Raises: DataError."""
    look_at(files)
    total = hashlib.blake2b(digest_size=8)
    new: list[FileHash] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for digest, found in pool.map(_digest, files):
            total.update(digest)
            new += [found] if found else []
    _known.keep(new)
    return total.hexdigest()


def _digest(file: Path) -> tuple[bytes, FileHash | None]:
    """(hash of a file's bytes, the same to be kept where it was read and may be).

    Of a file at an address the hash is that of its name, size, ETag and time.
    """
    try:
        if is_remote(file):
            status = file.stat()
            told = f"{file.name} {status.st_size} {status.st_mtime_ns}"
            return hashlib.blake2b(told.encode("utf-8", "surrogateescape"), digest_size=16).digest(), None
        with file.open("rb") as opened:
            name = os.fsencode(file.absolute()).decode("utf-8", "backslashreplace")
            before, began = _stamp(opened.fileno()), time.time_ns()
            known = _known.hashes.get(name)
            if known and before and known.stamp == before:
                return bytes.fromhex(known.hash), None
            digest = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).digest()
            status = os.fstat(opened.fileno())
            settled = max(status.st_mtime_ns, status.st_ctime_ns) < began - SETTLED
            keep = before and settled and _stamp(opened.fileno()) == before
            return digest, FileHash(name, before, digest.hex()) if keep else None
    except OSError as error:
        machine.refuse(error, str(file))
        raise DataError(f"{file} cannot be read ({error.strerror}); check the path in the study") from error


def _stamp(handle: int) -> str:
    """Size, times and inode of an open file, and a sample of its bytes; empty for a small one."""
    status = os.fstat(handle)
    if status.st_size <= SMALL:
        return ""
    sample = hashlib.blake2b(digest_size=8)
    for i in range(BLOCKS):
        sample.update(os.pread(handle, BLOCK, (status.st_size - BLOCK) * i // (BLOCKS - 1)))
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{status.st_size} {times} {status.st_ino} {sample.hexdigest()}"
