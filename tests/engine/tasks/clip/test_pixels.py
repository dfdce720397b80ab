"""Images of every kind become the pixels that they show, the same to the scan, in every way of keeping and fitting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.images import check_image, check_whole, open_image
from engine.tasks.shared.crops import Crop
from engine.tasks.shared.images import Fitted, Squares

RED, WIDE = (200, 30, 40), (60, 40)  # a picture's colour, and its width and height as it is shown


def grey16(file: Path) -> tuple[int, int, int]:
    """A tenth, a half and all of white in 16 bits: the middle one."""
    Image.fromarray(np.full(WIDE[::-1], 32_896, np.uint16)).save(file.with_suffix(".png"))
    return 128, 128, 128


def turned(file: Path) -> tuple[int, int, int]:
    """Stored upright and shown on its side: the left half, shown on top, is red."""
    image = Image.new("RGB", WIDE[::-1], RED)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file.with_suffix(".png"), exif=exif)
    return RED


def palette(file: Path) -> tuple[int, int, int]:
    """Colours by number, one of them transparent."""
    image = Image.new("P", WIDE, 1)
    image.putpalette([0, 0, 0, *RED])
    image.save(file.with_suffix(".png"), transparency=0)
    return RED


def alpha(file: Path) -> tuple[int, int, int]:
    """With an alpha channel: its colours are read as they are, as the models' own processors read them."""
    Image.new("RGBA", WIDE, (*RED, 255)).save(file.with_suffix(".png"))
    return RED


def cmyk(file: Path) -> tuple[int, int, int]:
    """As printers have it."""
    image = Image.new("CMYK", WIDE, (0, 200, 200, 40))
    image.save(file.with_suffix(".jpg"), quality=95)
    return image.convert("RGB").getpixel((0, 0))  # type: ignore[return-value]


def bits(file: Path) -> tuple[int, int, int]:
    """Black and white in one bit a pixel."""
    Image.new("1", WIDE, 1).save(file.with_suffix(".png"))
    return 255, 255, 255


KINDS = (grey16, turned, palette, alpha, cmyk, bits)
WAYS = {
    "crop": Squares(24), "squash": Fitted(24, "squash", 24, 3), "bilinear": Fitted(24, "crop", 28, 2),
    "random": Crop(24, (0.9, 1.0)).medium,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_what_the_picture_shows(tmp_path: Path, kind: Callable[[Path], tuple[int, int, int]]) -> None:
    colour = kind(tmp_path / "picture")
    (file,) = tmp_path.iterdir()
    check_whole(file)
    look = check_image(file)
    assert (look.width, look.height) == WIDE or not look.sure
    assert open_image(file).size == WIDE
    for way, medium in WAYS.items():
        pixels, _ = medium.decode(file, 0)
        shown = pixels[: medium.side]
        assert np.abs(shown.astype(int) - colour).max() <= 2, way
        for form in ("exact", "jpeg"):
            content, kept = medium.pack(file, 0, form)  # type: ignore[arg-type]
            assert np.abs(kept[: medium.side].astype(int) - colour).max() <= 4, (way, form)
            assert np.array_equal(medium.unpack(content), kept)


def test_a_padded_picture_is_whole() -> None:
    image = Image.new("RGB", (100, 10), RED)
    made = Fitted(40, "pad", 40, 3).fit(image)
    assert made.shape == (40, 40, 3)
    assert (made[18:22] == RED).all() and not made[:18].any() and not made[22:].any()


@pytest.mark.parametrize("medium", WAYS.values(), ids=WAYS)
def test_no_shape_of_a_picture_takes_memory_before_it_is_refused(tmp_path: Path, medium: Squares) -> None:
    file = tmp_path / "line.png"
    Image.new("1", (20_000, 50)).save(file)
    with pytest.raises(ValueError, match="more than 100 times the other"):
        medium.decode(file, 0)
    Image.new("1", (40_000, 500)).save(file)
    with pytest.raises(ValueError, match="more than 32768 a side"):
        medium.decode(file, 0)
    Image.new("1", (9_000, 100)).save(file)  # 90 : 1 is read, and no resized image is larger than it must be
    pixels, _ = medium.decode(file, 0)
    assert pixels.shape == medium.shape
