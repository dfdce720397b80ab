"""The media caches of a study, opened like arrays. Items in packs are made when they are first asked for.

Beside a GPU, processes read and make them ahead of the training. Each keeps what it makes for all others, trials to
come included (`engine/data/packs.py`).
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.errors import DataError
from engine.base.parallel import crew
from engine.base.remote import RemotePath, as_path
from engine.data.dataset import Dataset, as_list
from engine.data.packs import Packs, bound_of
from engine.settings.data import DatasetSection
from engine.tasks.contract import Form, Rows
from engine.tasks.shared.crops import Wholes
from engine.tasks.shared.images import Fitted, Squares
from engine.tasks.shared.media import BOUND, BYTES, ROW, Medium, place_of
from engine.tasks.shared.videos import Windows

PART = 16  # items that a process is asked for at once
AHEAD = 1 << 30  # bytes, decoded, that are read ahead at most
MOST = 16  # processes that read
READERS = "DJSB_READERS"  # of the environment: how many, in place of what suits the machine
MEDIA: dict[str, Callable[..., Medium]] = {"Squares": Squares, "Fitted": Fitted, "Wholes": Wholes, "Windows": Windows}
LOG = logging.getLogger("djsb")


class Media(Protocol):
    """(items, …) uint8, read by numbers of items; a NumPy array is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Store:
    """One cache as a process reads and fills it. file: its NAME.json."""

    file: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """What `write_sources` wrote."""
        found: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        return found

    @cached_property
    def medium(self) -> Medium:
        """What is kept."""
        fields = dict(self.about["fields"])
        return MEDIA[self.about["medium"]](**fields)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where each item's source ends in the list of sources."""
        found: NDArray[np.int64] = np.load(self.file.with_name(f"{self.file.stem}-ends.npy"), mmap_mode="r")
        return found

    @cached_property
    def packs(self) -> Packs:
        """Where items are kept."""
        root = self.file.parents[1] / "packs"
        told = json.loads((root / BOUND).read_text(encoding="utf-8"))
        return Packs(root / str(self.about["packs"]), bound_of(root, told["max_gb"]))

    @cached_property
    def rows(self) -> Rows | None:
        """The rows that have the sources, where they have them."""
        if (whence := self.about["rows"]) is None:
            return None
        index = self._place(whence["index"]) if whence["index"] else None
        data = Dataset(self._place(whence["path"]), DatasetSection(**whence["fields"]), index)
        return Rows(data, self._place(whence["root"]), np.ones(0, bool))

    def _place(self, text: str) -> Path:
        """A path as it was written: those that are not absolute start from the study's folder."""
        path = as_path(text)
        return path if isinstance(path, RemotePath) else self.file.parents[3] / path

    def source(self, number: int) -> Path | bytes:
        """Where an item lies, or its bytes. Raises: OSError, ValueError."""
        start, end = (int(self.ends[number - 1]) if number else 0), int(self.ends[number])
        with self.file.with_name(f"{self.file.stem}-sources.bin").open("rb", buffering=0) as sources:
            return self._source(number, os.pread(sources.fileno(), end - start, start))

    def read(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(numbers, …) pixels; zero where there is no medium. Raises: DataError that names what cannot be read."""
        found = np.zeros((len(numbers), *self.medium.shape), np.uint8)
        with self.file.with_name(f"{self.file.stem}-sources.bin").open("rb", buffering=0) as sources:
            for at, number in enumerate(numbers.tolist()):
                start, end = (int(self.ends[number - 1]) if number else 0), int(self.ends[number])
                if start == end:
                    continue
                if (content := self.packs.get(number)) is not None:
                    found[at] = self.medium.unpack(content)
                else:
                    content, found[at] = self._made(number, os.pread(sources.fileno(), end - start, start))
                    self.packs.put(number, content)
        return found

    def _made(self, number: int, entry: bytes) -> tuple[bytes, NDArray[np.uint8]]:
        """An item and its pixels, made from its source."""
        try:
            return self.medium.pack(self._source(number, entry), number, self.about["form"])
        except (OSError, ValueError) as error:
            rows = self.rows if self.about["rows"] and self.about["rows"]["field"] is not None else None
            what = f"{rows.data.path}, row {number}" if rows else f"{self.file.stem}, number {number}"
            machine.refuse(error, what)
            text = " ".join(str(error).split())[:300]
            raise DataError(f"{what}: {text}; mend it, or take the row out") from error

    def _source(self, number: int, entry: bytes) -> Path | bytes:
        kind, entry = entry[:1], entry[1:]
        if kind == BYTES:
            return entry
        if self.rows is None:
            return self._place(json.loads(entry))
        value = json.loads(entry) if entry else [number, self.about["rows"]["field"]]
        return place_of(self.rows, value if kind != ROW else self._field(*value))

    def _field(self, number: int, field: str, at: int = 0) -> Any:
        assert self.rows is not None
        return as_list(self.rows.data.reader.read(number, number + 1, [field])[0][field])[at]


_store = lru_cache(maxsize=8)(Store)


def kept_size(file: Path, form: Form, most: int) -> float:
    """Bytes of one medium as it is kept in that form, by the first `most` of a cache in packs. file: its NAME.json."""
    store, sizes = Store(file), []
    content = file.with_name(f"{file.stem}-sources.bin").read_bytes()
    ends = [0, *store.ends[:most].tolist()]
    for number, (start, end) in enumerate(pairwise(ends)):
        if start < end:
            kept, _ = store.medium.pack(store._source(number, content[start:end]), number, form)
            sizes.append(len(kept))
    return float(np.mean(sizes)) if sizes else 0.0


class _Notes(logging.Handler):
    """Lines for the log, which the process that asked writes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


def _read(file: Path, numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint8], list[str]]:
    """(items, lines for the log); runs in a process that reads ahead."""
    notes = _Notes()
    LOG.addHandler(notes)
    try:
        return _store(file).read(numbers), notes.lines
    finally:
        LOG.removeHandler(notes)


def readers() -> int:
    """Processes that read ahead of this worker's training: its share of the cores beside a GPU, none on a core."""
    if (told := os.environ.get(READERS)) is not None:
        return int(told)
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):  # a worker without a GPU has none, or an empty one
        return 0
    cards = Path("/proc/driver/nvidia/gpus")
    devices = len(list(cards.iterdir())) if cards.is_dir() else 1
    return min(MOST, max(1, len(os.sched_getaffinity(0)) // max(1, devices) - 1))


@lru_cache(maxsize=1)
def _crew(count: int) -> ProcessPoolExecutor:
    return crew(count, [__name__, "torch"])


@dataclass
class _Part:
    """Items that are being read. numbers: they ascend."""

    numbers: NDArray[np.int64]
    parts: list[NDArray[np.int64]]
    coming: list[Future[tuple[NDArray[np.uint8], list[str]]]]
    pixels: NDArray[np.uint8] | None = None


class Packed:
    """The items of a cache in packs, read like an array."""

    def __init__(self, file: Path) -> None:
        self._file, self._readers, self._said = file, readers(), set[str]()
        self._store = _store(file)
        self._now: _Part | None = None
        self.shape = (len(self._store.ends), *self._store.medium.shape)
        self.nbytes = prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """Those of numbers in any shape, or of a slice. Raises: DataError."""
        chosen = np.arange(len(self), dtype=np.int64)[index] if isinstance(index, slice) else np.asarray(index)
        numbers, places = np.unique(chosen, return_inverse=True)
        now = self._now
        if now is not None and np.isin(numbers, now.numbers, assume_unique=True).all():
            at = np.searchsorted(now.numbers, numbers)
            found = self._arrived(now)
            found = found if len(at) == len(found) else found[at]
        elif self._readers and len(numbers) > PART:
            found = self._arrived(self._ask(numbers))
        else:
            found = self._store.read(numbers)
        taken: NDArray[np.uint8] = found[places.reshape(chosen.shape)]
        return taken

    def ahead(
        self, order: Iterator[NDArray[np.int64]], numbers: Callable[[Any], NDArray[np.int64]]
    ) -> Iterator[NDArray[np.int64]]:
        """See `ahead`."""
        if not self._readers:
            yield from order
            return
        window: deque[tuple[NDArray[np.int64], _Part]] = deque()
        held, item = 0, prod(self.shape[1:])
        for batch in order:
            window.append((batch, self._ask(np.unique(numbers(batch)))))
            held += len(window[-1][1].numbers) * item
            if len(window) > 1 and (held >= AHEAD or self._enough(window)):
                held -= len(window[0][1].numbers) * item
                yield self._turn(window)
        while window:
            yield self._turn(window)
        self._now = None

    def _enough(self, window: deque[tuple[NDArray[np.int64], _Part]]) -> bool:
        """True when the processes have work for a while beyond the batch that is next."""
        return sum(len(part.coming) for _, part in list(window)[1:]) >= 4 * self._readers

    def _turn(self, window: deque[tuple[NDArray[np.int64], _Part]]) -> NDArray[np.int64]:
        batch, self._now = window.popleft()
        return batch

    def _ask(self, numbers: NDArray[np.int64]) -> _Part:
        parts = np.array_split(numbers, max(1, len(numbers) // PART))
        return _Part(numbers, parts, [self._submit(part) for part in parts])

    def _submit(self, part: NDArray[np.int64]) -> Future[tuple[NDArray[np.uint8], list[str]]]:
        try:
            return _crew(self._readers).submit(_read, self._file, part)
        except BrokenProcessPool:
            _crew.cache_clear()
            return _crew(self._readers).submit(_read, self._file, part)

    def _arrived(self, asked: _Part) -> NDArray[np.uint8]:
        """The items that were asked for. Those of a process that was killed are read by this one."""
        if asked.pixels is None:
            made = []
            for part, future in zip(asked.parts, asked.coming, strict=True):
                try:
                    pixels, notes = future.result()
                except BrokenProcessPool:
                    _crew.cache_clear()
                    pixels, notes = _read(self._file, part)
                for line in notes:
                    if line not in self._said:
                        self._said.add(line)
                        LOG.warning(line)
                made.append(pixels)
            asked.pixels = np.concatenate(made)
        return asked.pixels


def open_media(prepared: Path, name: str) -> Media:
    """A cache that was made under that name."""
    if (file := prepared / f"{name}.npy").exists():
        # copy-on-write, as torch takes no read-only memory; nothing writes
        found: NDArray[np.uint8] = np.load(file, mmap_mode="c")
        return found
    return Packed(prepared / f"{name}.json")


def ahead(
    media: Media, order: Iterator[NDArray[np.int64]], numbers: Callable[[Any], NDArray[np.int64]] = lambda batch: batch
) -> Iterator[NDArray[np.int64]]:
    """The batches as they are; those of media in packs are being read before they are asked for.

    numbers: of the items of a batch.
    """
    return media.ahead(order, numbers) if isinstance(media, Packed) else order
