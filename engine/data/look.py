"""A first look at a data set: what the headers of a sample of its images and videos say, in a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.paths import folder_of
from engine.data.dataset import Dataset, as_list
from engine.data.images import check_image
from engine.data.media import locate
from engine.data.videos import open_video

PLACES = 16  # of a data set that a sample is read at, so that few blocks of it are


def places(good: NDArray[np.bool_], count: int) -> list[tuple[int, int]]:
    """Ranges of rows, spread over the data, that hold about so many rows; all of them where there are no more."""
    rows = len(good)
    each = -(-min(count, rows) // PLACES)
    if rows <= count:
        return [(at, min(at + each, rows)) for at in range(0, rows, each)]
    starts = np.linspace(0, rows - each, PLACES).astype(np.int64)
    return [(int(at), int(at) + each) for at in starts]


def sampled(data: Dataset, good: NDArray[np.bool_], count: int) -> list[tuple[int, dict[str, object]]]:
    """(number, row) of about so many good rows."""
    return [
        (number, row)
        for start, stop in places(good, count)
        for number, row in enumerate(data.reader.read(start, stop), start)
        if good[number]
    ]


def told(data: Dataset, good: NDArray[np.bool_], root: Path, count: int) -> list[str]:
    """Formats, sizes and durations of the media of about so many rows. root: of relative paths."""
    rows = sampled(data, good, count)
    folder = folder_of(data.path)
    lines = []
    for field, what, look in ((data.fields.images, "images", _image), (data.fields.videos, "videos", _video)):
        if field is None:
            continue
        seen = []
        for _, row in rows:
            for value in as_list(row.get(field)):
                try:
                    source = locate(value, root, folder)
                    seen.append((*look(source), len(source) if isinstance(source, bytes) else source.stat().st_size))
                except (OSError, ValueError) as error:  # gone or changed since the scan, which is told elsewhere
                    machine.refuse(error, str(data.path))
        if seen:
            lines.append(_line(what, seen))
    return lines


def _image(source: bytes | Path) -> tuple[str, float, float]:
    """(format, pixels of the shorter side, pixels of the longer)."""
    look = check_image(source)
    return look.kind, min(look.width, look.height), max(look.width, look.height)


def _video(source: bytes | Path) -> tuple[str, float, float]:
    """(container, pixels of the shorter side, seconds)."""
    with open_video(source) as container:
        stream = container.streams.video[0]
        seconds = (container.duration or 0) / 1e6
        return container.format.name, min(stream.codec_context.width, stream.codec_context.height), seconds


def _line(what: str, seen: Sequence[tuple[str, float, float, int]]) -> str:
    """One kind of media. seen: (format, shorter side, longer side or seconds, bytes) of each."""
    kinds = ", ".join(f"{kind} {n / len(seen):.0%}" for kind, n in Counter(s[0] for s in seen).most_common(5))
    short, long, size = (_spread([float(s[i]) for s in seen]) for i in (1, 2, 3))
    second = f"{long} pixels the longer" if what == "images" else f"{long} seconds"
    return (
        f"{what} of {len(seen)} looked at: {kinds}; smallest / median / largest: {short} pixels the shorter side, "
        f"{second}, {size} bytes"
    )


def _spread(values: Sequence[float]) -> str:
    return " / ".join(
        f"{v:.0f}" if v >= 10 else f"{v:.2g}" for v in (min(values), float(np.median(values)), max(values))
    )
