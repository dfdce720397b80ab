"""Training rows that are near-duplicates of what models are judged by: evaluation rows, and items of benchmarks.

What models are judged by is small: it is indexed, and the training rows are compared with all of it chunk by chunk in
worker processes. Rows that have images count as alike by them, whatever the captions; videos by their files. What came
of it is cached under the contents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.arrays import save_arrays
from engine.base.durable import is_whole
from engine.base.ids import content_id
from engine.base.parallel import run_chunks
from engine.data.dataset import Dataset, utf8
from engine.data.judged import CHUNK, META, By, Judged, Numbered, Part, Side, Sketches, open_index, sketch, write_index
from engine.data.look import places
from engine.records.overlap import Overlap, Pair
from engine.settings.data import DedupSection

IN_PROCESS = {"text": 20_000, "images": 1_000, "videos": 1_000}  # values that are compared without workers
MOST = {"text": 1_000_000, "images": 200_000, "videos": 20_000}  # rows that are compared where nothing hangs on all
LOOKED_AT = {"text": 50_000, "images": 5_000, "videos": 500}  # for a first look
EXAMPLES, SHOWN = 20, 80  # pairs that are kept, and characters of their texts
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Found:
    """rows: (pairs,) training rows in order, each once. of: the item that each is most like. alike: how much.

    compared: training rows that were compared. held: items that any row is like, of `items`. places: of the first
    pairs' items; empty where their number says it.
    """

    rows: NDArray[np.int64]
    of: NDArray[np.int64]
    alike: NDArray[np.float64]
    compared: int
    held: int
    items: int
    places: tuple[str, ...] = ()


def by_what(train: Dataset, held: Dataset) -> By | None:
    """What rows of both are compared by; None where they have nothing in common."""
    names: tuple[By, ...] = ("images", "videos", "text")
    return next((name for name in names if getattr(train.fields, name) and getattr(held.fields, name)), None)


@dataclass(frozen=True)
class Search:
    """The training rows, and how they are compared. section: what makes texts alike. state: the study's folder.

    most: training rows that are compared, from all over the data; None: all.
    """

    train: Side
    section: DedupSection
    state: Path
    workers: int
    most: Mapping[str, int] | None = None
    progress: Progress | None = None

    def known(self, judged: Judged) -> Found | None:
        """The rows that are like one of its items; None where they were not searched yet."""
        file = self._file(judged)
        if not is_whole(file, sums=True):
            return None
        with np.load(file) as saved:
            compared, held, items = (int(saved[name]) for name in ("compared", "held", "items"))
            return Found(
                saved["rows"], saved["of"], saved["alike"], compared, held, items, tuple(saved["places"].tolist())
            )

    def found(self, every: Sequence[Judged]) -> list[Found]:
        """The same of each; all that was not searched yet is searched in one pass over the rows."""
        left = [judged for judged in every if self.known(judged) is None]
        for by in dict.fromkeys(judged.by for judged in left):
            self._compare(by, [judged for judged in left if judged.by == by])
        return [found for judged in every if (found := self.known(judged)) is not None]

    def _file(self, judged: Judged) -> Path:
        key = [2, self.train.key, judged.key(self.section), self._limit(judged.by)]
        return self.state / "cache" / f"overlap-{content_id(key)}.npz"

    def _limit(self, by: By) -> int | None:
        """Rows that are compared where these are not all."""
        return None if self.most is None or len(self.train.data) <= self.most[by] else self.most[by]

    def _compare(self, by: By, every: Sequence[Judged]) -> None:
        indexes = [(self._index(judged), judged.within) for judged in every]
        spans, limit = list(self.train.data.chunks(CHUNK[by])), self._limit(by)
        if limit is not None:
            spans = [(a, min(a + CHUNK[by], stop)) for start, stop in places(self.train.good, limit)
                     for a in range(start, stop, CHUNK[by])]  # fmt: skip
        jobs = [(by, indexes, self.train.part(span), self.section) for span in spans]
        best = [dict[int, tuple[int, float]]() for _ in every]
        hits = [set[int]() for _ in every]
        for matches in self._each(_look_up, jobs, [stop - start for start, stop in spans], by):
            for (pairs, hit), own, of_own in zip(matches, best, hits, strict=True):
                own.update((row, (of, alike)) for row, of, alike in pairs)
                of_own.update(hit)
        compared = int(sum(self.train.good[slice(*span)].sum() for span in spans))
        for judged, (index, _), own, of_own in zip(every, indexes, best, hits, strict=True):
            told, rows = json.loads((index / META).read_text(encoding="utf-8")), sorted(own)
            named = [told["places"][own[row][0]] for row in rows[:EXAMPLES]] if told["places"] else []
            save_arrays(
                self._file(judged), rows=np.array(rows, np.int64), of=np.array([own[row][0] for row in rows], np.int64),
                alike=np.array([own[row][1] for row in rows], np.float64), compared=np.array(compared),
                held=np.array(len(of_own)), items=np.array(told["count"]), places=np.array(named, np.str_),
            )  # fmt: skip

    def _index(self, judged: Judged) -> Path:
        """The folder of what training rows are looked up in."""
        folder = self.state / "cache" / f"alike-{content_id(judged.key(self.section))}"
        if not is_whole(folder, sums=True):
            told, values = judged.read()
            jobs = [(judged.by, number, part, self.section) for number, part in enumerate(values)]
            sizes = [len(part.good) if isinstance(part, Part) else len(part) for part in values]
            made = sorted(self._each(_sketch, jobs, sizes, judged.by, here=True), key=lambda part: part[0])
            write_index(folder, judged, self.section, told, [(numbers, sketches) for _, numbers, sketches in made])
        return folder

    def _each(
        self, work: Callable[[Any], Any], jobs: Sequence[Any], sizes: Sequence[int], by: By, here: bool = False
    ) -> Iterator[Any]:
        """Results of all jobs, in no order; of little work without workers, whose start takes longer.

        sizes: values of each. here: the values may lie on this machine only.
        """
        few = sum(sizes) <= IN_PROCESS[by]
        total, done = sum(sizes), 0
        for count, result in enumerate(map(work, jobs) if few else run_chunks(work, jobs, self.workers, here=here), 1):
            done = total * count // len(jobs)
            if self.progress:
                self.progress(done, total)
            yield result


def _sketch(job: tuple[By, int, Part | list[Numbered], DedupSection]) -> tuple[int, list[int], Sketches]:
    """(number of the part, number of each sketch, the sketches) of a part; in a worker process."""
    by, number, part, section = job
    return number, *sketch(by, part.values(by) if isinstance(part, Part) else part, section)


def _look_up(
    job: tuple[By, list[tuple[Path, bool]], Part, DedupSection],
) -> list[tuple[list[tuple[int, int, float]], list[int]]]:
    """What rows match in each index (see `Index.matches`); in a worker process."""
    by, indexes, part, section = job
    numbers, sketches = sketch(by, part.values(by), section)
    rows = np.array(numbers, np.int64)
    return [open_index(folder, by, section, within).matches(rows, sketches) for folder, within in indexes]


def summary(found: Found, train: Side, judged: Judged, left_out: bool) -> Overlap:
    """In numbers, with the first pairs."""
    first, field = found.rows[:EXAMPLES], train.data.fields.text
    texts = [str(row.get(field) or "")[:SHOWN] if field else "" for row in train.data.take(first)]
    named = found.places or ("",) * len(first)
    pairs = zip(first.tolist(), found.of.tolist(), found.alike.tolist(), texts, named, strict=False)
    return Overlap(
        len(found.rows), found.compared, int(train.good.sum()), found.held, found.items, judged.by, left_out,
        tuple(Pair(row, of, round(alike, 3), utf8(text), place) for row, of, alike, text, place in pairs),
        judged.name, judged.unit,
    )  # fmt: skip
