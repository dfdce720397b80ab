"""What a model sees of an image, and how it is kept in a cache."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.data.images import check_whole, open_image
from engine.tasks.contract import Form, Progress, Rows
from engine.tasks.shared.media import cache_media

if TYPE_CHECKING:
    from PIL import Image

CHUNK = 500  # images of a job
LONG = 8  # an image longer than so many times its shorter side is cropped before it is resized
SMALL = 0.25  # of the decoded bytes: an image of the right size whose file is no larger is kept as it is
QUALITY = 95
ORIGINAL, PIXELS, JPEG = b"O", b"P", b"J"  # how an item begins


@dataclass(frozen=True)
class Squares:
    """Images as (side, side, 3)."""

    side: int
    video = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one."""
        return self.side, self.side, 3

    def look(self, source: bytes | Path) -> bool:
        """Look at header and end. False: no image is short of anything. Raises: OSError, ValueError."""
        check_whole(source)
        return False

    def decode(self, source: bytes | Path, _number: int) -> tuple[NDArray[np.uint8], bool]:
        """(pixels, whether they are short of something: never). Raises: OSError, ValueError."""
        return fit_square(open_image(source), self.side), False

    def pack(self, source: bytes | Path, _number: int, form: Form) -> bytes:
        """An image as it is kept. Raises: OSError, ValueError."""
        from PIL import Image

        content = source if isinstance(source, bytes) else source.read_bytes()
        image = open_image(content)
        raw = self.side * self.side * 3
        if form == "exact":
            if len(content) < raw:
                return ORIGINAL + content
            return PIXELS + fit_square(image, self.side).tobytes()
        if image.size == (self.side, self.side) and len(content) <= SMALL * raw:
            return ORIGINAL + content
        out = io.BytesIO(JPEG)
        out.seek(1)
        Image.fromarray(fit_square(image, self.side)).save(out, "JPEG", quality=QUALITY, subsampling=0)
        return out.getvalue()

    def unpack(self, content: bytes) -> NDArray[np.uint8]:
        """The pixels of an image that was kept."""
        kind, content = content[:1], content[1:]
        if kind == PIXELS:
            return np.frombuffer(content, np.uint8).reshape(self.shape)
        if kind == ORIGINAL:
            return fit_square(open_image(content), self.side)
        from PIL import Image

        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:  # djsb's own, whose sum is right
            return np.asarray(image, np.uint8)


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


def cache_images(
    rows: Rows, size: int, target: Path, name: str, workers: int, progress: Progress | None = None
) -> None:
    """Cache the first image of every good row as (rows, size, size, 3), zero for the others. See `cache_media`."""
    cache_media(rows, rows.data.fields.images, Squares(size), target, name, workers, progress, CHUNK)
