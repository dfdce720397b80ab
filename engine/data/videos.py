"""Every video of a study is opened here: a container on the list by its content, from the file alone, within limits.

FFmpeg alone would also take playlists and manifests (HLS, DASH, ffconcat, SDP), which fetch what they name.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.base import machine

SIDE = 2**13  # pixels of the longer side at most
PIXELS = 2**25  # of a frame
HOURS = 24  # that a video may last
FRAMES = HOURS * 3600 * 60
HEAD = 1024  # bytes that say what a file is
KINDS = "MP4/MOV, Matroska/WebM, AVI, MPEG, FLV, GIF, Ogg, ASF/WMV"
# FFmpeg's name of a container → what its files begin with, after so many bytes
STARTS: dict[str, tuple[int, tuple[bytes, ...]]] = {
    "mov": (4, (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),
    "matroska": (0, (b"\x1aE\xdf\xa3",)),
    "avi": (8, (b"AVI ",)),
    "mpeg": (0, (b"\0\0\1\xba",)),
    "flv": (0, (b"FLV\1",)),
    "gif": (0, (b"GIF87a", b"GIF89a")),
    "ogg": (0, (b"OggS",)),
    "asf": (0, (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa\0b\xcel",)),
}
NO_REFERENCES = {"enable_drefs": "0", "use_absolute_path": "0"}  # options of `mov`
# what OpenCV gives to FFmpeg, which it lets guess the container
OPENCV = f"protocol_whitelist;file|format_whitelist;{','.join([*STARTS, 'mpegts'])}"


def container_of(head: bytes) -> str | None:
    """FFmpeg's name of the container that a file with these first bytes is; None for any other file."""
    for name, (after, starts) in STARTS.items():
        if head[after:].startswith(starts):
            return name
    for first, size in ((0, 188), (4, 192)):  # a transport stream has a mark at each packet
        if len(head) > 4 * size and all(head[first + i * size] == 0x47 for i in range(4)):
            return "mpegts"
    return None


def open_container(source: Path | bytes) -> Any:
    """PyAV's container of a video, a file or its bytes, of a kind and a size that are read; the caller closes it.

    Raises: OSError when there is no such file, ValueError for all else.
    """
    import av

    if isinstance(source, bytes):
        name = container_of(source[:HEAD])
    else:
        with source.open("rb") as opened:
            name = container_of(opened.read(HEAD))
    if name is None:
        raise ValueError(f"not a video file: by its content it is none of {KINDS}")
    options = {"protocol_whitelist": "file", **(NO_REFERENCES if name == "mov" else {})}
    # an absolute path: nothing of a name is taken for a protocol
    place = io.BytesIO(source) if isinstance(source, bytes) else str(source.absolute())
    try:
        # not `options`: those go to streams too, and PyAV crashes where a stream comes up later than the header
        container = _av_open(av)(place, "r", format=name, container_options=options, metadata_errors="replace")
    except Exception as error:  # decoders raise whatever a broken file makes them raise
        machine.refuse(error, _name(source))
        raise ValueError(_unreadable(error)) from error
    try:
        _check_limits(container)
    except BaseException:
        container.close()
        raise
    return container


def _name(source: Path | bytes) -> str:
    return "a video" if isinstance(source, bytes) else str(source)


def _unreadable(error: Exception) -> str:
    return f"unreadable video: {(str(error).splitlines() or [type(error).__name__])[0]}"


def _check_limits(container: Any) -> None:
    if not container.streams.video:
        raise ValueError("unreadable video: it has no frames")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ValueError("unreadable video: no decoder knows its codec")
    width, height = stream.codec_context.width, stream.codec_context.height
    if max(width, height) > SIDE or width * height > PIXELS:
        raise ValueError(f"unreadable video: {width} × {height} pixels, more than {SIDE} a side or {PIXELS} in all")
    seconds = (container.duration or 0) / 1e6
    if stream.frames > FRAMES or seconds > HOURS * 3600:
        raise ValueError(f"unreadable video: {stream.frames} frames, {seconds:.0f} s; {HOURS} hours are read at most")
    stream.codec_context.options = {"max_pixels": str(PIXELS)}  # of a frame that differs from what the header says


@contextmanager
def open_video(source: Path | bytes) -> Iterator[Any]:
    """The same for a block, in which PyAV's errors become ValueError."""
    import av

    container = open_container(source)
    try:
        yield container
    except (av.error.FFmpegError, IndexError) as error:
        machine.refuse(error, _name(source))
        raise ValueError(_unreadable(error)) from error
    finally:
        container.close()


def check_video(source: Path | bytes, decode: bool = False) -> None:
    """That a video is of a kind and a size that are read; with `decode` also that it has a first frame.

    Raises: OSError, ValueError.
    """
    with open_video(source) as container:
        if decode and next(container.decode(video=0), None) is None:
            raise ValueError("unreadable video: it has no frames")


_original: Any = None


def _av_open(av: Any) -> Any:
    return _original or av.open


def guard() -> None:
    """Let PyAV itself read files as `open_container` does, for code that isn't ours: Data-Juicer's OPs."""
    global _original
    import av

    if _original is not None:
        return
    _original = av.open

    def opened(file: Any, mode: str | None = None, *args: Any, **options: Any) -> Any:
        if mode not in (None, "r") or not isinstance(file, str | Path):
            return _original(file, mode, *args, **options)
        return open_container(Path(file))

    av.open = opened
