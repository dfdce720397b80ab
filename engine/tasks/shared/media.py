"""The media caches of a study: every image or clip as one array, or in packs that are filled as trials draw them.

`cache_media` makes `NAME.npy` or `NAME.json` in a task's folder of caches; `packed.open_media` opens either.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.arrays import new_array, save_array
from engine.base.durable import is_whole, write_text, written_whole
from engine.base.ids import content_id
from engine.base.parallel import run_chunks
from engine.base.paths import folder_of
from engine.data.dataset import Dataset, as_list
from engine.data.media import Unreadable, locate
from engine.data.packs import RECORD
from engine.settings.running import CacheSection
from engine.tasks.contract import Form, Progress, Rows

VERSION = 2  # of what lies in packs
RAW_ROWS = 10_000  # media up to which all are decoded before anything trains; see docs/decisions/010
RAW_BYTES = 4e9  # of them, decoded
TINY = 16_384  # bytes of a medium, decoded, up to which a JPEG of it saves next to nothing
CHUNK = 2_000  # rows of a job that looks at headers
BOUND = "bound.json"
T = TypeVar("T")
BYTES, VALUE, ROW = b"b", b"v", b"r"  # how an entry of a list of sources begins; one without a medium is empty


class Medium(Protocol):
    """What a model sees of an image or a video, and how it is kept. Frozen, and can be pickled."""

    video: bool

    @property
    def shape(self) -> tuple[int, ...]: ...

    def look(self, source: bytes | Path) -> bool:
        """Look at the header; whether it will be short of something. Raises: OSError, ValueError."""
        ...

    def decode(self, source: bytes | Path, number: int) -> tuple[NDArray[np.uint8], bool]:
        """(pixels of row `number`, whether they are short of something). Raises: OSError, ValueError."""
        ...

    def pack(self, source: bytes | Path, number: int, form: Form) -> tuple[bytes, NDArray[np.uint8]]:
        """(the same as it is kept in a pack, the pixels that `unpack` gives). Raises: OSError, ValueError."""
        ...

    def unpack(self, content: bytes) -> NDArray[np.uint8]:
        """The pixels of what was kept."""
        ...


def form_of(section: CacheSection, count: int, size: int) -> Form:
    """How so many media of `size` decoded bytes are kept: docs/decisions/010. No machine has a say in it."""
    if section.form != "auto":
        return section.form
    total = count * size
    if count <= RAW_ROWS and total <= min(RAW_BYTES, (section.max_gb or np.inf) * 1e9):
        return "raw"
    return "exact" if size <= TINY or total <= RAW_BYTES else "jpeg"


def disk(form: Form, count: int, size: int, kept: float = 0) -> int:
    """Bytes that so many media take on disk. size: of one, decoded. kept: of one in a pack, as a sample says."""
    return count * size if form == "raw" else int(count * (kept + RECORD.size))


def set_bound(cache: Path, max_gb: float | None) -> None:
    """Write `cache.max_gb` for all who keep media in packs. cache: the study's folder of caches."""
    file, text = cache / "packs" / BOUND, json.dumps({"max_gb": max_gb}, allow_nan=False)
    if not is_whole(file, sums=True) or file.read_text(encoding="utf-8") != text:
        write_text(file, text)


def key_of(*sets: Rows | None) -> list[Any]:
    """What the key of a task's caches has besides where media lie in packs: those say where the data are."""
    return [[VERSION, rows.form, str(rows.data.path)] for rows in sets if rows is not None and rows.form != "raw"]


def files_of(name: str) -> list[str]:
    """The files of a cache of that name, of which some are there."""
    return [f"{name}.npy", *_files(name)]


def _files(name: str) -> list[str]:
    return [f"{name}.json", f"{name}-sources.bin", f"{name}-ends.npy"]


def place_of(rows: Rows, name: Any) -> Path | bytes:
    """The media file of that name, or the bytes that stand in its place. Raises: OSError, ValueError."""
    data = rows.data
    return locate(name, rows.root, folder_of(data.path))


def cache_media(
    rows: Rows, field: str | None, medium: Medium, target: Path, name: str, workers: int,
    progress: Progress | None, chunk: int,
) -> int:  # fmt: skip
    """Cache the first medium of every good row, zero for the others; how many are short.

    target, name: the folder and name of the cache. chunk: rows of a job that decodes. Raises: Unreadable.
    """
    if is_whole(target / f"{name}.npy") or is_whole(target / f"{name}.json"):
        return 0  # shared: it was reported once
    if rows.form == "raw":
        return _cache_all(rows, field or "", medium, target / f"{name}.npy", workers, progress, chunk)
    return _cache_sources(rows, field or "", medium, target, name, workers, progress)


def run_rows(
    rows: Rows, jobs: list[Any], work: Callable[[Any], tuple[int, int, Any, int, dict[int, str]]], workers: int,
    progress: Progress | None,
) -> Iterator[tuple[int, Any, int]]:  # fmt: skip
    """(first row, what was made, how many are short) of each job. Raises: Unreadable, at the end."""
    done, unreadable = 0, dict[int, str]()
    for start, stop, made, short, failed in run_chunks(work, jobs, workers):
        done += stop - start
        unreadable |= failed
        yield start, made, short
        if progress:
            progress(done, len(rows.data))
    if unreadable:
        raise Unreadable(rows.data, unreadable)


def in_order(parts: Iterable[tuple[int, list[T], int]]) -> Iterator[tuple[list[T], int]]:
    """What was made of jobs, in the order of their rows, as soon as it may be. parts: (first row, made, short)."""
    waiting: dict[int, tuple[list[T], int]] = {}
    at = 0
    for start, part, short in parts:
        waiting[start] = part, short
        while at in waiting:
            ready = waiting.pop(at)
            at += len(ready[0])
            yield ready


def why(error: Exception) -> str:
    """A reason in one line."""
    return " ".join(str(error).split())[:300]


# -- all in one array --------------------------------------------------------------------------


def _cache_all(
    rows: Rows, field: str, medium: Medium, file: Path, workers: int, progress: Progress | None, chunk: int
) -> int:
    with written_whole(file) as scratch:
        new_array(scratch, np.uint8, (len(rows.data), *medium.shape)).flush()
        jobs = [(replace(rows, good=rows.good[a:b]), field, medium, scratch, a, b) for a, b in rows.data.chunks(chunk)]
        return sum(short for _, _, short in run_rows(rows, jobs, _decode, workers, progress))


def _decode(job: tuple[Rows, str, Medium, Path, int, int]) -> tuple[int, int, None, int, dict[int, str]]:
    """Decode the good rows of one chunk straight into the cache file; runs in a worker process."""
    rows, field, medium, file, start, stop = job
    cache = np.lib.format.open_memmap(file, mode="r+")
    short, unreadable = 0, dict[int, str]()
    for number, row in enumerate(rows.data.reader.read(start, stop, [field]), start):
        if not rows.good[number - start]:
            continue
        try:
            cache[number], is_short = medium.decode(place_of(rows, as_list(row[field])[0]), number)
            short += is_short
        except (OSError, ValueError) as error:
            machine.refuse(error, f"{rows.data.path}, row {number}")
            unreadable[number] = why(error)
    cache.flush()
    return start, stop, None, short, unreadable


# -- where they come from, for packs -----------------------------------------------------------


def _cache_sources(
    rows: Rows, field: str, medium: Medium, target: Path, name: str, workers: int, progress: Progress | None
) -> int:
    """Look at every header, and write where each medium comes from."""
    jobs = [(replace(rows, good=rows.good[a:b]), field, medium, a, b) for a, b in rows.data.chunks(CHUNK)]
    short = 0

    def sources() -> Iterator[bytes]:
        nonlocal short
        for part, found in in_order(run_rows(rows, jobs, _look, workers, progress)):
            short += found
            yield from part

    data = rows.data
    key = [VERSION, data.fingerprint, data.key, field, type(medium).__name__, asdict(medium), rows.form]  # type: ignore[call-overload]
    key.append(content_id(np.flatnonzero(~rows.good).tolist()))
    write_sources(target, name, sources(), medium, rows.form, content_id(key), whence_of(data, rows.root, field))
    return short


def whence_of(data: Dataset, root: Path, field: str | None = None) -> dict[str, Any]:
    """How `packed.Store` opens the rows that have the sources. field: of item N it is row N; None: sources say both."""
    return {
        "path": str(data.path), "fields": data.fields.model_dump(mode="json"), "field": field, "root": str(root),
        "index": str(data.index) if data.index else None,
    }  # fmt: skip


def _look(job: tuple[Rows, str, Medium, int, int]) -> tuple[int, int, list[bytes], int, dict[int, str]]:
    """The sources of one chunk's good rows; runs in a worker process."""
    rows, field, medium, start, stop = job
    short, unreadable, sources = 0, dict[int, str](), []
    for number, row in enumerate(rows.data.reader.read(start, stop, [field]), start):
        entry = b""
        if rows.good[number - start]:
            try:
                value = as_list(row[field])[0]
                short += medium.look(place_of(rows, value))
                entry = entry_of(value)
            except (OSError, ValueError) as error:
                machine.refuse(error, f"{rows.data.path}, row {number}")
                unreadable[number] = why(error)
        sources.append(entry)
    return start, stop, sources, short, unreadable


def source_entry(source: bytes | Path) -> bytes:
    """A medium in a list of sources that belong to no rows."""
    return BYTES + source if isinstance(source, bytes) else VALUE + json.dumps(str(source), allow_nan=False).encode()


def entry_of(value: Any) -> bytes:
    """A field's value in a list of sources; bytes stay in their row: the first of the field, unless a place follows."""
    try:
        return VALUE + json.dumps(value, allow_nan=False).encode()
    except TypeError:
        return ROW


def from_study(path: str, study: Path) -> str:
    """The path as it is written of what lies in the study or beside it; others as they are."""
    below = Path(path).is_absolute() and Path(path).is_relative_to(study.parent)
    return os.path.relpath(path, study) if below else path


def write_sources(
    target: Path, name: str, sources: Iterable[bytes], medium: Any, form: Form, key: str,
    whence: dict[str, Any] | Callable[[], dict[str, Any] | None] | None = None,
) -> None:  # fmt: skip
    """Write a cache whose media are in packs. key: of the packs' folder. whence: the rows that have the sources, or
    what says so once all were written. Paths near the study are written from its folder, so that both may be moved.
    """
    ends, total, study = array("q"), 0, target.parents[2]
    with written_whole(target / _files(name)[1]) as scratch, scratch.open("wb") as file:
        for source in sources:
            if whence is None and source.startswith(VALUE):
                source = VALUE + json.dumps(from_study(json.loads(source[1:]), study), allow_nan=False).encode()
            file.write(source)
            total += len(source)
            ends.append(total)
    save_array(target / _files(name)[2], np.asarray(ends, np.int64))
    rows = whence() if callable(whence) else whence
    if rows is not None:
        rows |= {name: from_study(rows[name], study) for name in ("path", "root", "index") if rows[name]}
    content = {"medium": type(medium).__name__, "fields": asdict(medium), "form": form, "packs": key, "rows": rows}
    write_text(target / _files(name)[0], json.dumps(content, allow_nan=False))
