"""Pictures of rows, so small that a terminal can draw them; decoded in the feed's process, never in the UI's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIDE = 16  # pixels: as many columns, half as many lines
PIXELS = 50_000_000  # of an image, beyond which it is not decoded
BYTES = 50_000_000
Picture = list[list[tuple[int, int, int]]]


def picture(value: Any, root: Path, folder: Path) -> Picture | str | None:
    """A row's first image as RGB rows of at most SIDE × SIDE; why it cannot be shown; None for a row without images.

    root, folder: where media paths start from, as in engine/data/media.py.
    """
    from engine.data.dataset import as_list  # it brings NumPy, which the UI's process does without
    from engine.data.media import locate

    found = as_list(value)
    if not found:
        return None
    try:
        return _decoded(locate(found[0], root, folder))
    except (OSError, ValueError) as error:
        return f"unreadable image: {' '.join(str(error).removeprefix('unreadable image: ').split())[:80]}"


def _decoded(source: bytes | Path) -> Picture:
    from engine.data.images import open_image

    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > BYTES:
        raise ValueError(f"{size} bytes are too many to show")
    small = open_image(source, 4 * SIDE, PIXELS)
    small.thumbnail((SIDE, SIDE))
    if small.height % 2:  # two rows make a line
        small = small.resize((small.width, small.height + 1))
    width, data = small.width, small.tobytes()
    flat = [(data[i], data[i + 1], data[i + 2]) for i in range(0, len(data), 3)]
    return [flat[i : i + width] for i in range(0, len(flat), width)]
