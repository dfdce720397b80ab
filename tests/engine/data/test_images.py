"""Images: a few raster formats by their content, within limits, upright and with 8 bits; anything else is one error."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.data.images import check_image, check_whole, open_image
from engine.tasks.shared.images import fit_square
from tests.conftest import fuzz

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
RANDOM = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_head(width: int, height: int) -> bytes:
    """A PNG of that size, of hardly any bytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def peak() -> int:
    """Megabytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@pytest.mark.parametrize("content", [EPS, SVG, b"%PDF-1.4\n", b"", b"not an image", b"\0\0\1\0\1\0" + b"\0" * 40])
def test_other_formats_are_no_images_whatever_their_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    for opened in (open_image, check_image):
        with pytest.raises(ValueError, match="unreadable image: it is none of JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM"):
            opened(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ((1, 20_000), "1 × 20000 pixels, one side is more than 100 times the other"),
        ((40_000, 30_000), "Image size .* exceeds limit"),
        ((13_000, 12_000), "13000 × 12000 pixels, more than 32768 a side or 134217728 in all"),
    ],
)
def test_limits_are_looked_at_before_anything_is_decoded(size: tuple[int, int], says: str) -> None:
    before = peak()
    for opened in (open_image, check_image):
        with pytest.raises(ValueError, match=says):
            opened(png_head(*size))
    assert peak() - before < 20


def test_a_long_image_takes_little_memory_to_fit() -> None:
    before = peak()
    cut = fit_square(open_image(encoded(Image.new("RGB", (20, 2000), "red"))), 448)
    assert cut.shape == (448, 448, 3) and (cut == (255, 0, 0)).all()
    assert peak() - before < 60


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(form: str) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = np.asarray(open_image(encoded(Image.fromarray(ramp), form)))
    assert np.array_equal(pixels[..., 0], np.rint(ramp / 257))
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0, 2.0**32 - 1])
def test_fractions_are_scaled_by_the_white_that_holds_them(white: float) -> None:
    ramp = np.linspace(-white / 4, white, 64, dtype=np.float32).reshape(8, 8)
    ramp[0, 1] = np.nan
    pixels = np.asarray(open_image(encoded(Image.fromarray(ramp), "TIFF")))[..., 0]
    assert pixels[-1, -1] == 255 and pixels[0, 0] == 0 and pixels[0, 1] == 0
    assert pixels.ravel()[38] == pytest.approx(255 * ramp.ravel()[38] / white, abs=1)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    turned = open_image(encoded(Image.fromarray(RANDOM), form, exif=exif))
    plain = open_image(encoded(Image.fromarray(RANDOM), form))
    assert turned.size == (20, 30)
    assert turned.tobytes() == plain.transpose(Image.Transpose.ROTATE_270).tobytes()


def test_broken_exif_turns_nothing() -> None:
    content = encoded(Image.fromarray(RANDOM), "PNG")
    broken = content[:33] + chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff\x01") + content[33:]
    assert open_image(broken).size == (30, 20)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA", "CMYK"])
def test_what_was_read_before_is_read_alike(mode: str) -> None:
    content = encoded(Image.fromarray(RANDOM).convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    with Image.open(io.BytesIO(content)) as image:
        assert open_image(content).tobytes() == image.convert("RGB").tobytes()


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG"):
        content = encoded(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
        assert open_image(content).getpixel((0, 0)) == (255, 0, 0), form


FORMS = [encoded(Image.fromarray(RANDOM), form) for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")]
FORMS += [encoded(Image.fromarray(RANDOM), "TIFF", compression="tiff_adobe_deflate"), EPS, png_head(3, 3)]


@fuzz
@given(st.data())
def test_any_bytes_are_an_image_or_one_error(data: st.DataObject) -> None:
    before = peak()
    content = bytearray(data.draw(st.one_of(st.sampled_from(FORMS), st.binary(max_size=300))))
    for _ in range(data.draw(st.integers(0, 5)) if content else 0):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    try:
        image = open_image(bytes(content))
        assert image.mode == "RGB" and max(image.size) <= 2**15
    except ValueError as error:
        assert str(error).startswith("unreadable image: ") and "\n" not in str(error)
    assert peak() - before < 1500


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_file_that_is_cut_off_is_broken_whether_or_not_it_is_decoded(form: str) -> None:
    """What `check_whole` lets through can be decoded, wherever the file ends and whatever comes behind it."""
    whole = encoded(Image.fromarray(RANDOM), form)
    check_whole(whole)
    for content in [whole[:at] for at in range(0, len(whole), 7)] + [whole[:-1], whole + b"\0", whole + whole]:
        reasons = []
        for read in (check_whole, open_image):
            try:
                read(content)
                reasons.append("")
            except ValueError as error:
                reasons.append(str(error))
        assert reasons[0] == reasons[1], (form, len(content))


def test_a_whole_image_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.data.images.open_image", None)
    for form in ("JPEG", "PNG", "WEBP"):
        check_whole(encoded(Image.fromarray(RANDOM), form))
    broken = bytearray(encoded(Image.fromarray(RANDOM)))
    broken[len(broken) // 2] ^= 255
    with pytest.raises(TypeError):  # its sums are wrong: decoding says whether that matters
        check_whole(bytes(broken))
