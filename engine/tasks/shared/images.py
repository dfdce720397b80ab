"""What a model sees of an image, and how it is kept in a cache."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from engine.data.images import check_whole, open_image
from engine.tasks.contract import Form, Progress, Rows
from engine.tasks.shared.media import cache_media

if TYPE_CHECKING:
    from PIL import Image

Resize = Callable[["Image.Image", int, int], NDArray[np.uint8]]  # to (width, height)
CHUNK = 500  # images of a job
LONG = 8  # an image longer than so many times its shorter side is cropped before it is resized
SMALL = 0.25  # of the decoded bytes: an image of no more pixels whose file is no larger is kept as it is
QUALITY = 95
COLOURS = 2  # JPEG's 4:2:0, at half the resolution of the brightness, as nearly all JPEGs have it
FINE = 1.5  # a JPEG is decoded to no more than so many times the model's side, where its decoder can choose
BICUBIC, BILINEAR = 3, 2  # Pillow's numbers of filters
Way = Literal["crop", "squash", "pad"]
ORIGINAL, PIXELS, JPEG, NEAR = b"O", b"P", b"J", b"N"  # how an item begins; NEAR: an original that is read as `near`


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
        return self.fit(open_image(source)), False

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        """The pixels of an image."""
        return fit_square(image, self.side)

    def near(self, image: Image.Image) -> NDArray[np.uint8]:
        """The same to within 2 of 255, in a third of the time."""
        return near_square(image, self.side)

    def pack(self, source: bytes | Path, _number: int, form: Form) -> tuple[bytes, NDArray[np.uint8]]:
        """(an image as it is kept, its pixels). Raises: OSError, ValueError."""
        content = source if isinstance(source, bytes) else source.read_bytes()
        raw = self.side * self.side * 3
        if form == "exact":
            pixels = self.fit(open_image(content))
            return (ORIGINAL + content if len(content) < raw else PIXELS + pixels.tobytes()), pixels
        image = self._near(content)
        pixels = self.near(image)
        if image.width * image.height * 3 <= raw and len(content) <= SMALL * raw:
            return NEAR + content, pixels
        content = JPEG + self.to_jpeg(pixels)
        return content, self.unpack(content)

    def to_jpeg(self, pixels: NDArray[np.uint8]) -> bytes:
        """The pixels with small errors."""
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY, subsampling=COLOURS)
        return out.getvalue()

    def of_jpeg(self, content: bytes) -> NDArray[np.uint8]:
        """The pixels of `to_jpeg`."""
        from PIL import Image

        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:  # djsb's own, whose sum is right
            return np.asarray(image, np.uint8)

    def unpack(self, content: bytes) -> NDArray[np.uint8]:
        """The pixels of an image that was kept."""
        kind, content = content[:1], content[1:]
        if kind == PIXELS:
            return np.frombuffer(content, np.uint8).reshape(self.shape)
        if kind == ORIGINAL:
            return self.fit(open_image(content))
        if kind == NEAR:
            return self.near(self._near(content))
        return self.of_jpeg(content)

    def _near(self, content: bytes) -> Image.Image:
        """An image, decoded no finer than the model sees it; one side may be `FINE` times the model's or more."""
        return open_image(content, near=int(FINE * self.side))


@dataclass(frozen=True)
class Fitted(Squares):
    """Images as (side, side, 3), as another processor than CLIP's makes them.

    way: crop: the shorter side becomes `edge`, and the centre is cut out; squash: both sides become `side`; pad: the
    longer side becomes `side`, and the rest is of colour `fill`. resample: Pillow's number of the filter.
    """

    way: Way
    edge: int
    resample: int
    fill: int = 0

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        """See Squares."""
        return self._fitted(image, partial(by_filter, resample=self.resample))

    def near(self, image: Image.Image) -> NDArray[np.uint8]:
        """See Squares."""
        if self.resample not in (BICUBIC, BILINEAR):
            return self.fit(image)
        return self._fitted(image, partial(by_vectors, mode="bicubic" if self.resample == BICUBIC else "bilinear"))

    def _fitted(self, image: Image.Image, resize: Resize) -> NDArray[np.uint8]:
        if self.way == "squash":
            return resize(image, self.side, self.side)
        if self.way == "crop":
            return _square(image, self.side, resize, self.edge)
        scale = self.side / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        left, top = (self.side - width) // 2, (self.side - height) // 2
        made = np.full(self.shape, self.fill, np.uint8)
        made[top : top + height, left : left + width] = resize(image, width, height)
        return made


def by_filter(image: Image.Image, width: int, height: int, resample: int = BICUBIC) -> NDArray[np.uint8]:
    """An image resized by Pillow. resample: its number of the filter."""
    return np.asarray(image.resize((width, height), resample), np.uint8)


def fit_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """(size, size, 3): the shorter side resized (bicubic), the centre cropped, as CLIP does."""
    return _square(image, size, by_filter)


def near_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """As `fit_square` to within 2 of 255, in a third of the time."""
    return _square(image, size, by_vectors)


def by_vectors(image: Image.Image, width: int, height: int, mode: str = "bicubic") -> NDArray[np.uint8]:
    """An image resized as Pillow does, by vector instructions."""
    import torch  # here, as most that import this module resize nothing

    pixels = torch.from_numpy(np.array(image))[None].movedim(-1, 1)  # channels stay last
    made = torch.nn.functional.interpolate(pixels, (height, width), mode=mode, antialias=True)
    resized: NDArray[np.uint8] = made[0].movedim(0, -1).numpy()
    return resized


def _square(image: Image.Image, size: int, resize: Resize, edge: int | None = None) -> NDArray[np.uint8]:
    """edge: what the shorter side becomes, `size` at least; None: `size`."""
    most = LONG * min(image.size)
    if max(image.size) > most:  # else the resized image could be far larger than what is kept of it
        across, down = (max(0, side - most) // 2 for side in image.size)
        image = image.crop((across, down, image.width - across, image.height - down))
    scale = (edge or size) / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return np.ascontiguousarray(resize(image, width, height)[top : top + size, left : left + size])


def cache_images(
    rows: Rows, medium: Squares | int, target: Path, name: str, workers: int, progress: Progress | None = None
) -> None:
    """Cache the first image of every good row as (rows, side, side, 3), zero for the others. See `cache_media`.

    medium: a number is the side of squares as CLIP has them.
    """
    medium = Squares(medium) if isinstance(medium, int) else medium
    cache_media(rows, rows.data.fields.images, medium, target, name, workers, progress, CHUNK)
