"""Duplicates, found by Data-Juicer's deduplicators before pools are cut, each with the earlier row it resembles.

Hashes are made chunk by chunk in worker processes; the deduplicator then says which rows stay. What it said is cached
under the dataset, the section and Data-Juicer's version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.arrays import save_array
from engine.base.durable import is_whole
from engine.base.errors import DataError
from engine.base.ids import content_id
from engine.base.parallel import run_chunks
from engine.base.paths import folder_of
from engine.data import datajuicer
from engine.data.dataset import Dataset, as_list, utf8
from engine.data.media import check_media, files_of, locate
from engine.data.tars import media_root
from engine.journal import caches
from engine.journal.caches import Duplicate
from engine.journal.store import Store
from engine.settings.data import DedupSection

CHUNK = 2_000
Progress = Callable[[int, int], None]
Hash = str | tuple[bytes, ...]
_built: dict[str, Any] = {}


@dataclass(frozen=True)
class Deduplicator:
    """One of Data-Juicer's. field: the column of hashes that it fills and reads.

    short: texts that are too short for a shingle must be equal to be alike; Data-Juicer takes all of them for alike.
    """

    name: str
    params: tuple[tuple[str, Any], ...]
    field: str
    short: bool = True

    def op(self) -> Any:
        """The object, built once a process."""
        key = repr(self)
        if key not in _built:
            if self.name == "image_deduplicator":
                from engine.data.imagehash import stand_in

                stand_in()
            _built[key] = datajuicer.load_op(self.name, dict(self.params))
        return _built[key]


HASH, MINHASH, IMAGEHASH = "__dj__hash", "__dj__minhash", "__dj__imagehash"
FIELDS = {"document_deduplicator": HASH, "document_minhash_deduplicator": MINHASH, "image_deduplicator": IMAGEHASH}
EXACT = Deduplicator("document_deduplicator", (("lowercase", True),), HASH)


def planned(section: DedupSection, data: Dataset) -> list[Deduplicator]:
    """The deduplicators that the section asks for, in order.

    Raises: DataError when the data lack what is to be compared.
    """
    found = []
    for asked, kind in ((section.text, "text"), (section.images, "image")):
        if asked and kind not in data.modalities:
            raise DataError(f"dedup: the data have no {kind}; name its field under dataset, or remove dedup.{kind}")
    if section.text == "exact":
        found.append(EXACT)
    elif section.text == "minhash":
        params = (("jaccard_threshold", section.similarity), ("tokenization", section.tokens),
                  ("window_size", section.window))  # fmt: skip
        found.append(Deduplicator("document_minhash_deduplicator", params, MINHASH))
    if section.images:
        found.append(Deduplicator("image_deduplicator", (("method", section.images),), IMAGEHASH))
    return found


def is_heavy(section: DedupSection) -> bool:
    """True where the search for duplicates takes far longer than reading the rows."""
    return section.text == "minhash" or section.images is not None


def result_file(section: DedupSection, data: Dataset, good: NDArray[np.bool_], state: Path) -> Path:
    """Where the rows that stay are marked once they were searched."""
    return state / "cache" / f"dedup-{removal_id(section, data, good)}.npy"


def removal_id(section: DedupSection, data: Dataset, good: NDArray[np.bool_]) -> str:
    """The name under which removed rows are stored."""
    mask = hashlib.blake2b(np.packbits(good).tobytes(), digest_size=8).hexdigest()
    return content_id([data.fingerprint, data.key, section.model_dump(), mask, datajuicer.version()])


def without_duplicates(
    section: DedupSection,
    data: Dataset,
    good: NDArray[np.bool_],
    store: Store,
    state: Path,
    workers: int,
    progress: Progress | None = None,
) -> NDArray[np.bool_]:
    """(rows,) the good rows less those that are like an earlier one; the rows themselves are not changed.

    Raises: DataError, OpError.
    """
    deduplicators = planned(section, data)
    if not deduplicators:
        return good
    name = removal_id(section, data, good)
    file = result_file(section, data, good, state)
    if not is_whole(file, sums=True):
        removed = _find(deduplicators, data, good, state, workers, progress)
        caches.replace_duplicates(store, name, (Duplicate(*row) for row in removed))
        kept = good.copy()
        kept[[row for row, _, _ in removed]] = False
        save_array(file, kept)
    return np.asarray(np.load(file))


def without_alike(
    entries: Sequence[tuple[str, Mapping[str, Any]]],
    data: Dataset,
    good: NDArray[np.bool_],
    state: Path,
    workers: int,
    progress: Progress | None = None,
) -> NDArray[np.bool_]:
    """(rows,) the good rows that stay after a recipe's deduplicators, as in a run of Data-Juicer.

    state: folder of what was unpacked of tars beside the data.
    """
    found = [Deduplicator(name, tuple(sorted(params.items())), FIELDS[name], short=False) for name, params in entries]
    kept = good.copy()
    kept[[row for row, _, _ in _find(found, data, good, state, workers, progress)]] = False
    return kept


def _find(
    deduplicators: list[Deduplicator],
    data: Dataset,
    good: NDArray[np.bool_],
    state: Path,
    workers: int,
    progress: Progress | None,
) -> list[tuple[int, int, str]]:
    """(row, the earlier row that it is like, deduplicator), in order; what one removes the next does not see."""
    root = media_root(data.path, state) if data.fields.images else folder_of(data.path)
    left = good.copy()
    removed: list[tuple[int, int, str]] = []
    total, done = len(data) * len(deduplicators), 0
    for deduplicator in deduplicators:
        jobs = [(deduplicator, data, root, chunk, left[slice(*chunk)]) for chunk in data.chunks(CHUNK)]
        hashes: dict[int, Hash] = {}
        short: dict[int, Hash] = {}
        for chunk, made, exact in run_chunks(_hash_chunk, jobs, workers):
            hashes |= made
            short |= exact
            done += chunk[1] - chunk[0]
            if progress:
                progress(done, total)
        parts = [(d, dict(sorted(h.items()))) for d, h in ((deduplicator, hashes), (EXACT, short)) if h]
        found = [pair for pairs in run_chunks(_cluster, parts, workers) for pair in pairs]
        left[[row for row, _ in found]] = False
        removed += [(row, of, deduplicator.name) for row, of in found]
    return sorted(removed)


_Job = tuple[Deduplicator, Dataset, Path, tuple[int, int], NDArray[np.bool_]]


def _hash_chunk(job: _Job) -> tuple[tuple[int, int], dict[int, Hash], dict[int, Hash]]:
    """(chunk, row → hash, row → hash of its whole text where it is too short for a shingle); in a worker process."""
    deduplicator, data, root, chunk, wanted = job
    hashes: dict[int, Hash] = {}
    short: dict[int, Hash] = {}
    op, exact = deduplicator.op(), EXACT.op()
    empty = _hash(op, deduplicator, {"text": ""}) if deduplicator.field == MINHASH and deduplicator.short else None
    rows = data.reader.read(*chunk)
    for number in np.flatnonzero(wanted).tolist():
        row, at = rows[number], chunk[0] + number
        if deduplicator.field == IMAGEHASH:
            found = _image_hash(op, deduplicator, row, data, root)
        else:
            found = _hash(op, deduplicator, {"text": utf8(row[data.fields.text or ""])})
        if empty is not None and found == empty:
            short[at] = _hash(exact, EXACT, {"text": utf8(row[data.fields.text or ""])})
        elif found:
            hashes[at] = found
    return chunk, hashes, short


def _hash(op: Any, deduplicator: Deduplicator, sample: dict[str, Any]) -> Hash:
    """A row's hash by the OP; of MinHash's bands, long byte strings of which only equality counts, eight bytes each."""
    found = op.compute_hash(sample)[deduplicator.field]
    if isinstance(found, str):
        return found
    return tuple(hashlib.blake2b(band, digest_size=8).digest() for band in found)


def _image_hash(op: Any, deduplicator: Deduplicator, row: dict[str, Any], data: Dataset, root: Path) -> Hash:
    """Of all its images; empty, which is like no other, where one is not there, or not readable, any more."""
    folder = folder_of(data.path)
    try:
        sources = [locate(value, root, folder) for value in as_list(row.get(data.fields.images or ""))]
        for source in sources:
            check_media(source)
        with files_of([sources]) as (paths,):
            # a sample of lists only would be taken for a batch
            return _hash(op, deduplicator, {"images": paths, "text": ""})
    except (OSError, ValueError) as error:
        machine.refuse(error, str(data.path))
        return ""


def _cluster(job: tuple[Deduplicator, dict[int, Hash]]) -> list[tuple[int, int]]:
    """(row that goes, row that it is like) by the OP's own rule; in a worker process, as the OP prints."""
    import datasets

    deduplicator, hashes = job
    datasets.disable_caching()
    datasets.disable_progress_bars()
    columns = {"row": list(hashes), deduplicator.field: list(hashes.values())}
    near = deduplicator.field == MINHASH
    table = datasets.Dataset.from_dict(columns)
    kept, pairs = deduplicator.op().process(table, show_num=len(table) if near else 0)
    stays = set(kept["row"])
    found: Iterable[tuple[int, int]]
    if near:
        found = ((sample["row"], first["row"]) for first, *others in pairs.values() for sample in others)
    else:
        found = _equal(hashes)
    return [(row, of) for row, of in found if row not in stays]


def _equal(hashes: dict[int, Hash]) -> Iterable[tuple[int, int]]:
    """(row, the first row of the same hash)."""
    first: dict[Hash, int] = {}
    for row, value in hashes.items():
        if first.setdefault(value, row) != row:
            yield row, first[value]
