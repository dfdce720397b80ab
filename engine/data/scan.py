"""The scan of a dataset: every row's key, and the quarantine of the bad ones with row and reason.

Its result is cached in the study under the dataset's fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.arrays import save_arrays
from engine.base.durable import discard, is_whole
from engine.base.errors import DataError
from engine.base.parallel import run_chunks, warm_up
from engine.base.paths import folder_of
from engine.data.dataset import Dataset, as_list
from engine.data.field_kinds import Kinds, keep
from engine.data.images import check_whole
from engine.data.media import locate
from engine.data.readers.contract import BROKEN
from engine.data.readers.sources import SOURCE
from engine.data.tars import explained, is_unpacked, media_root, unpack
from engine.data.videos import check_video
from engine.journal import caches
from engine.journal.caches import BadRow
from engine.journal.store import Store

CHUNK = 5_000
IN_PROCESS = 200_000  # rows of text that are scanned without workers
ChunkScan = tuple[int, NDArray[np.uint64], list[tuple[int, str, str]], Kinds]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scan:
    """keys: (rows,) uint64 hash of each row's id. good: (rows,) rows that are not quarantined.

    duplicates: rows that are not good only because they are like an earlier one (`dedup` of the study). overlapping:
    those that are not because they are like an evaluation row (`evaluation.overlap`).
    """

    keys: NDArray[np.uint64]
    good: NDArray[np.bool_]
    duplicates: int = 0
    overlapping: int = 0

    @property
    def bad(self) -> int:
        """Quarantined rows."""
        return int((~self.good).sum()) - self.duplicates - self.overlapping


def row_key(row: dict[str, Any], id_field: str | None) -> str:
    """What identifies a row: its id, or its content where there is no id."""
    if id_field is not None and row.get(id_field) is not None:
        source = f"{row[SOURCE]}/" if SOURCE in row else ""  # sources may use the same ids
        return f"id:{source}{row[id_field]!r}"
    return "row:" + json.dumps(row, sort_keys=True, default=repr)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def inspect(row: dict[str, Any], data: Dataset, root: Path, folder: Path) -> str | None:
    """Why a row is bad, or None."""
    fields = data.fields
    if BROKEN in row:
        return str(row[BROKEN])
    if fields.text is not None:
        text = row.get(fields.text)
        if text is None or (isinstance(text, float) and math.isnan(text)):
            return f"no {fields.text}"
        if not isinstance(text, str):
            return f"wrong type: {fields.text} is {type(text).__name__}, not a string"
        if not text.strip():
            return f"empty {fields.text}"
    if fields.id is not None and row.get(fields.id) is None:
        return f"no {fields.id}"
    for name in (fields.images, fields.videos):
        if name is None:
            continue
        media = as_list(row.get(name))
        if not media:
            return f"no {name}"
        for value in media:
            try:
                source = locate(value, root, folder)
                if name == fields.videos:
                    check_video(source, decode=True)
                else:
                    check_whole(source)
            except (OSError, ValueError) as error:
                machine.refuse(error, f"{data.path}, {name}")
                what = " ".join(str(error).split())
                return what if isinstance(error, ValueError) else f"unreadable file: {what}"
    return None


def _scan_chunk(
    job: tuple[Dataset, Path, int, int],
) -> ChunkScan:
    """One chunk's keys, bad rows (row, id, reason) and kinds of fields; runs in a worker process."""
    data, root, start, stop = job
    folder = folder_of(data.path)
    keys = np.zeros(stop - start, np.uint64)
    bad: list[tuple[int, str, str]] = []
    kinds = Kinds()
    kinds.count(rows := data.reader.read(start, stop))
    for number, row in enumerate(rows, start):
        keys[number - start] = _hash(row_key(row, data.fields.id))
        reason = inspect(row, data, root, folder)
        if reason is not None:
            identity = row.get(data.fields.id) if data.fields.id else None
            bad.append((number, "" if identity is None else str(identity)[:100], reason[:300]))
    return start, keys, bad, kinds


def scan(data: Dataset, store: Store, state: Path, workers: int, progress: Progress | None = None) -> Scan:
    """Scan a dataset, or read the cached scan.

    state: the study's state folder. Raises: DataError above `max_bad`, when there are no rows, or when
    a named field is in no row.
    """
    _fields_exist(data)
    name = quarantine_id(data)
    file = state / "cache" / f"scan-{name}.npz"
    if not is_whole(file, sums=True):
        _write_scan(data, store, name, file, state, workers, progress)
    with np.load(file) as saved:
        found = Scan(saved["keys"], saved["good"])
        unpacked = "unpacked" in saved and bool(saved["unpacked"])
    if unpacked and not is_unpacked(data.path, state):
        unpack(data, state)
    try:
        _refuse_if_bad(data, store, name, found)
    except DataError:
        discard(file)  # missing images may be there the next time, though the data file is the same
        raise
    return found


def leave_out(data: Dataset, store: Store, state: Path, rows: dict[int, str]) -> None:
    """Quarantine rows of a dataset that was scanned before, whose media cannot be read any more. rows: number → why."""
    name = quarantine_id(data)
    file = state / "cache" / f"scan-{name}.npz"
    with np.load(file) as saved:
        arrays = dict(saved)
    arrays["good"][list(rows)] = False
    numbers = sorted(rows)
    found = data.take(np.asarray(numbers, np.int64))
    identities = [str(row.get(data.fields.id)) if data.fields.id else "" for row in found]
    bad = [BadRow(n, identity[:100], rows[n]) for n, identity in zip(numbers, identities, strict=True)]
    caches.quarantine(store, name, [*caches.bad_rows(store, name, len(data)), *bad])
    save_arrays(file, **arrays)
    store.event("data", f"{data.path}: {len(rows)} rows can no longer be read, and are left out", name, "warning")


def kinds_file(data: Dataset, state: Path) -> Path:
    """Where it is kept what the fields hold."""
    return state / "cache" / f"fields-{quarantine_id(data)}.json"


def disk(rows: int) -> int:
    """Bytes that the scan of so many rows takes on disk: a key and a mark each."""
    return 9 * rows


def quarantine_id(data: Dataset) -> str:
    """The name under which the dataset's bad rows are stored."""
    fields = data.fields.model_dump_json(exclude=data.fields.unkeyed)
    return hashlib.blake2b(f"{data.fingerprint}{fields}".encode(), digest_size=8).hexdigest()


def _fields_exist(data: Dataset) -> None:
    if not len(data):
        raise DataError(f"{data.path} has no rows; give a file with rows")
    head = data.reader.read(0, min(len(data), 100))
    present = {key for row in head for key in row}
    for field in ("text", "images", "videos", "id"):
        name = getattr(data.fields, field)
        if name is not None and name not in present:
            there = ", ".join(sorted(present - {BROKEN})) or "none"
            raise DataError(f"{data.path} has no field {name!r}; set dataset.{field} to one of: {there}")


def _write_scan(
    data: Dataset, store: Store, name: str, file: Path, state: Path, workers: int, progress: Progress | None
) -> None:
    refused = unpack(data, state)
    root = media_root(data.path, state)
    keys = np.zeros(len(data), np.uint64)
    good = np.ones(len(data), bool)
    bad: list[tuple[int, str, str]] = []
    jobs = [(data, root, start, stop) for start, stop in data.chunks(CHUNK)]
    done = 0
    text_only = not data.fields.images and not data.fields.videos
    if text_only and len(data) <= IN_PROCESS:
        warm_up()  # looking at text takes less time than the workers' start, which statistics need anyway
        chunks: Iterable[ChunkScan] = map(_scan_chunk, jobs)
    else:
        chunks = run_chunks(_scan_chunk, jobs, workers)
    kinds = Kinds()
    for start, part, found, held in chunks:
        kinds.add(held)
        keys[start : start + len(part)] = part
        bad += [(row, name, explained(reason, refused)[:300]) for row, name, reason in found]
        done += len(part)
        if progress:
            progress(done, len(data))
    good[[row for row, _, _ in bad]] = False
    bad += _duplicates(data, keys, good)
    good[[row for row, _, _ in bad]] = False
    caches.quarantine(store, name, (BadRow(*row) for row in sorted(bad)))
    keep(kinds, kinds_file(data, state))
    save_arrays(file, keys=keys, good=good, unpacked=np.array(is_unpacked(data.path, state)))


def _duplicates(data: Dataset, keys: NDArray[np.uint64], good: NDArray[np.bool_]) -> list[tuple[int, str, str]]:
    """Rows that repeat an earlier row's id. Without an id field, a repeat gets a key of its own instead."""
    ordered = keys[good]
    ordered.sort()
    if not (ordered[1:] == ordered[:-1]).any():  # most often, and it takes little memory to see it
        return []
    rows = np.flatnonzero(good)
    order = rows[np.argsort(keys[rows], kind="stable")]
    same = np.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
    again = np.sort(order[same])
    if data.fields.id is not None:
        names = [str(row.get(data.fields.id))[:100] for row in data.take(again)]
        return [(row, name, f"duplicated id {name}") for row, name in zip(again.tolist(), names, strict=True)]
    repeats: Counter[int] = Counter()
    for row in again.tolist():
        key = int(keys[row])
        repeats[key] += 1
        keys[row] = _hash(f"{key}:{repeats[key]}")
    return []


def _refuse_if_bad(data: Dataset, store: Store, name: str, found: Scan) -> None:
    share = found.bad / len(found.good)
    if share <= data.fields.max_bad and found.bad < len(found.good):
        return
    reasons = "; ".join(f"{w.n} × {w.reason} (row {w.row})" for w in caches.worst_reasons(store, name))
    raise DataError(
        f"{found.bad} of {len(found.good)} rows of {data.path} are bad ({share:.0%}, dataset.max_bad is "
        f"{data.fields.max_bad:.0%}): {reasons}; mend the data, or raise dataset.max_bad"
    )
