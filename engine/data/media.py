"""Images and videos of a row: found beside the data file, in a tar beside it, or as bytes in the row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.base.errors import DataError
from engine.base.scratch import scratch
from engine.data.dataset import Dataset
from engine.data.images import Look, check_image
from engine.data.tars import MISSING
from engine.data.videos import check_video


class Unreadable(DataError):
    """Media that the scan could read and that cannot be read now. rows: number → why."""

    def __init__(self, data: Dataset, rows: dict[int, str]) -> None:
        first, why = next(iter(sorted(rows.items())))
        more = f" (and {len(rows) - 1} rows more)" if len(rows) > 1 else ""
        super().__init__(f"{data.path}, row {first}: {why}{more}; mend it, or take the row out")
        self.data, self.rows = data, rows


def locate(value: Any, root: Path, folder: Path) -> bytes | Path:
    """What a media field holds: bytes, or the path of a file.

    value: a path, bytes, or a Hugging Face {path, bytes}. root: unpacked tar; folder: the data file's.
    Raises: ValueError with the reason when it is none of these, or no regular file is there.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    path = Path(value) if isinstance(value, str) else None
    if path is None:
        raise ValueError(f"wrong type {type(value).__name__}, a path or bytes are read")
    for base in (folder, root):
        if (base / path).is_file():  # a regular file: no pipe or device is ever opened
            return base / path
    raise ValueError(f"{MISSING}{value}")


def check_media(source: bytes | Path, video: bool = False) -> Look | None:
    """That a program which opens media by itself may be given this one; what an image's header says.

    Raises: OSError, ValueError.
    """
    if not video:
        return check_image(source)
    if isinstance(source, bytes):
        raise ValueError("wrong type: videos are read from paths")  # noqa: TRY004 - a fault of the row
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
