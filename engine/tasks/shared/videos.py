"""The shared clip cache: one window of every video, decoded and resized once per study, then memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.videos import open_video
from engine.tasks.contract import Progress, Rows
from engine.tasks.shared.images import cache_media, fit_square, place_of

CHUNK = 100  # clips of a job


@dataclass(frozen=True)
class Window:
    """frames: how many a model sees. stride: 2 takes every other one. side: pixels, square."""

    frames: int
    stride: int
    side: int

    @property
    def span(self) -> int:
        """Frames of the video that it covers."""
        return (self.frames - 1) * self.stride + 1


def read_clip(file: Path, window: Window, draw: float) -> tuple[NDArray[np.uint8], bool]:
    """((frames, side, side, 3), whether the last frame is held).

    The window begins at the share `draw` of the places where it fits. A video that ends, or cannot be decoded any
    further, within it holds its last frame. Raises: ValueError when there is no frame at all.
    """
    count = _count(file)
    found, decoded = _frames(file, window, int(draw * max(1, count - window.span + 1)))
    if not found:  # fewer can be decoded than the file says that there are: those count
        found, _ = _frames(file, window, int(draw * max(1, decoded - window.span + 1)))
    if not found:
        raise ValueError("unreadable video: it has no frames")
    held = len(found) < window.frames
    return np.stack([*found, *[found[-1]] * (window.frames - len(found))]), held


def _count(file: Path) -> int:
    """Frames of a video as its header says, or as are counted up to where it is broken."""
    count = 0
    try:
        with open_video(file) as container:
            if known := container.streams.video[0].frames:
                return int(known)
            for packet in container.demux(video=0):
                count += packet.size > 0
    except ValueError:
        if not count:
            raise
    return count


def _frames(file: Path, window: Window, start: int) -> tuple[list[NDArray[np.uint8]], int]:
    """(the window's frames from number `start`, frames decoded), up to where the video ends or is broken."""
    found: list[NDArray[np.uint8]] = []
    decoded = 0
    try:
        with open_video(file) as container:
            for number, frame in enumerate(container.decode(video=0)):
                decoded = number + 1
                if number >= start and (number - start) % window.stride == 0:
                    found.append(fit_square(frame.to_image(), window.side))
                    if len(found) == window.frames:
                        break
    except ValueError:
        if not decoded:
            raise
    return found, decoded


def _decode_clip(rows: Rows, number: int, name: Any, window: Window, seed: int) -> tuple[NDArray[np.uint8], bool]:
    """The clip of a row. Raises: OSError, ValueError."""
    file = place_of(rows, name)
    assert isinstance(file, Path)  # the scan lets no bytes through
    return read_clip(file, window, np.random.default_rng((seed, number)).random())


def cache_clips(
    rows: Rows, window: Window, seed: int, file: Path, workers: int, progress: Progress | None = None
) -> int:
    """Write `file`: (rows, frames, side, side, 3) uint8, zero for bad rows; how many videos ended too early.

    seed: of where each row's window begins. Raises: Unreadable.
    """
    decode, shape = partial(_decode_clip, window=window, seed=seed), (window.frames, window.side, window.side, 3)
    return cache_media(rows, rows.data.fields.videos, decode, shape, file, workers, progress, CHUNK)


def write_clip(clip: NDArray[np.uint8], file: Path, rate: int) -> None:
    """Write (frames, height, width, 3), of even sides, as an H.264 mp4; the same frames give the same bytes."""
    import av

    with av.open(str(file), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "16"})
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        container.mux(stream.encode())
