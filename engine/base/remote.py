"""Files at addresses: `https://`, `s3://`, `gs://`. A path that is one reads its file part by part, and keeps no copy.

Parts that were read lately stay in memory, within a bound. Only files at or below an address that the study names are
opened: an address within the rows is never followed.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import re
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PosixPath, PurePosixPath
from typing import IO, Any

from engine.base import remote_access as access
from engine.base.errors import DataError, MachineError

BLOCK = 1 << 16  # bytes that are asked for together, at least
AHEAD = 64  # blocks that are asked for together at most where small parts are read one after the other
CACHED = 1 << 26  # bytes of blocks that a process keeps
FRESH = 60.0  # seconds for which a file is not looked at again
THREADS = 8  # that look at files
SCHEMES = (*access.HTTP, *access.STORES)
PATTERN = re.compile(r"[*?{]")
SEGMENT = re.compile(r"[^?#\\\x00-\x1f\x7f]+")


class RemotePath(PosixPath):
    """The path of a file at an address. It is made by `remote_path`, and has what readers of files ask of a path."""

    __slots__ = ()

    def __str__(self) -> str:
        parts = self.parts
        if len(parts) < 3 or parts[0] != "/":
            return super().__str__()
        return f"{parts[1]}//{'/'.join(parts[2:])}"

    __fspath__ = __str__

    def resolve(self, strict: bool = False) -> RemotePath:
        return self

    def absolute(self) -> RemotePath:
        return self

    def expanduser(self) -> RemotePath:
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Its size; `st_mtime_ns` is a number that changes with the file. Raises: FileNotFoundError, MachineError."""
        found = _status(str(self))
        stamp = int.from_bytes(hashlib.blake2b(found.tag.encode(), digest_size=7).digest(), "little")
        kind = stat.S_IFDIR if found.folder else stat.S_IFREG
        return os.stat_result((kind | 0o444, 0, 0, 1, 0, 0, found.size, 0, 0, 0), {"st_mtime_ns": stamp})

    def is_file(self) -> bool:
        try:
            return not _status(str(self)).folder
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        try:
            return _status(str(self)).folder
        except FileNotFoundError:
            return False

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_symlink(self) -> bool:
        return False

    def iterdir(self) -> Iterator[RemotePath]:  # type: ignore[override]
        """The files in it, not the folders."""
        return (file for file in files_below(self) if file.parent == self)

    def rglob(self, pattern: str) -> Iterator[RemotePath]:  # type: ignore[override]
        return (file for file in files_below(self) if fnmatch.fnmatchcase(file.name, pattern))

    def glob(self, pattern: str) -> Iterator[RemotePath]:  # type: ignore[override]
        """Files in it whose names fit."""
        return (file for file in self.iterdir() if fnmatch.fnmatchcase(file.name, pattern))

    def open(self, mode: str = "r", buffering: int = -1, encoding: str | None = None, *_: Any) -> IO[Any]:  # type: ignore[override]
        """The file, to be read. Raises: FileNotFoundError, MachineError."""
        if set(mode) - set("rbt"):
            raise MachineError(f"{self} is at an address, and nothing is written there; name a folder of this machine")
        found = _status(str(self))
        if found.folder:
            raise IsADirectoryError(21, "is a folder", str(self))
        raw = RemoteFile(str(self), found)
        return raw if "b" in mode else io.TextIOWrapper(io.BufferedReader(raw), encoding)  # type: ignore[return-value]


class RemoteFile(io.RawIOBase):
    """A file at an address, read part by part."""

    def __init__(self, url: str, found: access.Status) -> None:
        self.name, self.size, self._found, self._at = url, found.size, found, 0
        self._next, self._ahead = -1, 1  # the block behind the last ones; how many are asked for together

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative place {start + offset} in a file")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self.pread(len(view), self._at)
        view[: len(content)] = content
        self._at += len(content)
        return len(content)

    def readall(self) -> bytes:
        content = self.pread(self.size - self._at, self._at)
        self._at += len(content)
        return content

    def pread(self, size: int, offset: int) -> bytes:
        """So many bytes from a place on, fewer at the file's end. Raises: MachineError."""
        stop = min(offset + size, self.size)
        if stop <= offset:
            return b""
        first, last = offset // BLOCK, -(-stop // BLOCK)
        small = last - first <= 2
        self._ahead = min(2 * self._ahead, AHEAD) if small and first in (self._next, self._next - 1) else 1
        blocks = _blocks.get((self.name, self._found.tag), range(first, last))
        number = first
        while number < last:
            if number in blocks:
                number += 1
                continue
            end = number + 1
            while end < last and end not in blocks:
                end += 1
            if end == last and small:
                end = min(number + max(end - number, self._ahead), -(-self.size // BLOCK))
            content = access.read(self.name, self._found, number * BLOCK, min(end * BLOCK, self.size))
            pieces = {number + k: content[k * BLOCK : (k + 1) * BLOCK] for k in range(end - number)}
            blocks |= pieces
            _blocks.keep((self.name, self._found.tag), pieces)
            number = end
        self._next = max(last, max(blocks) + 1)
        whole = b"".join(blocks[n] for n in range(first, last))
        return whole[offset - first * BLOCK : stop - first * BLOCK]


class _Blocks:
    """Blocks of files that were read lately. Those of one read that is larger than the bound are not kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[tuple[str, str], int], bytes] = OrderedDict()
        self._size, self._lock = 0, threading.Lock()

    def get(self, file: tuple[str, str], numbers: Sequence[int]) -> dict[int, bytes]:
        with self._lock:
            there = [n for n in numbers if (file, n) in self._kept]
            for n in there:
                self._kept.move_to_end((file, n))
            return {n: self._kept[file, n] for n in there}

    def keep(self, file: tuple[str, str], blocks: dict[int, bytes]) -> None:
        if sum(map(len, blocks.values())) > CACHED // 4:
            return
        with self._lock:
            for n, block in blocks.items():
                self._size += len(block) - len(self._kept.get((file, n), b""))
                self._kept[file, n] = block
            while self._size > CACHED:
                self._size -= len(self._kept.popitem(last=False)[1])

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def clear(self) -> None:
        self._kept.clear()
        self._size = 0


_blocks = _Blocks()
_seen: dict[str, tuple[float, access.Status]] = {}
os.register_at_fork(after_in_child=_blocks.after_fork)


def _status(url: str) -> access.Status:
    """What is at an address. Raises: FileNotFoundError, MachineError."""
    if PATTERN.search(url):
        raise FileNotFoundError(2, "it is a pattern", url)
    at, found = _seen.get(url, (0.0, None))
    if found is None or time.monotonic() - at > FRESH:
        found = access.status(url)
        _seen[url] = time.monotonic(), found
    return found


def look_again() -> None:
    """Forget what was seen at addresses."""
    _seen.clear()
    _blocks.clear()


def is_remote(path: Path) -> bool:
    """True for a path that is an address."""
    return isinstance(path, RemotePath)


def remote_path(url: str) -> RemotePath:
    """The path of an address. Raises: DataError where it is none that can be read."""
    scheme, _, rest = url.partition("://")
    parts = rest.rstrip("/").split("/")
    if "@" in parts[0]:
        raise DataError(f"{scheme}://…@… holds credentials; take them out, they are read from the environment")
    if any(part in ("", ".", "..") for part in parts):
        raise DataError(f"{url} has empty parts or dots between its slashes; write the address in full")
    names = parts[1:] if scheme in access.HTTP else [part.replace("?", "") for part in parts[1:]]
    if not all(SEGMENT.fullmatch(part) for part in [parts[0], *filter(None, names)]):
        raise DataError(
            f"{url.split('?')[0]} has a query, a # or signs that no address has; give it without, credentials are read "
            "from the environment"
        )
    return RemotePath("/", f"{scheme}:", *parts)


def as_path(text: str) -> Path:
    """The path that was written as this text."""
    return remote_path(text) if text.partition("://")[0] in SCHEMES else Path(text)


def below(folder: RemotePath, name: str) -> RemotePath:
    """The path of that name in a folder, which comes from rows. Raises: ValueError where it leads elsewhere."""
    pure = PurePosixPath(name)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or not SEGMENT.fullmatch(name):
        raise ValueError(f"{name[:200]!r} is no name below {folder}")
    return folder / pure


def files_below(folder: RemotePath) -> list[RemotePath]:
    """All files of a folder and the folders in it, in the order of their names. Raises: DataError, MachineError."""
    found = access.listed(str(folder))
    now = time.monotonic()
    _seen.update({url: (now, status) for url, status in found.items()})
    return sorted(remote_path(url) for url in found)


def look_at(files: Sequence[Path]) -> None:
    """Look at files at addresses, many at a time, so that each one's status is at hand."""
    if len(files) > 1 and isinstance(files[0], RemotePath):
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda file: file.is_file(), files))


def pread(file: IO[bytes], size: int, offset: int) -> bytes:
    """So many bytes from a place of an open file on, fewer at its end."""
    return file.pread(size, offset) if isinstance(file, RemoteFile) else os.pread(file.fileno(), size, offset)


def size_of(file: IO[bytes]) -> int:
    """Bytes of an open file."""
    return file.size if isinstance(file, RemoteFile) else os.fstat(file.fileno()).st_size
