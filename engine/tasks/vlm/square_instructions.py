"""What instructions become for a model of one square image a row: token ids and images on disk, entry by entry."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.arrays import new_array, save_array
from engine.base.durable import written_whole
from engine.base.ids import content_id
from engine.base.paths import folder_of
from engine.settings.running import CacheSection
from engine.tasks.shared.images import Squares
from engine.tasks.shared.media import form_of, set_bound, source_entry, whence_of, write_sources
from engine.tasks.vlm.inner import Inner
from engine.tasks.vlm.questions import Questions
from engine.tasks.vlm.text import NONE, Encoder

NAME = "instructions"
BLOCK = 4096  # rows that are written at once


@dataclass
class _Rows:
    """Questions of the entries that are not too long. sizes, starts: tokens of each, and where its answer begins.

    entries: their numbers; each: questions of each. long: entries that are too long, first: place and reason of one.
    """

    sizes: array[int] = field(default_factory=lambda: array("i"))
    starts: array[int] = field(default_factory=lambda: array("q"))
    entries: array[int] = field(default_factory=lambda: array("q"))
    each: array[int] = field(default_factory=lambda: array("q"))
    long: int = 0
    first: str = ""


def cache_instructions(
    told: Questions, encoder: Encoder, length: int, side: int, target: Path, max_bad: float, cache: CacheSection
) -> None:
    """Write rows of `length` tokens, where their answers begin, and their images; `told` counts what is left out.

    cache: how images are kept. Raises: DataError when too many of the entries are bad.
    """
    with TemporaryFile(dir=target) as ids:
        rows = _tokens(told, encoder, length, ids)
        told.leave_out("question too long", rows.long, len(rows.sizes), rows.first, max_bad)
        entries, each = (np.array(some, np.int64) for some in (rows.entries, rows.each))
        firsts, shown = told.pictures(entries)
        broken = _cache_images(told, firsts, side, target, cache)
        bad = np.isin(shown, list(broken))
        kept = np.repeat(~bad, each)
        if bad.any():
            at = int(bad.argmax())
            why = f"{told.entry(int(entries[at])).place}: the image cannot be read ({broken[int(shown[at])]})"
            told.leave_out("unreadable image", int(bad.sum()), int(kept.sum()), why, max_bad)
        _write_rows(ids, rows, kept, length, target / f"{NAME}-tokens.npy")
    save_array(target / f"{NAME}-starts.npy", np.array(rows.starts, np.int64)[kept])
    save_array(target / f"{NAME}-places.npy", np.repeat(shown, each)[kept])


def _tokens(told: Questions, encoder: Encoder, length: int, ids: BinaryIO) -> _Rows:
    """Write the tokens of all rows into a file, one after the other. An entry goes as a whole, or not at all."""
    rows = _Rows()
    for number, entry in enumerate(told.entries()):
        asked = [encoder.question(question) for question, _ in entry.pairs]
        if (size := max(map(len, asked))) > length - 2:
            rows.first = rows.first or (f"{entry.place}: a question of {size} tokens; {length - 2} fit, shorten it")
            rows.long += 1
            continue
        for question, (_, reply) in zip(asked, entry.pairs, strict=True):
            made = [*question, *encoder.answer(reply)[: length - len(question) - 1], encoder.end]
            ids.write(np.array(made, np.int32).tobytes())
            rows.sizes.append(len(made))
            rows.starts.append(len(question))
        rows.entries.append(number)
        rows.each.append(len(entry.pairs))
    return rows


def _cache_images(
    told: Questions, firsts: NDArray[np.int64], side: int, target: Path, cache: CacheSection
) -> dict[int, str]:
    """Write the images that these entries show, each another one; why some cannot be read, by number."""
    medium, name = Squares(side), f"{NAME}-images"
    # with the pixels as they are: what is trained on after every pool is the same for all studies
    raw = form_of(cache, len(firsts), prod(medium.shape)) == "raw"
    broken: dict[int, str] = {}
    pixels = new_array(target / f"{name}.npy", np.uint8, (len(firsts), *medium.shape)) if raw else None
    for at, number in enumerate(firsts.tolist()):
        entry = told.entry(number)
        image = entry.image
        try:
            source = image.read() if isinstance(image, Inner) else image
            if pixels is not None:
                pixels[at], _ = medium.decode(source, at)
            else:
                medium.look(source)
        except (OSError, ValueError) as error:
            machine.refuse(error, entry.place)
            broken[at] = str(error)
    if pixels is not None:
        pixels.flush()
        return broken
    set_bound(target.parent, cache.max_gb)
    images = (told.entry(number).image for number in firsts.tolist())
    sources = (image.entry if isinstance(image, Inner) else source_entry(image) for image in images)
    data = told.data
    key = content_id([told.accounting.to_json(), len(firsts), side, told.shown, data.fingerprint if data else None])
    write_sources(target, name, sources, medium, "exact", key, whence_of(data, folder_of(data.path)) if data else None)
    return broken


def _write_rows(ids: BinaryIO, rows: _Rows, kept: NDArray[np.bool_], length: int, file: Path) -> None:
    """Write (rows, length) tokens of those that are kept, NONE behind their ends."""
    ids.seek(0)
    head = {"descr": "<i4", "fortran_order": False, "shape": (int(kept.sum()), length)}
    with written_whole(file) as scratch, scratch.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, head)
        for at in range(0, len(kept), BLOCK):
            some, sizes = kept[at : at + BLOCK], np.array(rows.sizes[at : at + BLOCK])
            block = np.full((len(sizes), length), NONE, np.int32)
            tokens = np.frombuffer(ids.read(4 * int(sizes.sum())), np.int32)
            block[np.arange(length) < sizes[:, None]] = tokens
            out.write(block[some].tobytes())
