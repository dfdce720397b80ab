"""Conversations in a task's cache: their texts in one file, where their images lie in another.

Nothing is decoded beforehand: images are opened as trials draw them, and become what the model's own processor makes.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.base.arrays import save_array
from engine.base.durable import written_whole
from engine.data.images import check_image, check_whole, open_image
from engine.tasks.shared.media import write_sources
from engine.tasks.shared.packed import Store
from engine.tasks.vlm.chat import Talk

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Originals:
    """Images as they are."""

    video = False

    def look(self, source: bytes | Path) -> bool:
        """See Medium. Raises: OSError, ValueError."""
        check_whole(source)
        return False


def size_of(source: bytes | Path) -> tuple[int, int]:
    """(width, height) of an image that is whole, as it is shown. Raises: OSError, ValueError."""
    look = check_image(source)
    check_whole(source)
    return look.width, look.height


@dataclass(frozen=True)
class Pictures:
    """The images of a cache, several an item where `places` says so. places: (items + 1,) where each item's begin."""

    file: Path
    places: NDArray[np.int64] | None = None

    @classmethod
    def of_cache(cls, prepared: Path, name: str) -> Pictures:
        """Those that were written under a name."""
        places = prepared / f"{name}-places.npy"
        return cls(prepared / f"{name}-images.json", np.load(places, mmap_mode="r") if places.exists() else None)

    @cached_property
    def _store(self) -> Store:
        return Store(self.file)

    def of(self, item: int) -> list[Image.Image]:
        """Those of one item, decoded."""
        start, end = (item, item + 1) if self.places is None else self.places[item : item + 2].tolist()
        return [open_image(self._store.source(number)) for number in range(start, end)]

    def __getitem__(self, items: Sequence[int]) -> list[list[Image.Image]]:
        return [self.of(int(item)) for item in items]


@dataclass(frozen=True)
class Talks:
    """The conversations that `write_talks` wrote under a name; empty ones stand for rows that are left out."""

    prepared: Path
    name: str

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.load(self.prepared / f"{self.name}-talks-ends.npy", mmap_mode="r")
        return found

    @cached_property
    def _texts(self) -> NDArray[np.uint8]:
        file = self.prepared / f"{self.name}-talks.bin"
        return np.memmap(file, np.uint8, "r") if file.stat().st_size else np.zeros(0, np.uint8)

    @cached_property
    def pictures(self) -> Pictures:
        """Their images."""
        return Pictures.of_cache(self.prepared, self.name)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> Talk:
        start, end = (int(self._ends[number - 1]) if number else 0), int(self._ends[number])
        told = json.loads(self._texts[start:end].tobytes())
        return Talk(tuple((q, a) for q, a in told["turns"]), told["system"])

    def there(self, most: int) -> NDArray[np.int64]:
        """The first conversations, at most so many of them that are not empty."""
        sizes = np.diff(self._ends, prepend=0)
        found: NDArray[np.int64] = np.flatnonzero(sizes)[:most]
        return found


def as_bytes(talk: Talk) -> bytes:
    """As it is kept."""
    return json.dumps({"system": talk.system, "turns": talk.turns}, ensure_ascii=False, allow_nan=False).encode()


def write_talks(
    target: Path, name: str, entries: Iterable[tuple[bytes, Sequence[bytes]]],
    whence: Callable[[], dict[str, Any] | None],
) -> int:  # fmt: skip
    """Write conversations one by one; how many. entries: (`as_bytes` or nothing, where its images lie).

    whence: the rows that have the images, asked for at the end.
    """
    ends, places = array("q"), array("q", [0])

    with written_whole(target / f"{name}-talks.bin") as scratch, scratch.open("wb") as file:

        def sources() -> Iterator[bytes]:
            for talk, images in entries:
                file.write(talk)
                ends.append((ends[-1] if ends else 0) + len(talk))
                places.append(places[-1] + len(images))
                yield from images

        write_sources(target, f"{name}-images", sources(), Originals(), "exact", name, whence)
    save_array(target / f"{name}-talks-ends.npy", np.asarray(ends, np.int64))
    save_array(target / f"{name}-places.npy", np.asarray(places, np.int64))
    return len(ends)
