"""The shared media cache: every image or clip decoded and resized once per study, then memory-mapped by all trials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.base.arrays import new_array
from engine.base.durable import is_whole, written_whole
from engine.base.parallel import run_chunks
from engine.data.dataset import as_list
from engine.data.images import open_image
from engine.data.media import Unreadable, locate
from engine.tasks.contract import Progress, Rows

if TYPE_CHECKING:
    from PIL import Image

CHUNK = 500  # images of a job
LONG = 8  # an image longer than so many times its shorter side is cropped before it is resized
# rows, row number, name of the media file or its bytes → pixels, whether they are short of something
Decode = Callable[[Rows, int, Any], tuple[NDArray[np.uint8], bool]]


def fit_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """(size, size, 3): the shorter side resized (bicubic), the centre cropped, as CLIP does."""
    from PIL import Image

    most = LONG * min(image.size)
    if max(image.size) > most:  # else the resized image could be far larger than what is kept of it
        across, down = (max(0, side - most) // 2 for side in image.size)
        image = image.crop((across, down, image.width - across, image.height - down))
    scale = size / min(image.size)
    wide = [max(size, round(side * scale)) for side in image.size]
    resized = image.resize((wide[0], wide[1]), Image.Resampling.BICUBIC)
    left, top = (wide[0] - size) // 2, (wide[1] - size) // 2
    return np.asarray(resized.crop((left, top, left + size, top + size)), np.uint8)


def place_of(rows: Rows, name: Any) -> Path | bytes:
    """The media file of that name, or the bytes that stand in its place. Raises: OSError."""
    data = rows.data
    return locate(name, rows.root, data.path if data.path.is_dir() else data.path.parent)


def _decode_image(rows: Rows, _number: int, name: Any, size: int) -> tuple[NDArray[np.uint8], bool]:
    return fit_square(open_image(place_of(rows, name)), size), False


def _decode(job: tuple[Rows, str, Decode, Path, int, int]) -> tuple[int, int, int, dict[int, str]]:
    """Decode the good rows of one chunk straight into the cache file; runs in a worker process."""
    rows, field, decode, file, start, stop = job
    cache = np.lib.format.open_memmap(file, mode="r+")
    short, unreadable = 0, dict[int, str]()
    for number, row in enumerate(rows.data.reader.read(start, stop), start):
        if not rows.good[number - start]:
            continue
        try:
            cache[number], is_short = decode(rows, number, as_list(row[field])[0])
            short += is_short
        except (OSError, ValueError) as error:
            unreadable[number] = " ".join(str(error).split())[:300]
    cache.flush()
    return start, stop, short, unreadable


def cache_media(
    rows: Rows, field: str | None, decode: Decode, shape: tuple[int, ...], file: Path, workers: int,
    progress: Progress | None, chunk: int,
) -> int:  # fmt: skip
    """Write `file`: (rows, *shape) uint8, the first medium of every good row, zero for the others; how many are short.

    decode: can be pickled. chunk: rows of a job. Raises: Unreadable.
    """
    if is_whole(file):
        return 0  # shared: it was reported once
    count, done, short = len(rows.data), 0, 0
    unreadable: dict[int, str] = {}
    with written_whole(file) as scratch:
        new_array(scratch, np.uint8, (count, *shape)).flush()
        jobs = [
            (replace(rows, good=rows.good[a:b]), field or "", decode, scratch, a, b) for a, b in rows.data.chunks(chunk)
        ]
        for start, stop, found, failed in run_chunks(_decode, jobs, workers):
            done, short = done + stop - start, short + found
            unreadable |= failed
            if progress:
                progress(done, count)
        if unreadable:
            raise Unreadable(rows.data, unreadable)
    return short


def cache_images(rows: Rows, size: int, file: Path, workers: int, progress: Progress | None = None) -> None:
    """Write `file`: (rows, size, size, 3) uint8, the first image of every good row, zero for the others."""
    decode = partial(_decode_image, size=size)
    cache_media(rows, rows.data.fields.images, decode, (size, size, 3), file, workers, progress, CHUNK)
