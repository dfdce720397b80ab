"""Instructions to train on: questions about images with their answers, from any data set that opens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.base.errors import DataError
from engine.base.paths import STATE_FOLDER, folder_of, resolve
from engine.data.conversations import Conversation, read_conversation
from engine.data.dataset import Dataset
from engine.data.fingerprints import content_hash
from engine.data.media import is_part
from engine.data.readers.contract import BROKEN, Row, as_list
from engine.data.readers.formats import format_of, packing
from engine.data.readers.json_rows import entries
from engine.data.readers.webdataset import KEY, KINDS
from engine.data.sift import MAX_BAD, Sieve, Unusable
from engine.data.tars import archives
from engine.settings.data import DatasetSection
from engine.tasks.shared.media import whence_of
from engine.tasks.vlm.benchmarks import image_of
from engine.tasks.vlm.inner import Inner
from engine.tasks.vlm.questions import Entry, Questions

BLOCK = 500  # rows that are read at once


def fingerprint(folder: Path, path: str) -> str:
    """What the instructions hold. folder: the study's. Raises: DataError."""
    file = resolve(folder, path)
    return content_hash(file) if _is_plain(file) else _opened(file, folder).fingerprint


def _is_plain(file: Path) -> bool:
    """True for a file of JSON that is not packed, each row of which has a place that messages can name."""
    return file.is_file() and format_of(file) in (None, "json") and not packing(file)


def _opened(file: Path, folder: Path | None) -> Dataset:
    """A data set of instructions. folder: the study's, in which what is looked up is kept. Raises: DataError."""
    fields = DatasetSection(path=str(file), text=None)
    data = Dataset(file, fields, folder / STATE_FOLDER / "cache" / "rows" if folder else None)
    try:
        len(data)
    except DataError as error:
        raise DataError(f"vlm.instructions: {error}") from error
    return data


def _rows(data: Dataset) -> Iterator[tuple[str, Row]]:
    """(place for messages, row with its image as `image`) of a data set."""
    for start, stop in data.chunks(BLOCK):
        for number, row in enumerate(data.reader.read(start, stop), start):
            place = f"{data.path}, row {number}"
            yield place, row if BROKEN in row else _as_entry(row, number, data)


def _as_entry(row: Row, number: int, data: Dataset) -> Row:
    """A row in the form of an entry: columns that are null are none, and an image stands where it is read from."""
    entry = {name: value for name, value in row.items() if value is not None}
    names: tuple[str, ...] = ("image", "images")
    if KEY in entry:  # the sample of a shard: its picture is a member, and its turns may be all of its JSON
        names = next(((name,) for name in ("image", *KINDS["image"]) if name in entry and _is_held(entry[name])), names)
        if isinstance(turns := entry.get("json"), list):
            entry.setdefault("conversations", turns)
    images = [(name, value) for name in names for value in as_list(entry.get(name))]
    counted: Counter[str] = Counter()
    held = []
    for name, value in images:
        held.append(_inner(value, number, name, data, counted[name]))
        counted[name] += 1
    return {n: v for n, v in entry.items() if n not in ("image", "images")} | {"images": held}


def _is_held(value: Any) -> bool:
    return any(map(is_part, as_list(value)))


def _inner(value: Any, number: int, field: str, data: Dataset, at: int) -> Any:
    """What stands for an image: a path as it is, and an `Inner` for one that lies in a larger file or in its row."""
    if is_part(value):
        place = json.dumps({name: value.get(name) for name in ("path", "offset", "size")}, allow_nan=False)
        return Inner(place, -1, "", data)
    if isinstance(value, dict) and not value.get("bytes"):
        return value.get("path")
    return Inner("", number, field, data, at) if isinstance(value, dict | bytes) else value


@dataclass(frozen=True)
class Instructions:
    """A file or folder of instructions, read row by row. data: as a data set; None for a file of plain JSON."""

    file: Path
    data: Dataset | None

    @classmethod
    def of(cls, file: Path, folder: Path | None = None) -> Instructions:
        """All that opens as a data set. folder: the study's. Raises: DataError."""
        return cls(file, None if _is_plain(file) else _opened(file, folder))

    def rows(self) -> Iterator[tuple[str, Row]]:
        """(place for messages, row) of every entry."""
        return _rows(self.data) if self.data else entries(self.file)

    def conversation(self, entry: Row) -> Conversation:
        """Who says what in a row, with images. Raises: Unusable."""
        talk = read_conversation(entry)
        if not talk.images:
            raise Unusable("without an image", spared=True)
        return talk

    def image(self, image: Any) -> Path | Inner:
        """Where an image lies; paths start from the file's folder. Raises: Unusable."""
        if isinstance(image, Inner):
            return image
        try:
            return image_of([self._root], image)
        except Unusable as error:
            if not self._packed:
                raise
            raise Unusable(error.kind, f"{error}; {self._packed} beside it is not opened: unpack it there") from None

    @cached_property
    def _root(self) -> Path:
        return folder_of(self.data.path) if self.data else self.file.parent

    @cached_property
    def _packed(self) -> str | None:
        """A tar or zip beside the file, whose media are not read."""
        return next((file.name for file in archives(self._root)), None)

    def whence(self) -> dict[str, Any] | None:
        """See `shared.media.write_sources`."""
        return whence_of(self.data, folder_of(self.data.path)) if self.data else None


def read_instructions(
    file: Path, max_bad: float = MAX_BAD, folder: Path | None = None, target: Path | None = None
) -> tuple[Questions, int]:
    """(questions with their one answer, turns that were left out as they show no image), for models of one image.

    Every turn of a person and its reply make one question. folder: the study's. target: on whose disk they are kept.
    Raises: DataError.
    """
    blind = 0
    told = Instructions.of(file, folder)

    def read(place: str, row: Row) -> Entry:
        nonlocal blind
        talk = read_conversation(row)
        if not talk.images:
            blind += len(talk.pairs)
            raise Unusable("without an image", spared=True)
        if len(talk.images) > 1:
            raise Unusable("several images", f"it shows {len(talk.images)} images; one is read")
        return Entry(place, told.image(talk.images[0]), list(talk.pairs))

    sieve = Sieve("instructions", "entries", max_bad)
    found = Questions(sieve.through(told.rows(), read), sieve, told.data, target)
    if not len(found):
        raise DataError(f"{file} has no question with an image; give instructions with images")
    return found, blind
