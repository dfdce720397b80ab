"""The shared image cache: every image decoded and resized once per study, then memory-mapped by all trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.base.arrays import new_array
from engine.base.parallel import run_chunks
from engine.data.dataset import Dataset, as_list
from engine.data.media import locate, open_image

if TYPE_CHECKING:
    from PIL import Image

CHUNK = 500


def fit_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """(size, size, 3): the shorter side resized (bicubic), the centre cropped, as CLIP does."""
    from PIL import Image

    scale = size / min(image.size)
    wide = [max(size, round(side * scale)) for side in image.size]
    resized = image.resize((wide[0], wide[1]), Image.Resampling.BICUBIC)
    left, top = (wide[0] - size) // 2, (wide[1] - size) // 2
    return np.asarray(resized.crop((left, top, left + size, top + size)), np.uint8)


def _decode(job: tuple[Dataset, Path, Path, int, int, int, NDArray[np.int64]]) -> tuple[int, int]:
    """Decode the good rows of one chunk straight into the cache file; runs in a worker process."""
    data, root, file, size, start, stop, bad = job
    folder = data.path if data.path.is_dir() else data.path.parent
    cache = np.lib.format.open_memmap(file, mode="r+")
    skip = set(bad.tolist())
    field = data.fields.images or ""
    for offset, row in enumerate(data.reader.read(start, stop)):
        if offset not in skip:
            source = locate(as_list(row[field])[0], root, folder)
            cache[start + offset] = fit_square(open_image(source), size)
    cache.flush()
    return start, stop


def cache_images(
    data: Dataset,
    root: Path,
    good: NDArray[np.bool_],
    size: int,
    file: Path,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `file`: (rows, size, size, 3) uint8, the first image of every good row, zero for the others."""
    if file.exists():
        return
    scratch = file.with_suffix(".tmp")
    cache = new_array(scratch, np.uint8, (len(data), size, size, 3))
    cache.flush()
    jobs = [(data, root, scratch, size, a, b, np.flatnonzero(~good[a:b])) for a, b in data.chunks(CHUNK)]
    done = 0
    for start, stop in run_chunks(_decode, jobs, workers):
        done += stop - start
        if progress:
            progress(done, len(data))
    scratch.replace(file)
