"""Images and videos of a row: found beside the data file, in a tar beside it, or as bytes in the row."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine.base.durable import SEAL, written_whole
from engine.base.errors import DataError
from engine.data.images import check_image
from engine.data.videos import check_video

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def media_root(data: Path, state: Path) -> Path:
    """The folder that relative media paths start from.

    data: the data file. state: the study's state folder, where a tar beside the data file is
    unpacked once (regular files with safe names only), when the rows' own folder lacks the media.
    """
    folder = data if data.is_dir() else data.parent
    tars = sorted(p for p in folder.iterdir() if p.name.endswith(TAR_SUFFIXES))
    if not tars:
        return folder
    stamp = [(t.name, t.stat().st_size, t.stat().st_mtime_ns) for t in tars]
    target = state / "media" / hashlib.blake2b(repr((str(folder), stamp)).encode(), digest_size=8).hexdigest()
    if not (target / SEAL).is_file():  # whether all is there is looked at once, when the study is opened
        _unpack(tars, target)
    return target


def _unpack(tars: list[Path], target: Path) -> None:
    with written_whole(target) as scratch:
        scratch.mkdir()
        for tar in tars:
            try:
                with tarfile.open(tar) as archive:
                    archive.extractall(scratch, filter="data")
            except (tarfile.TarError, EOFError, OSError) as error:
                raise DataError(f"{tar} cannot be unpacked ({error}); check the file and the free space") from error


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
    raise ValueError(f"missing file {value}")


def check_media(source: bytes | Path, video: bool = False) -> None:
    """That a program which opens media by itself may be given this one; its kind and size are looked at.

    Raises: OSError, ValueError.
    """
    if not video:
        check_image(source)
    elif isinstance(source, bytes):
        raise ValueError("wrong type: videos are read from paths")
    else:
        check_video(source)


@contextmanager
def files_of(sources: list[list[bytes | Path]]) -> Iterator[list[list[str]]]:
    """The same media as paths: bytes are written to a temporary folder for as long as the block runs."""
    if not any(isinstance(s, bytes) for row in sources for s in row):
        yield [[str(s) for s in row] for row in sources]
        return
    with TemporaryDirectory(prefix="djsb-media-") as scratch:
        paths = []
        for i, row in enumerate(sources):
            here = []
            for k, source in enumerate(row):
                if isinstance(source, bytes):
                    file = Path(scratch) / f"{i}-{k}"
                    file.write_bytes(source)
                    source = file
                here.append(str(source))
            paths.append(here)
        yield paths
