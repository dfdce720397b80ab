"""Tars and zips from elsewhere: members one by one, those behind bad headers too, with guards against hostile ones."""

from __future__ import annotations

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
GZIP = b"\x1f\x8b"
LARGEST = 2**32  # bytes of a member
PIECE = 2**24  # bytes that are read at once; a header that asks for more is refused
# what a broken archive makes Python's modules raise
BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError,
    RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A member of an archive. regular: it is a file, no link or device."""

    name: str
    size: int
    regular: bool
    content: Callable[[], IO[bytes] | None]


class _Pieces:
    """A file that is read in pieces: a tar's header may ask for gigabytes at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= PIECE:
            raise ValueError(f"a header asks for {size} bytes")
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def opened(tar: Path, start: int = 0) -> Iterator[tuple[tarfile.TarFile, IO[bytes]]]:
    """(a tar, packed by gzip or not, the file of its plain bytes). start: byte of its first header. Raises: BROKEN."""
    with tar.open("rb") as file:
        packed = file.read(2) == GZIP
        file.seek(0)
        with gzip.open(file) if packed else file as content:
            plain = cast(IO[bytes], _Pieces(cast(IO[bytes], content)))
            plain.seek(start)
            with tarfile.open(fileobj=plain, mode="r:") as archive:
                yield archive, plain


def members(archive: tarfile.TarFile, plain: IO[bytes], bad_header: Callable[[int], None]) -> Iterator[tarfile.TarInfo]:
    """All members, those behind a broken header too, where Python's own loop would end. Raises: BROKEN.

    bad_header: is given the byte where headers begin that cannot be read, once for all that follow each other.
    """
    bad = -1  # where the last one ended
    while True:
        begin, is_read = archive.offset, archive.firstmember is not None  # type: ignore[attr-defined]
        member = archive.next()
        if member is not None and not is_read and archive.offset <= begin:
            raise tarfile.ReadError("a header has a negative size")
        if member is not None:
            archive.members = []  # type: ignore[attr-defined] # they are not looked up again
            yield member
            continue
        plain.seek(archive.offset)
        if not any(plain.read(tarfile.BLOCKSIZE)):
            return
        if archive.offset != bad:
            bad_header(archive.offset)
        archive.offset += tarfile.BLOCKSIZE
        bad = archive.offset


def zipped(file: Path, _broken: list[str]) -> Iterator[Member]:
    """The members of a zip. Raises: BROKEN."""
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            regular = not info.is_dir() and stat.S_IFMT(mode) in (0, stat.S_IFREG)
            yield Member(info.filename, info.file_size, regular, partial(_of_zip, archive, info))


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return archive.open(info)
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or packed in a way that Python lacks
        raise zipfile.BadZipFile(str(error)) from error
