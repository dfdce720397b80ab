"""Mappers run over rows (Appendix E.11): the same rows with other text or images, by real Data-Juicer OPs.

What each row becomes lies in files of one chunk each, so that it is computed once, whichever pool or seed wants it,
and a killed run goes on where it was. A mapper that draws at random is seeded by the row, so that no result hangs on
the rows beside it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.confine import inside
from engine.base.durable import is_whole, written_whole
from engine.base.errors import DataError, OpError
from engine.base.ids import content_id, json_text
from engine.base.parallel import run_chunks
from engine.base.paths import folder_of
from engine.base.remote import is_remote
from engine.base.scratch import scratch
from engine.data import datajuicer
from engine.data.catalogue import MAPPERS_FIXED, check_mapper, mapper_fields, mapper_model
from engine.data.dataset import Dataset, as_list
from engine.data.fingerprints import content_hash
from engine.data.images import open_image
from engine.data.media import as_file, file_at, is_part, locate
from engine.data.ops.contract import IMAGE_TOKEN
from engine.data.rows_file import Change, Row, write_rows
from engine.journal.results import MappedRow, MapperExample, MapperSummary
from engine.records.pool import MapperStep

Mappers = tuple[MapperStep, ...]
TEXT_CHUNK, MODEL_CHUNK = 2_000, 16  # rows of a file, which a killed run repeats at most
EXAMPLES, LONGEST = 5, 2_000  # rows that are shown, characters of each
NO_TEXT = "the mapper left no text"  # why a row stays as it was, where no mapper failed
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class MapperRun:
    """Mappers on a dataset.

    root: folder of relative media paths. models: folder that the paths of mappers' models start from. folder: where
    the results lie. anywhere: models may lie outside `models`, as in a recipe that a person applies.
    """

    data: Dataset
    root: Path
    mappers: tuple[MapperStep, ...]
    models: Path
    folder: Path
    anywhere: bool = False

    @property
    def chunk(self) -> int:
        """Rows of one file."""
        return MODEL_CHUNK if any(mapper_model(m.op) for m in self.mappers) else TEXT_CHUNK

    @property
    def changes(self) -> frozenset[str]:
        """Which of text and image the mappers change."""
        return frozenset(mapper_fields(m.op)[1] for m in self.mappers)

    @cached_property
    def _base(self) -> Path:
        return folder_of(self.data.path)

    def run(self, rows: Numbers, workers: int) -> Iterator[tuple[int, int, float]]:
        """Map the rows that are not mapped yet; yields (first row, rows, seconds) of each part.

        rows: ascending row numbers. Raises: OpError when a mapper cannot be built.
        """
        (self.folder / "media").mkdir(parents=True, exist_ok=True)
        jobs: list[tuple[Any, int, list[int], int]] = []
        for start, part in self._parts(rows):
            have = self.whole(start)
            if new := [r for r in part.tolist() if r not in have]:
                jobs.append((self, start, new, len(jobs)))
        yield from run_chunks(_map_chunk, jobs, workers, here=True)

    def missing(self, rows: Numbers) -> bool:
        """True when some of the rows are not mapped yet."""
        return any(r not in have for start, part in self._parts(rows) for have in [self.whole(start)] for r in part)

    def _parts(self, rows: Numbers) -> Iterator[tuple[int, Numbers]]:
        """(first row number of the chunk, the rows in it)."""
        for first in np.unique(rows // self.chunk).tolist():
            start = first * self.chunk
            a, b = np.searchsorted(rows, (start, start + self.chunk))
            yield start, rows[a:b]

    def file(self, start: int) -> Path:
        """The results of the chunk that begins at a row."""
        return self.folder / f"{start:012d}.jsonl"

    def results(self, start: int) -> dict[int, Row]:
        """Row → {text, images (names in `media`, None: as they were), kept: why it stayed as it was, or None}."""
        with self.file(start).open(encoding="utf-8") as lines:
            return {r["row"]: r for r in map(json.loads, lines)}

    def whole(self, start: int) -> dict[int, Row]:
        """The same, empty where the file or one of its images is not whole: they are made anew then."""
        return self.results(start) if is_whole(self.file(start)) else {}

    def images(self, rows: Numbers) -> Iterator[str]:
        """Names in `media` of the new images of rows."""
        for start, part in self._parts(rows):
            results = self.results(start)
            yield from (name for number in part.tolist() for name in results[number]["images"] or ())

    def sources(self, row: Row) -> list[bytes | Path]:
        """What the row's images are."""
        return [locate(v, self.root, self._base) for v in as_list(row.get(self.data.fields.images or ""))]

    def changed(self, rows: Numbers, whole: bool, media: Path, relative: Path | None = None) -> Change:
        """A function for `write_rows` that puts the results in place.

        rows: those that were rewritten. whole: rows besides these are written as {}, and all media by absolute paths,
        so that the file can stand in a folder of its own. media: folder of the new images; they are named relative to
        `relative`, if given.
        """
        known = set(rows.tolist())

        def change(numbers: Numbers, found: list[Row]) -> list[Row]:
            parts = {start: self.results(start) for start, _ in self._parts(numbers)}
            out: list[Row] = []
            for number, row in zip(numbers.tolist(), found, strict=True):
                if number not in known:
                    out.append({})
                    continue
                row = self._absolute(row) if whole else dict(row)
                result = parts[number // self.chunk * self.chunk][number]
                if self.data.fields.text is not None and result["text"] is not None:
                    row[self.data.fields.text] = result["text"]
                if result["images"] is not None and self.data.fields.images is not None:
                    files = [inside(media, name) for name in result["images"]]
                    row[self.data.fields.images] = _like(row[self.data.fields.images], files, relative)
                out.append(row)
            return out

        return change

    def _absolute(self, row: Row) -> Row:
        """The row with absolute paths of its media files."""
        found = dict(row)
        for name in filter(None, (self.data.fields.images, self.data.fields.videos)):
            values = as_list(row.get(name))
            put = [self._at(value) for value in values]
            found[name] = put if isinstance(row.get(name), list | tuple) else put[0] if put else row.get(name)
        return found

    def _at(self, value: Any) -> Any:
        """A media value with the absolute path of its file."""
        if is_remote(self._base):
            raise DataError(f"mappers do not read media at addresses ({self._base}); fetch the data, and give its path")
        if is_part(value):
            return {**value, "path": str(file_at(value["path"], self.root, self._base).absolute())}
        source = locate(value, self.root, self._base)
        if isinstance(source, bytes):
            return value
        return {**value, "path": str(source.absolute())} if isinstance(value, dict) else str(source.absolute())

    def dataset(self, rows: Numbers) -> Dataset:
        """All rows of the dataset in their places, these rewritten and the others empty; made unless it is there."""
        suffix = ".jsonl" if self.data.reader.schema is None else ".parquet"
        target = self.folder / f"rows-{content_id(rows.tolist(), 12)}{suffix}"
        if not is_whole(target):
            change = self.changed(rows, True, (self.folder / "media").absolute())
            with written_whole(target) as scratch:
                write_rows(self.data, np.arange(len(self.data), dtype=np.int64), scratch, change)
        return Dataset(target, self.data.fields.model_copy(update={"split": None}))

    def summary(self, rows: Numbers) -> MapperSummary:
        """Counts of changed rows and of unchanged ones by reason, and the first changed rows."""
        changed, kept, examples = 0, dict[str, int](), list[MapperExample]()
        for start, part in self._parts(rows):
            results = self.results(start)
            for number, row in zip(part.tolist(), self.data.take(part), strict=True):
                result, text = results[number], row.get(self.data.fields.text or "")
                if result["kept"] is not None:
                    kept[result["kept"]] = kept.get(result["kept"], 0) + 1
                new = result["text"] is not None and result["text"] != text
                if not new and result["images"] is None:
                    continue
                changed += 1
                if len(examples) < EXAMPLES:
                    examples.append(self._example(number, row, result))
        return MapperSummary([str(m) for m in self.mappers], len(rows), changed, kept, examples)

    def _example(self, number: int, row: Row, result: Row) -> MapperExample:
        """A row before and after; images by paths, those that lie in the row itself by None."""
        text = (row.get(self.data.fields.text or "") or "")[:LONGEST]
        new = text if result["text"] is None else result["text"][:LONGEST]
        before: list[str | None] = []
        if self.data.fields.images:
            before = [str(s.absolute()) if isinstance(s, Path) else None for s in self.sources(row)]
        after: list[str | None] = (
            before if result["images"] is None else [str(inside(self.folder, f"media/{n}")) for n in result["images"]]
        )
        return MapperExample(number, MappedRow(text, before), MappedRow(new, after))


def weights_of(name: str, params: dict[str, Any], root: Path) -> str:
    """Content hash of the folder of a mapper's model; empty where it has none."""
    model = mapper_model(name)
    return content_hash(Path(check_mapper(name, params, root)[model])) if model else ""


def key_of(mappers: Sequence[MapperStep]) -> str:
    """What a chain of mappers is stored under."""
    return content_id([asdict(m) for m in mappers], 12)


def _like(before: Any, files: list[Path], relative: Path | None) -> Any:
    """New images in the form of the old: paths, bytes, or {path, bytes}; one, or a list."""

    def one(value: Any, file: Path) -> Any:
        if isinstance(value, bytes):
            return file.read_bytes()
        return as_file(value, str(file.relative_to(relative)) if relative else str(file), file.stat().st_size)

    put = [one(v, f) for v, f in zip(as_list(before), files, strict=True)]
    return put if isinstance(before, list | tuple) else put[0]


_built: dict[str, Any] = {}
_Job = tuple[MapperRun, int, list[int], int]


def failures(summary: MapperSummary) -> int:
    """On how many rows mappers failed."""
    return sum(n for reason, n in summary.kept.items() if reason != NO_TEXT)


def _map_chunk(job: _Job) -> tuple[int, int, float]:
    """Map rows of one chunk and add them to its file."""
    work, start, numbers, rank = job
    began = time.perf_counter()
    results = work.whole(start)
    with scratch() as folder:
        for number, row in zip(numbers, work.data.take(np.asarray(numbers, np.int64)), strict=True):
            results[number] = {"row": number, **_map(work, number, row, folder, rank)}
    media = [work.folder / "media" / name for result in results.values() for name in result["images"] or ()]
    with written_whole(work.file(start), media) as scratch_file:
        lines = "".join(json_text(results[n]) + "\n" for n in sorted(results))
        scratch_file.write_text(lines, encoding="utf-8")
    return start, len(numbers), time.perf_counter() - began


def _map(work: MapperRun, number: int, row: Row, scratch: Path, rank: int) -> Row:
    """One row through all mappers; where one fails or leaves nothing, the row stays as it was."""
    text = row.get(work.data.fields.text or "") or ""
    asked, images = text, list[Path]()
    try:
        if any("image" in mapper_fields(m.op)[0] for m in work.mappers):
            for k, source in enumerate(work.sources(row)):
                images.append(scratch / f"{number}-{k}.png")
                open_image(source).save(images[-1])
        for mapper in work.mappers:
            _seed([work.data.fields.text and row.get(work.data.fields.text), number, str(mapper)])
            asked, images = _mapped(work, mapper, asked, images, scratch, rank)
    except OpError:
        raise  # no row can be mapped
    except Exception as error:  # a border: OPs may raise any exception; the row is counted
        machine.refuse(error, "mappers")
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return {"text": None, "images": None, "kept": reason}
    if not asked.strip():
        return {"text": None, "images": None, "kept": NO_TEXT}
    made: list[str] | None = None
    if "image" in work.changes:
        made = [f"{number}-{k}.png" for k in range(len(images))]
        for name, image in zip(made, images, strict=True):
            open_image(image).save(work.folder / "media" / name, format="PNG")
    return {"text": asked if "text" in work.changes else None, "images": made, "kept": None}


def _mapped(
    work: MapperRun, mapper: MapperStep, text: str, images: list[Path], scratch: Path, rank: int
) -> tuple[str, list[Path]]:
    """One row through one mapper. Raises: OpError when the mapper cannot be built."""
    op = _op_for(work, mapper)
    batch: dict[str, list[Any]] = {"text": [text]}
    if "image" in mapper_fields(mapper.op)[0]:
        batch["images"] = [[str(i) for i in images]]
    if mapper.op == "image_captioning_mapper":
        from data_juicer.utils.mm_utils import remove_special_tokens

        batch["text"] = [IMAGE_TOKEN * len(images)]  # it captions the images that the text names
        return remove_special_tokens(op.process_batched(batch, rank=rank)["text"][0]).strip(), images
    if mapper.op == "image_diffusion_mapper":
        op.save_dir = str(scratch)
        return text, [Path(p) for p in op.process_batched(batch, rank=rank)["images"][0]]
    return str(op.process_batched(batch)["text"][0]), images


def _op_for(work: MapperRun, mapper: MapperStep) -> Any:
    """The OP, built once in a process."""
    key = f"{work.models} {mapper}"
    if key not in _built:
        params = {**check_mapper(mapper.op, dict(mapper.params), work.models, work.anywhere)}
        params |= MAPPERS_FIXED.get(mapper.op, {})
        if mapper.op == "image_diffusion_mapper":
            params["caption_key"] = "text"
        _built[key] = datajuicer.load_op(mapper.op, params)
    return _built[key]


def _seed(parts: list[Any]) -> None:
    """Settle all that a mapper may draw from."""
    import random

    import torch

    number = int(content_id(parts, 8), 16)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)
