"""Items of a media cache on disk: written once by whichever process makes them first, read by all, evicted by use.

A folder holds an index, a record for each item, and packs, into which items are appended. An item is there when its
sum is right: what a killed process or a power loss has left half-written is not, and is made again. Nothing is waited
for: each process appends to a pack that it alone holds.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import struct
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PACK = 256 << 20  # bytes of a pack, about
RECORD = struct.Struct("<QIIQ")  # pack, place and size in it, sum; all zero where nothing was written
PARTS = 32  # that the bound is shared out in at least, so that as many processes may write
OPEN = 128  # packs that a process holds open to read
STAMP = 30.0  # seconds after which a pack's use is noted again
IDLE = 600.0  # seconds without use after which a pack may be evicted
SHARE = 0.5  # of the disk's free space that all packs of a study may take, where no bound is set
SUFFIX = ".pack"
LOG = logging.getLogger("djsb")


def bound_of(root: Path, max_gb: float | None) -> int:
    """Bytes that all packs below a folder may take. max_gb: as the study says; None: half of what is free."""
    if max_gb is not None:
        return int(max_gb * 1e9)
    return int(SHARE * (shutil.disk_usage(root).free + sum(size for _, size, _ in _packs(root))))


class Packs:
    """The items of one folder, by number. Safe for several processes at once; not for several threads."""

    def __init__(self, folder: Path, bound: int) -> None:
        """bound: bytes that all packs beside this folder's may take with them."""
        self.folder, self._bound = folder, bound
        self._size = min(PACK, max(1, bound // PARTS))
        folder.mkdir(parents=True, exist_ok=True)
        self._index = os.open(folder / "index", os.O_RDWR | os.O_CREAT, 0o666)
        self._read: OrderedDict[int, tuple[int, float]] = OrderedDict()
        self._own: tuple[int, int] | None = None  # pack and its file, to append to
        self._full_until = 0.0
        self._said: set[str] = set()

    def get(self, item: int) -> bytes | None:
        """An item, or None where it was not written, was evicted or is damaged."""
        record = os.pread(self._index, RECORD.size, item * RECORD.size)
        if len(record) < RECORD.size or not any(record):
            return None
        pack, at, size, total = RECORD.unpack(record)
        file = self._opened(pack)
        if file is None:
            return None
        content = os.pread(file, size, at)
        if _sum(item, content) == total:
            return content
        self._say("damaged", f"{self.folder.name} in the media cache has a damaged item ({item}); it is made again")
        return None

    def has(self, item: int) -> bool:
        """True where an item was written and not evicted; whether it is damaged shows when it is read."""
        record = os.pread(self._index, RECORD.size, item * RECORD.size)
        return any(record) and self._opened(RECORD.unpack(record)[0]) is not None

    def put(self, item: int, content: bytes) -> bool:
        """Keep an item; False where there is no room for it: then whoever asks for it makes it again."""
        if time.monotonic() < self._full_until:
            return False
        try:
            if not self._begin(len(content)):
                self._full_until = time.monotonic() + STAMP
                return False
            assert self._own is not None
            pack, file = self._own
            at = os.lseek(file, 0, os.SEEK_END)
            left = memoryview(content)
            while left:
                left = left[os.write(file, left) :]
            os.pwrite(self._index, RECORD.pack(pack, at, len(content), _sum(item, content)), item * RECORD.size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._full_until = time.monotonic() + IDLE
            text = f"{self.folder.parent}: the disk is full; the media cache keeps no more, and trials go on without it"
            self._say("full", f"{text}. Free some space, or set cache.max_gb")
            return False
        return True

    def close(self) -> None:
        """Close all files."""
        self._end()
        for file, _ in self._read.values():
            os.close(file)
        self._read.clear()
        os.close(self._index)

    def _say(self, what: str, text: str) -> None:
        """Log a line once."""
        if what not in self._said:
            self._said.add(what)
            LOG.warning(text)

    def _opened(self, pack: int) -> int | None:
        """The file of a pack, whose use is noted; None where it was evicted."""
        file, stamped = self._read.pop(pack, (None, 0.0))
        if file is None:
            try:
                file = os.open(self._path(pack), os.O_RDONLY)
            except FileNotFoundError:
                return None
        now = time.monotonic()
        if now - stamped > STAMP:
            if not os.fstat(file).st_nlink:  # evicted: its space is free once nobody holds it
                os.close(file)
                return None
            with suppress(OSError):  # a study that may only be read
                os.utime(file)
            stamped = now
        self._read[pack] = file, stamped
        if len(self._read) > OPEN:
            _, (oldest, _) = self._read.popitem(last=False)
            os.close(oldest)
        return file

    def _path(self, pack: int) -> Path:
        return self.folder / f"{pack:016x}{SUFFIX}"

    def _begin(self, size: int) -> bool:
        """Hold a pack that has room for so many bytes; False where the bound leaves none."""
        if self._own is not None:
            if os.lseek(self._own[1], 0, os.SEEK_END) + size <= self._size and os.fstat(self._own[1]).st_nlink:
                return True
            self._end()
        for path, held, _ in _packs(self.folder):
            if held + size <= self._size and (file := _lock(path)) is not None:
                self._own = int(path.stem, 16), file
                return True
        with _alone(self.folder.parent):
            if size > self._size or not self._make_room():
                return False
            pack = int.from_bytes(os.urandom(8), "little")
            file = os.open(self._path(pack), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            fcntl.flock(file, fcntl.LOCK_EX)
            self._own = pack, file
        return True

    def _make_room(self) -> bool:
        """Evict packs that have not been used for a while until there is room for a whole one; False if that failed.

        A pack that is not full counts as if it were: somebody may append to it.
        """
        packs = [(path, max(size, self._size), used) for path, size, used in _packs(self.folder.parent)]
        total = sum(size for _, size, _ in packs)
        for path, size, used in packs:
            if total + self._size <= self._bound or time.time() - used < IDLE:
                break
            if (file := _lock(path)) is not None:  # else somebody appends to it
                path.unlink(missing_ok=True)
                os.close(file)
                total -= size
        return total + self._size <= self._bound

    def _end(self) -> None:
        if self._own is not None:
            os.close(self._own[1])
            self._own = None


def count_damaged(folder: Path) -> tuple[int, int]:
    """(items that are there, damaged items) of a folder; those are forgotten, so that they are made again."""
    whole = bad = 0
    packs = Packs(folder, 0)
    try:
        for item in range(os.fstat(packs._index).st_size // RECORD.size):
            record = os.pread(packs._index, RECORD.size, item * RECORD.size)
            if not any(record) or not packs._path(RECORD.unpack(record)[0]).exists():
                continue
            packs._said.add("damaged")  # the caller says how many
            if packs.get(item) is None:
                os.pwrite(packs._index, bytes(RECORD.size), item * RECORD.size)
                bad += 1
            else:
                whole += 1
    finally:
        packs.close()
    return whole, bad


def _sum(item: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(item.to_bytes(8, "little")))


def _packs(root: Path) -> Iterator[tuple[Path, int, float]]:
    """(file, bytes, when it was used last) of all packs below a folder, the least recently used first."""
    found = []
    for path in root.rglob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):  # evicted meanwhile
            state = path.stat()
            found.append((path, state.st_size, state.st_mtime))
    yield from sorted(found, key=lambda pack: pack[2])


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time."""
    lock = os.open(root / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _lock(path: Path) -> int | None:
    """The file of a pack, to append to, or None where another process holds it or it is gone."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    if os.fstat(file).st_nlink:
        return file
    os.close(file)
    return None
