"""Training rows that are near-duplicates of evaluation rows.

The evaluation is small: it is indexed, and the training rows are compared with it chunk by chunk in worker processes.
Rows that have images count as alike by them, whatever the captions; videos by their files. What came of it is cached
under both contents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.arrays import save_arrays
from engine.base.durable import is_whole
from engine.base.ids import content_id
from engine.base.parallel import run_chunks
from engine.base.paths import folder_of
from engine.data.alike import BITS, SIDE, Hashes, Match, Pictures, Texts, ends_of, shingles, signature
from engine.data.dataset import Dataset, as_list, utf8
from engine.data.look import places
from engine.data.media import locate
from engine.records.overlap import Overlap, Pair
from engine.settings.data import DedupSection

By = Literal["images", "videos", "text"]
CHUNK = {"text": 5_000, "images": 500, "videos": 500}
IN_PROCESS = {"text": 20_000, "images": 1_000, "videos": 1_000}  # rows that are compared without workers
MOST = {"text": 1_000_000, "images": 200_000, "videos": 20_000}  # rows that are compared where nothing hangs on all
LOOKED_AT = {"text": 50_000, "images": 5_000, "videos": 500}  # for a first look
EXAMPLES, SHOWN = 20, 80  # pairs that are kept, and characters of their texts
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Side:
    """One of the two sets of rows. root: of relative media paths. good: (rows,) those that count."""

    data: Dataset
    root: Path
    good: NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """rows: (pairs,) training rows in order, each once. of: the evaluation row that each is most like. alike: how much.

    compared: training rows that were compared.
    """

    rows: NDArray[np.int64]
    of: NDArray[np.int64]
    alike: NDArray[np.float64]
    compared: int


def by_what(train: Dataset, held: Dataset) -> By | None:
    """What rows of both are compared by; None where they have nothing in common."""
    for name in ("images", "videos", "text"):
        if getattr(train.fields, name) and getattr(held.fields, name):
            return name
    return None


def search(
    train: Side, held: Side, section: DedupSection, state: Path, workers: int, most: int | None = None,
    progress: Progress | None = None, *, only_known: bool = False,
) -> Found | None:  # fmt: skip
    """Training rows that are like an evaluation row. None where the rows cannot be compared.

    section: what makes texts alike. most: training rows that are compared, from all over the data; None: all.
    only_known: None, too, where it was not searched yet.
    """
    by = by_what(train.data, held.data)
    if by is None:
        return None
    whole = most is None or len(train.data) <= most
    file = state / "cache" / f"overlap-{_key(train, held, section, None if whole else most)}.npz"
    if not is_whole(file, sums=True):
        if only_known:
            return None
        found = _compare(by, train, held, section, workers, None if whole else most, progress)
        save_arrays(file, rows=found.rows, of=found.of, alike=found.alike, compared=np.array(found.compared, np.int64))
    with np.load(file) as saved:
        return Found(saved["rows"], saved["of"], saved["alike"], int(saved["compared"]))


def _key(train: Side, held: Side, section: DedupSection, most: int | None) -> str:
    masks = [hashlib.blake2b(np.packbits(side.good).tobytes(), digest_size=8).hexdigest() for side in (train, held)]
    sides = [[side.data.fingerprint, side.data.key] for side in (train, held)]
    return content_id([1, *sides, masks, section.similarity, section.window, section.tokens, most])


def summary(found: Found, train: Side, held: Side, left_out: bool) -> Overlap:
    """In numbers, with the first pairs."""
    by = by_what(train.data, held.data)
    assert by is not None
    first = found.rows[:EXAMPLES]
    field = train.data.fields.text
    texts = [str(row.get(field) or "")[:SHOWN] if field else "" for row in train.data.take(first)]
    pairs = zip(first.tolist(), found.of.tolist(), found.alike.tolist(), texts, strict=False)
    return Overlap(
        len(found.rows), found.compared, int(train.good.sum()), len(np.unique(found.of)), int(held.good.sum()), by,
        left_out, tuple(Pair(row, of, round(alike, 3), utf8(text)) for row, of, alike, text in pairs),
    )  # fmt: skip


def _compare(
    by: By, train: Side, held: Side, section: DedupSection, workers: int, most: int | None, progress: Progress | None
) -> Found:
    index = _index(by, held, section, workers)
    spans = list(train.data.chunks(CHUNK[by]))
    if most is not None:
        spans = [(a, min(a + CHUNK[by], stop)) for start, stop in places(train.good, most)
                 for a in range(start, stop, CHUNK[by])]  # fmt: skip
    jobs = [(by, index, train.data, train.root, span, train.good[slice(*span)], section) for span in spans]
    total = done = sum(stop - start for start, stop in spans)
    best: dict[int, tuple[float, int]] = {}
    done = 0
    for span, matches in _each(_look_up, jobs, total <= IN_PROCESS[by], workers):
        for row, of, alike in matches:
            best[row] = max(best.get(row, (0.0, 0)), (alike, of))
        done += span[1] - span[0]
        if progress:
            progress(done, total)
    rows = sorted(best)
    return Found(
        np.array(rows, np.int64), np.array([best[r][1] for r in rows], np.int64),
        np.array([best[r][0] for r in rows], np.float64), int(sum(train.good[slice(*span)].sum() for span in spans)),
    )  # fmt: skip


def _each(work: Callable[[Any], Any], jobs: Sequence[Any], here: bool, workers: int) -> Iterator[Any]:
    """Results of all jobs; of little work without workers, whose start takes longer."""
    return map(work, jobs) if here else run_chunks(work, jobs, workers)


def _index(by: By, held: Side, section: DedupSection, workers: int) -> tuple[Texts | Pictures, NDArray[np.int64]]:
    """What the training rows are looked up in, and the evaluation rows of its numbers."""
    spans = list(held.data.chunks(CHUNK[by]))
    jobs = [(by, held.data, held.root, span, held.good[slice(*span)], section) for span in spans]
    parts = sorted(_each(_sketch, jobs, len(held.data) <= IN_PROCESS[by], workers), key=lambda part: part[0])
    numbers = [number for _, part, _ in parts for number in part]
    if by == "text":
        return Texts.of([text for *_, texts in parts for text in texts]), np.array(numbers, np.int64)
    hashes = np.concatenate([np.zeros(0, np.uint64), *(pictures[0] for *_, pictures in parts)])
    colours = np.concatenate([np.zeros((0, 3 * SIDE**2), np.uint8), *(pictures[1] for *_, pictures in parts)])
    owners = np.arange(len(numbers), dtype=np.int32)
    return Pictures(hashes, colours, owners), np.array(numbers, np.int64)


def _sketch(
    job: tuple[By, Dataset, Path, tuple[int, int], NDArray[np.bool_], DedupSection],
) -> tuple[int, list[int], Any]:
    """(first row, row of each sketch, the sketches) of a chunk; in a worker process."""
    by, data, root, span, wanted, section = job
    rows = data.reader.read(*span)
    numbers: list[int] = []
    hashes: list[int] = []
    colours: list[NDArray[np.uint8]] = []
    texts: list[Hashes] = []
    for at in np.flatnonzero(wanted).tolist():
        if by == "text":
            texts.append(shingles(utf8(str(rows[at].get(data.fields.text or "") or "")), section))
            numbers.append(span[0] + at)
            continue
        for picture in _pictures(by, rows[at], data, root):
            hashes.append(picture[0])
            colours.append(picture[1])
            numbers.append(span[0] + at)
    if by == "text":
        return span[0], numbers, texts
    return span[0], numbers, (np.array(hashes, np.uint64), np.array(colours, np.uint8).reshape(-1, 3 * SIDE**2))


def _pictures(by: By, row: dict[str, Any], data: Dataset, root: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Of each image or video of a row; one that is not there, or not readable, any more is like no other."""
    folder = folder_of(data.path)
    for value in as_list(row.get(getattr(data.fields, by) or "")):
        try:
            source = locate(value, root, folder)
            if by == "videos":
                yield ends_of(source), np.zeros(3 * SIDE**2, np.uint8)
            else:
                yield signature(source)
        except (OSError, ValueError) as error:
            machine.refuse(error, str(data.path))


def _look_up(
    job: tuple[By, tuple[Texts | Pictures, NDArray[np.int64]], Dataset, Path, tuple[int, int], NDArray[np.bool_],
               DedupSection],
) -> tuple[tuple[int, int], list[Match]]:  # fmt: skip
    """(chunk, its rows that are like an evaluation row); in a worker process."""
    by, (index, of), data, root, span, wanted, section = job
    _, numbers, sketches = _sketch((by, data, root, span, wanted, section))
    if isinstance(index, Texts):
        found = index.matches(sketches, section.similarity)
    else:
        found = index.matches(sketches[0], sketches[1], BITS if by == "images" else 0)
    return span, [(numbers[at], int(of[other]), alike) for at, other, alike in found]
