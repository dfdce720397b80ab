"""Images and videos of a row: found beside the data file, in a tar beside it, or as bytes in the row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.base.errors import DataError
from engine.base.remote import RemotePath, below, pread
from engine.base.scratch import scratch
from engine.data.dataset import Dataset
from engine.data.images import Look, check_image
from engine.data.tars import MISSING
from engine.data.videos import check_video

LARGEST = 2**30  # bytes in a shard that are held in memory at once


class Unreadable(DataError):
    """Media that the scan could read and that cannot be read now. rows: number → why."""

    def __init__(self, data: Dataset, rows: dict[int, str]) -> None:
        first, why = next(iter(sorted(rows.items())))
        more = f" (and {len(rows) - 1} rows more)" if len(rows) > 1 else ""
        super().__init__(f"{data.path}, row {first}: {why}{more}; mend it, or take the row out")
        self.data, self.rows = data, rows


def locate(value: Any, root: Path, folder: Path) -> bytes | Path:
    """What a media field holds: bytes, or the path of a file.

    value: a path, bytes, a Hugging Face {path, bytes}, or {path, offset, size} of what lies in a larger file.
    root: unpacked tar; folder: the data file's.
    Raises: ValueError with the reason when it is none of these, or no regular file is there.
    """
    if isinstance(value, dict):
        if is_part(value):
            return _part_of(file_at(value["path"], root, folder), value["offset"], value.get("size"))
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError(f"wrong type {type(value).__name__}, a path or bytes are read")  # noqa: TRY004 - of the row
    file = file_at(value, root, folder)
    if not isinstance(file, RemotePath):
        return file
    if (size := file.stat().st_size) > LARGEST:
        raise ValueError(f"{size} bytes, more than {LARGEST}")
    return file.read_bytes()


def is_part(value: Any) -> bool:
    """True for {path, offset, size}: what lies in a larger file, as in a shard."""
    return isinstance(value, dict) and "offset" in value and isinstance(value.get("path"), str)


def as_file(value: Any, path: str, size: int) -> Any:
    """A value of the same form that means a whole file, of so many bytes."""
    if is_part(value):
        return {**value, "path": path, "offset": 0, "size": size}
    return {**value, "bytes": None, "path": path} if isinstance(value, dict) else path


def file_at(path: str, root: Path, folder: Path) -> Path:
    """The file of that name. Raises: ValueError.

    At an address it stands below the data file's folder, whatever the rows say.
    """
    if isinstance(folder, RemotePath):
        if not (file := below(folder, path)).is_file():
            raise ValueError(f"{MISSING}{path}")
        return file
    for base in (folder, root):
        if (base / path).is_file():  # a regular file: no pipe or device is ever opened
            return base / path
    raise ValueError(f"{MISSING}{path}")


def _part_of(file: Path, offset: Any, size: Any) -> bytes:
    """So many bytes of a file. Raises: ValueError, OSError."""
    if type(offset) is not int or type(size) is not int or min(offset, size) < 0:
        raise ValueError("wrong type: offset and size are no numbers of bytes")
    if size > LARGEST:
        raise ValueError(f"{size} bytes in a shard, more than {LARGEST}")
    with file.open("rb", buffering=0) as opened:
        content = pread(opened, size, offset)
    if len(content) < size:
        raise ValueError(f"truncated shard: {file.name} ends within it")
    return content


def check_media(source: bytes | Path, video: bool = False) -> Look | None:
    """That a program which opens media by itself may be given this one; what an image's header says.

    Raises: OSError, ValueError.
    """
    if not video:
        return check_image(source)
    check_video(source)
    return None


@contextmanager
def files_of(sources: list[list[bytes | Path]]) -> Iterator[list[list[str]]]:
    """The same media as paths: bytes are written to a temporary folder for as long as the block runs."""
    if not any(isinstance(s, bytes) for row in sources for s in row):
        yield [[str(s) for s in row] for row in sources]
        return
    with scratch() as folder:
        paths = []
        for i, row in enumerate(sources):
            here = []
            for k, source in enumerate(row):
                if isinstance(source, bytes):
                    file = folder / f"{i}-{k}"
                    file.write_bytes(source)
                    source = file
                here.append(str(source))
            paths.append(here)
        yield paths
