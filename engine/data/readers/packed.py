"""Compressed files. No row of one can be read by itself, so it is unpacked once, beside the study's other caches."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.base.errors import DataError
from engine.data.readers.contract import BrokenFile, Options, first_line
from engine.data.readers.formats import packing
from engine.data.readers.json_rows import JsonReader
from engine.data.readers.kept import kept

TOOLS = {"gzip": "gzip", "zstd": "zstd", "bz2": "bzip2"}
PIECE = 1 << 22
LOOSE = 1 << 28  # bytes that a file may have unpacked, however small it is
RATIO = 250  # a larger file may have so many times its own bytes: text has up to 60
SPARE = 1 << 30  # bytes of the disk that stay free
BEGINNING = 1 << 23  # bytes that are unpacked for a first look


class PackedReader(JsonReader):
    """Rows of a compressed file of JSON, by its unpacked copy."""

    def __init__(self, file: Path, options: Options) -> None:
        """Raises: DataError where the file is cut short, or larger than is to be believed or than the disk holds."""

        def make(folder: Path) -> None:
            with (folder / "rows").open("wb") as out:
                for piece in unpacked(file, folder, BEGINNING if options.head else None):
                    out.write(piece)

        kind = "beginning" if options.head else "unpacked"
        super().__init__(kept([file], kind, options, make) / "rows", options)
        self.files = [file]

    @property
    def note(self) -> str:  # type: ignore[override]
        """What the unpacked copy takes."""
        return f"unpacked in the study's cache, {gigabytes(self.file.stat().st_size)}"


def gigabytes(size: float) -> str:
    """An amount of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A file to be read from its beginning, unpacked. Raises: DataError where it is cut short or broken."""
    import pyarrow as pa

    compression = packing(file)
    try:
        with pa.input_stream(str(file), compression=compression) as stream:
            yield stream
    except (OSError, EOFError) as error:
        if compression is None or getattr(error, "errno", None):
            raise
        raise BrokenFile(
            f"{file} is cut short or broken ({first_line(error)}); fetch it again, or test it with "
            f"{ {'gzip': 'gzip', 'zstd': 'zstd'}.get(compression, 'bzip2') } -t"
        ) from error


def unpacked(file: Path, folder: Path, most: int | None = None) -> Iterator[bytes]:
    """The bytes of a compressed file, piece by piece, for a copy in `folder`. most: the whole lines in so many bytes.

    Raises: DataError as soon as it is more than is to be believed, or than the disk can hold.
    """
    packed, size = file.stat().st_size, 0
    with opened(file) as stream:
        while piece := stream.read(PIECE):
            size += len(piece)
            if size > LOOSE and size > RATIO * packed:
                raise DataError(
                    f"{file} unpacks to more than {RATIO} times its {packed} bytes, as no text does; unpack it "
                    "yourself if it is what you expect"
                )
            if most is not None and size >= most:
                yield piece[: piece.rfind(b"\n") + 1]
                return
            if size % (16 * PIECE) < PIECE and (free := shutil.disk_usage(folder).free) < SPARE:
                raise DataError(
                    f"{file} is unpacked into {folder.parent}, whose disk has {gigabytes(free)} left after "
                    f"{gigabytes(size)} of it; free some space"
                )
            yield piece
