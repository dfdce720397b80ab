"""What models are judged by, as training rows are looked up in it: rows or items, their sketches, and an index.

The sketch of a text are its shingles, that of an image or video its signature. An index is a folder of arrays that
worker processes map into memory, cached under the content of what it was made of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.durable import written_whole
from engine.base.paths import folder_of
from engine.data.alike import BITS, SIDE, Pictures, Texts, each_once, ends_of, shingles, signature
from engine.data.dataset import Dataset, as_list, utf8
from engine.data.media import locate
from engine.settings.data import DedupSection

By = Literal["images", "videos", "text"]
CHUNK = {"text": 5_000, "images": 500, "videos": 500}
META = "meta.json"
LONG = 13  # what GPT-3's authors took for an overlap
Value = str | bytes | Path  # a text, or where an image or video is
Numbered = tuple[int, Value]
Sketches = tuple[NDArray[Any], NDArray[Any]]  # of texts as `shingles`, of images hashes and colours


@dataclass(frozen=True)
class Side:
    """A set of rows. root: of relative media paths. good: (rows,) those that count."""

    data: Dataset
    root: Path
    good: NDArray[np.bool_]

    @cached_property
    def key(self) -> list[Any]:
        """JSON that is the same for the same content."""
        mask = hashlib.blake2b(np.packbits(self.good).tobytes(), digest_size=8).hexdigest()
        return [self.data.fingerprint, self.data.key, mask]

    def part(self, span: tuple[int, int]) -> Part:
        """A range of the rows."""
        return Part(self.data, self.root, span[0], self.good[slice(*span)])


@dataclass(frozen=True)
class Part:
    """A range of rows from `start` on, as a worker gets it."""

    data: Dataset
    root: Path
    start: int
    good: NDArray[np.bool_]

    def values(self, by: By) -> Iterator[Numbered]:
        """(row, value) of the good ones; media that are not there any more are left out."""
        folder, field = folder_of(self.data.path), getattr(self.data.fields, by) or ""
        rows = self.data.reader.read(self.start, self.start + len(self.good))
        for at in np.flatnonzero(self.good).tolist():
            value = rows[at].get(field)
            if by == "text":
                yield self.start + at, utf8(str(value or ""))
                continue
            for medium in as_list(value):
                try:
                    yield self.start + at, locate(medium, self.root, folder)
                except (OSError, ValueError) as error:
                    machine.refuse(error, str(self.data.path))


@dataclass(frozen=True)
class Item:
    """An item of a benchmark. place: where it stands, for messages. values: what is like any of them is like it."""

    place: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Listed:
    """Items that are no rows of a data set. key: JSON that is the same for the same content. read: reads them."""

    key: Any
    read: Callable[[], Sequence[Item]]


@dataclass(frozen=True)
class Judged:
    """What models are judged by. name: of a benchmark; empty for the rows of evaluation.path. unit: what is counted.

    by: what it is compared by. within: a training text that holds nearly all of one of its texts is like it, too, where
    that has LONG tokens: shorter ones are what any text on the matter may say.
    """

    name: str
    unit: str
    by: By
    held: Side | Listed
    within: bool = False

    def key(self, section: DedupSection) -> list[Any]:
        """What its index hangs on."""
        text = [section.similarity, section.window, section.tokens, self.within] if self.by == "text" else []
        return [2, self.by, self.held.key, *text]

    def read(self) -> tuple[dict[str, Any], list[Part | list[Numbered]]]:
        """(the count of its items and the place of each, their values part by part)."""
        size = CHUNK[self.by]
        if isinstance(self.held, Side):
            parts = [self.held.part(span) for span in self.held.data.chunks(size)]
            return {"count": int(self.held.good.sum()), "places": []}, list(parts)
        items = self.held.read()
        values = [(number, value) for number, item in enumerate(items) for value in item.values]
        told = {"count": len(items), "places": [item.place for item in items]}
        return told, [values[at : at + size] for at in range(0, len(values), size)]


def sketch(by: By, values: Iterable[Numbered], section: DedupSection) -> tuple[list[int], Sketches]:
    """(number of each sketch, the sketches) of numbered values. A medium that cannot be read has none."""
    if by == "text":
        numbered = list(values)
        return [number for number, _ in numbered], shingles([str(text) for _, text in numbered], section)
    numbers, hashes, colours = list[int](), list[int](), list[NDArray[np.uint8]]()
    for number, value in values:
        assert not isinstance(value, str)
        try:
            found = signature(value) if by == "images" else (ends_of(value), np.zeros(3 * SIDE**2, np.uint8))
        except (OSError, ValueError) as error:
            machine.refuse(error, "an image" if isinstance(value, bytes) else str(value))
            continue
        numbers.append(number)
        hashes.append(found[0])
        colours.append(found[1])
    return numbers, (np.array(hashes, np.uint64), np.array(colours, np.uint8).reshape(-1, 3 * SIDE**2))


@dataclass(frozen=True)
class Index:
    """What training rows are looked up in. Of equal sketches it holds one, of a kind.

    numbers: (sketches,) the item of each. kinds: (sketches,) the kind of each.
    """

    like: Texts | Pictures
    numbers: NDArray[np.int64]
    kinds: NDArray[np.int64]

    def matches(self, rows: NDArray[np.int64], sketches: Sketches) -> tuple[list[tuple[int, int, float]], list[int]]:
        """((row, the first item that it is most like, how much) of those that are, all items that any is like).

        rows: of each sketch.
        """
        what, kind, alike = self.like.matches(*sketches)
        items = self.numbers[np.unique(self.kinds, return_index=True)[1]][kind]
        rows = rows[what]
        order = np.lexsort((items, -alike, rows))
        best = order[np.unique(rows[order], return_index=True)[1]]
        hit = np.unique(self.numbers[np.isin(self.kinds, kind)])
        return list(zip(rows[best].tolist(), items[best].tolist(), alike[best].tolist(), strict=True)), hit.tolist()


def write_index(
    folder: Path, judged: Judged, section: DedupSection, told: dict[str, Any], parts: Sequence[tuple[Any, Sketches]]
) -> None:
    """Write the index of sketches, part by part with their numbers. told: of the items."""
    known: dict[bytes, int] = {}
    arrays: dict[str, NDArray[Any]]
    if judged.by == "text":
        sets = [flat[a:b] for _, sketches in parts for flat, starts in [each_once(*sketches)]
                for a, b in pairwise(starts.tolist())]  # fmt: skip
        kinds = [known.setdefault(one.tobytes(), len(known)) for one in sets]
        distinct = [np.frombuffer(one, np.uint64) for one in known]
        starts = np.cumsum([0, *map(len, distinct)]).astype(np.int64)
        texts = Texts.of(_joined(distinct), starts, section.similarity)
        arrays = {"flat": texts.flat, "starts": texts.starts, "keys": texts.keys, "owners": texts.owners}
    else:
        hashes, colours = _joined([s[0] for _, s in parts]), _joined([s[1] for _, s in parts], 3 * SIDE**2)
        pairs = zip(hashes, colours, strict=True)
        kinds = [known.setdefault(one.tobytes() + colour.tobytes(), len(known)) for one, colour in pairs]
        first = np.unique(np.array(kinds, np.int64), return_index=True)[1]
        pictures = Pictures.of(hashes[first], colours[first])
        arrays = {"hashes": pictures.hashes, "colours": pictures.colours, "owners": pictures.owners}
    arrays["numbers"] = np.array([number for numbers, _ in parts for number in numbers], np.int64)
    arrays["kinds"] = np.array(kinds, np.int64)
    with written_whole(folder) as scratch:
        scratch.mkdir(parents=True)
        for name, array in arrays.items():
            np.save(scratch / f"{name}.npy", array)
        (scratch / META).write_text(json.dumps(told, allow_nan=False), encoding="utf-8")


def _joined(arrays: Sequence[NDArray[Any]], width: int | None = None) -> NDArray[Any]:
    empty = np.zeros(0, np.uint64) if width is None else np.zeros((0, width), np.uint8)
    return np.concatenate([empty, *arrays])


def open_index(folder: Path, by: By, section: DedupSection, within: bool) -> Index:
    """The index in a folder; it is opened once a process."""
    least = max(1, LONG - section.window + 1) if within else 0
    return _opened(folder, folder.stat().st_mtime_ns, by, section.similarity, least)


@lru_cache(maxsize=64)
def _opened(folder: Path, _changed: int, by: By, similarity: float, within: int) -> Index:
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in folder.glob("*.npy")}
    numbers, kinds = arrays.pop("numbers"), arrays.pop("kinds")
    if by == "text":
        return Index(Texts(**arrays, similarity=similarity, within=within), numbers, kinds)
    return Index(Pictures(**arrays, bits=BITS if by == "images" else 0), numbers, kinds)
