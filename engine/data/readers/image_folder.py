"""Folders of images with a file of metadata, as `datasets` reads and writes them (imagefolder)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.data.readers.contract import Options, Reader, Rows
from engine.data.readers.joined import joined
from engine.data.readers.splits import by_split, chosen

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
NAME, IMAGE, LABEL = "file_name", "image", "label"
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"))
DEPTH = 3  # folders within folders in which metadata are looked for


class ImageFolderReader:
    """Rows of metadata files. `image` is the path of what `file_name` names, relative to the folder."""

    unnamed = ()
    schema = None

    def __init__(self, folder: Path, parts: Sequence[tuple[Path, Reader]], split: str | None) -> None:
        self._rows = joined([_Placed(reader, file.parent.relative_to(folder)) for file, reader in parts], split)
        self.files, self.left_out = list(self._rows.files), self._rows.left_out
        self.note = ", ".join(filter(None, ("a folder of images", self._rows.note)))

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        """Rows start … stop-1."""
        return self._rows.read(start, stop, fields)


class _Placed:
    """Rows of one metadata file, with the path of the image."""

    unnamed, schema = (), None

    def __init__(self, reader: Reader, place: Path) -> None:
        self._reader, self._place = reader, place
        self.files, self.left_out, self.note = reader.files, reader.left_out, reader.note

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        rows = self._reader.read(start, stop, {*fields, NAME} if fields is not None and IMAGE in fields else fields)
        for row in rows:
            if isinstance(row.get(NAME), str):
                row[IMAGE] = str(self._place / row[NAME])
        return rows


class BareImagesReader:
    """Images without metadata: a row an image, its folder's name as the label where there are several."""

    unnamed, schema = (), None
    left_out: tuple[tuple[str, int], ...] = ()

    def __init__(self, folder: Path, images: Sequence[Path], split: str | None) -> None:
        self.files = list(images)
        self._folder, self._labelled = folder, len({image.parent for image in images}) > 1
        self.note = "a folder of images" + (f", split {split}" if split else "")

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        """Hash of the names and sizes of all images."""
        told = hashlib.blake2b(digest_size=8)
        for image in self.files:
            line = f"{image.relative_to(self._folder)} {image.stat().st_size}\n"
            told.update(line.encode("utf-8", "surrogateescape"))
        return told.hexdigest()

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        """Rows start … stop-1."""
        rows: Rows = []
        for image in self.files[start:stop]:
            row: dict[str, Any] = {IMAGE: str(image.relative_to(self._folder))}
            rows.append({**row, LABEL: image.parent.name} if self._labelled else row)
        return rows


def image_folder(folder: Path, options: Options, opened: Callable[[Path], Reader]) -> Reader | None:
    """The reader of a folder of images with metadata; None where it is no such folder. opened: reads one file.

    Raises: DataError where there are several splits and none is named.
    """
    files = [file for file in _walk(folder) if file.name in METADATA]
    if not files:
        return None
    one = chosen(folder, by_split(folder, files), options.split)
    parts = [(file, opened(file)) for file in one]
    if not any(NAME in row for _, reader in parts for row in reader.read(0, min(5, len(reader)))):
        return None
    return ImageFolderReader(folder, parts, options.split)


def bare_images(folder: Path, split: str | None) -> Reader | None:
    """The reader of a folder of images without metadata; None where there are none."""
    images = [file for file in _walk(folder) if file.suffix.lower() in SUFFIXES]
    return BareImagesReader(folder, chosen(folder, by_split(folder, images), split), split) if images else None


def _walk(folder: Path) -> Iterator[Path]:
    """All files of a folder and those in it, in the order of their names, none that is hidden."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(Path(place).relative_to(folder).parts) >= DEPTH:
            folders.clear()
        yield from (Path(place) / name for name in sorted(files) if not name.startswith("."))
