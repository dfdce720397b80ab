"""Questions of instructions in a file without a name, so that any number of them takes little memory."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from engine.data.dataset import Dataset
from engine.data.sift import Sieve, less, refuse_bad
from engine.tasks.vlm.benchmarks import Question
from engine.tasks.vlm.inner import Inner


@dataclass(frozen=True)
class Entry:
    """A conversation. place: for messages. image: where its picture lies. pairs: its questions and answers."""

    place: str
    image: Path | Inner
    pairs: list[tuple[str, str]]


class Questions:
    """The questions of the entries that were kept, with the accounting of all. Iterated, they are read again each time.

    bad: how many entries are not only left out.
    """

    def __init__(self, entries: Iterable[Entry], sieve: Sieve, data: Dataset | None, folder: Path | None) -> None:
        """data: of which images are parts. folder: on whose disk they are kept. Raises: DataError, as `sieve` does."""
        self.data, self._file = data, TemporaryFile(dir=folder)  # noqa: SIM115 (it goes with this object)
        self._ends, self._images = array("q"), array("Q")  # where entries end; two numbers that stand for an image
        self.count = 0
        for entry in entries:
            image = _as_json(entry.image)
            self._file.write(json.dumps([entry.place, image, entry.pairs], allow_nan=False).encode())
            self._ends.append(self._file.tell())
            self._images.frombytes(blake2b(json.dumps(image, allow_nan=False).encode(), digest_size=16).digest())
            self.count += len(entry.pairs)
        self._file.flush()
        self.accounting, self.bad = sieve.accounting.noted(f"{self.count} questions"), sieve.bad
        sieve.refuse()

    def entry(self, number: int) -> Entry:
        """One of them, by its place in the order."""
        start = self._ends[number - 1] if number else 0
        self._file.seek(start)
        place, image, pairs = json.loads(self._file.read(self._ends[number] - start))
        return Entry(place, self._image(image), [(question, answer) for question, answer in pairs])

    def entries(self) -> Iterator[Entry]:
        """All, in their order."""
        return map(self.entry, range(len(self._ends)))

    def __iter__(self) -> Iterator[Question]:
        return (Question(e.place, e.image, asked, (reply,)) for e in self.entries() for asked, reply in e.pairs)

    def __len__(self) -> int:
        return self.count

    @property
    def shown(self) -> str:
        """What stands for the images of all entries."""
        return blake2b(self._images.tobytes(), digest_size=16).hexdigest()

    def pictures(self, entries: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(the first of these entries that shows each distinct image, which of those images each entry shows)."""
        pairs = np.frombuffer(self._images, np.uint64).reshape(-1, 2)[entries]
        _, firsts, which = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(firsts)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return entries[firsts[order]], rank[which.reshape(-1)]

    def leave_out(self, kind: str, entries: int, left: int, first: str, max_bad: float) -> None:
        """Count entries that turn out bad later on, after which `left` questions are left. first: place and reason.

        Raises: DataError when they are too many.
        """
        if entries:
            self.count = left
            self.accounting = less(self.accounting, kind, entries).noted(f"{left} questions")
            self.bad += entries
            refuse_bad(self.accounting, self.bad, not left, max_bad, first)

    def _image(self, told: str | list[str | int]) -> Path | Inner:
        if isinstance(told, str):
            return Path(told)
        assert self.data is not None
        place, row, name, at = told
        return Inner(str(place), int(row), str(name), self.data, int(at))


def _as_json(image: Path | Inner) -> str | list[str | int]:
    return str(image) if isinstance(image, Path) else [image.place, image.row, image.name, image.at]
