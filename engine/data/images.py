"""Every image of a study is opened here: one of a few raster formats by its content, within limits, upright, as RGB.

Pillow alone would take a format that starts a program (EPS starts Ghostscript), and decode any size.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from engine.base import machine

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SIDE = 2**15  # pixels of the longer side at most
PIXELS = 2**27  # of an image; half a gigabyte when decoded
JPEG_END = b"\xff\xd9"
ASPECT = 100  # times that the longer side may be the shorter
HEADED = ("JPEG", "MPO", "WEBP", "BMP", "PPM")  # whose header says how they are turned, if at all
ORIENTATION = 0x0112  # EXIF's tag
SIDEWAYS = (5, 6, 7, 8)  # its values where width and height change places
PNG_WORDS = (b"Raw profile type exif", b"XML:com.adobe.xmp", b"exif\0", b"xmp\0")  # texts that Pillow looks into
WORD = max(map(len, PNG_WORDS))
TILE = (322, 323)  # TIFF's tags of a tile's width and height


@contextmanager
def _opened(source: bytes | Path, most: int = PIXELS) -> Iterator[Image.Image]:
    """The image, not decoded yet, of a format and a size that are read.

    Raises: OSError when there is no such file, ValueError for all else, in the block too.
    """
    from PIL import Image, ImageFile, UnidentifiedImageError

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # importing Data-Juicer turns it on for the whole process
    with _file_of(source) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are limited here, and of broken metadata
        try:
            with Image.open(file, formats=FORMATS) as image:
                _check_size(image, most)
                yield image
        except UnidentifiedImageError:
            raise ValueError(f"unreadable image: it is none of {', '.join(FORMATS)}, or is broken") from None
        except Exception as error:  # decoders raise whatever a broken file makes them raise
            machine.refuse(error, "an image" if isinstance(source, bytes) else str(source))
            lines = str(error).splitlines() or [type(error).__name__]
            raise ValueError(f"unreadable image: {lines[0]}") from error


def _file_of(source: bytes | Path) -> IO[bytes]:
    try:
        return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        machine.refuse(error, str(source))
        raise


def _check_size(image: Image.Image, most: int) -> None:
    width, height = image.size
    says = f"{width} × {height} pixels"
    tile = [getattr(image, "tag_v2", {}).get(tag, 0) for tag in TILE]
    if max(width, height, *tile) > SIDE or max(width * height, tile[0] * tile[1]) > most:
        raise ValueError(f"{says}, more than {SIDE} a side or {most} in all")
    if max(width, height) > ASPECT * min(width, height):
        raise ValueError(f"{says}, one side is more than {ASPECT} times the other")


@dataclass(frozen=True)
class Look:
    """What the header of an image says. width, height: as it is shown. kind: its format, as JPEG.

    sure: they are those of the decoded image; in some kinds of files the turn stands behind the pixels.
    """

    width: int
    height: int
    sure: bool
    kind: str = ""


def check_image(source: bytes | Path) -> Look:
    """That an image is of a format and a size that are read; it isn't decoded. Raises: OSError, ValueError."""
    with _opened(source) as image:
        width, height = image.size
        sure = image.format in HEADED or (image.format == "PNG" and not _png_may_turn(source))
        if sure and image.format != "PNG":
            try:
                if image.getexif().get(ORIENTATION) in SIDEWAYS:
                    width, height = height, width
            except Exception as error:  # decoders raise whatever broken metadata make them raise
                machine.refuse(error, "an image")
                sure = False
        return Look(width, height, sure, str(image.format))


def _png_may_turn(source: bytes | Path) -> bool:
    """True when a PNG holds, anywhere, what may say how it is turned, or is cut off."""
    with _file_of(source) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            size, kind = struct.unpack(">I4s", head)
            if kind == b"IEND":
                return False
            if kind == b"eXIf":
                return True
            word = file.read(min(size, WORD)) if kind in (b"tEXt", b"zTXt", b"iTXt") else b""
            if word.startswith(PNG_WORDS):
                return True
            file.seek(size - len(word) + 4, io.SEEK_CUR)
    return True


def check_whole(source: bytes | Path) -> None:
    """That an image is of a format and a size that are read, and that its file is whole.

    It is decoded only where its end does not show that. Raises: OSError, ValueError.
    """
    with _opened(source) as image:
        ends = _ends_well(source, image)
    if not ends:
        open_image(source).close()


def _ends_well(source: bytes | Path, image: Image.Image) -> bool:
    """True for a JPEG or WebP that is not cut off, and for a PNG whose sums are right."""
    if image.format == "PNG":
        try:
            image.verify()
        except Exception as error:  # decoders raise whatever broken files make them raise
            machine.refuse(error, "an image")
            return False
        return True
    with _file_of(source) as file:
        if image.format == "WEBP":
            size = struct.unpack("<4xI", file.read(8))[0]
            return bool(file.seek(0, io.SEEK_END) >= size + 8)
        if image.format == "JPEG" and file.seek(0, io.SEEK_END) > len(JPEG_END):
            file.seek(-len(JPEG_END), io.SEEK_END)
            return bool(file.read() == JPEG_END)
    return False


def open_image(source: bytes | Path, near: int | None = None, most: int = PIXELS) -> Image.Image:
    """The decoded image as RGB, of an animation its first frame; a truncated one is an error.

    near: a side in pixels; a JPEG is decoded no finer than is needed for it. most: pixels of the image at most.
    Raises: OSError, ValueError.
    """
    with _opened(source, most) as image:
        if near:
            image.draft("RGB", (near, near))
        image.load()
        image = _upright(image)
        return (_eight_bits(image) if image.mode[0] in "IF" else image).convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says that it is to be shown."""
    from PIL import ImageOps

    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # any, as above: metadata that cannot be read say nothing of how the picture is turned
        machine.refuse(error, "an image")
        return image
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """A picture of more than 8 bits, scaled; Pillow's own conversion cuts values above 255 off.

    The white of 16 bits is 65,535. Numbers of 32 bits do not say what their white is: it is the smallest of 1 (for
    fractions), 255, 65,535 and 2³² - 1 that is not below the largest of them.
    """
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    if image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I"):
        white = 65535.0
    else:
        values = np.nan_to_num(values.astype(np.float32, copy=False), nan=0, posinf=0, neginf=0)
        whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        white = next((w for w in whites if values.max(initial=0) <= w), 2.0**32 - 1)
    scaled = values.astype(np.float32, copy=False) * np.float32(255 / white)
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def guard() -> None:
    """Let Pillow itself open these formats only, for code that isn't ours: Data-Juicer's OPs."""
    from PIL import Image

    Image.init()  # all plugins, now: none is added later
    Image.ID[:] = [name for name in Image.ID if name in FORMATS]
