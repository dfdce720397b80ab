"""What a model sees of a video, one window of it, and how that is kept in a cache."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.videos import open_video
from engine.tasks.contract import Form, Progress, Rows
from engine.tasks.shared.images import PIXELS, fit_square
from engine.tasks.shared.media import cache_media

CHUNK = 100  # clips of a job
CLIP = b"V"  # how a clip that is kept as a video begins
QUANTISER = 8  # of H.264, the same for all frames


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


def read_clip(source: Path | bytes, window: Window, draw: float) -> tuple[NDArray[np.uint8], bool]:
    """((frames, side, side, 3), whether the last frame is held).

    The window begins at the share `draw` of the places where it fits. A video that ends, or cannot be decoded any
    further, within it holds its last frame. Raises: ValueError when there is no frame at all.
    """
    count = _count(source)
    found, decoded = _frames(source, window, int(draw * max(1, count - window.span + 1)))
    if not found:  # fewer can be decoded than the file says that there are: those count
        found, _ = _frames(source, window, int(draw * max(1, decoded - window.span + 1)))
    if not found:
        raise ValueError("unreadable video: it has no frames")
    held = len(found) < window.frames
    return np.stack([*found, *[found[-1]] * (window.frames - len(found))]), held


def _count(source: Path | bytes) -> int:
    """Frames of a video as its header says, or as are counted up to where it is broken."""
    count = 0
    try:
        with open_video(source) as container:
            if known := container.streams.video[0].frames:
                return int(known)
            for packet in container.demux(video=0):
                count += packet.size > 0
    except ValueError:
        if not count:
            raise
    return count


def _frames(source: Path | bytes, window: Window, start: int) -> tuple[list[NDArray[np.uint8]], int]:
    """(the window's frames from number `start`, frames decoded), up to where the video ends or is broken."""
    found: list[NDArray[np.uint8]] = []
    decoded = 0
    try:
        with open_video(source) as container:
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


@dataclass(frozen=True)
class Windows:
    """Videos as (frames, side, side, 3). See Window. seed: of where each row's window begins."""

    frames: int
    stride: int
    side: int
    seed: int
    video = True

    @property
    def window(self) -> Window:
        """Without the seed."""
        return Window(self.frames, self.stride, self.side)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one."""
        return self.frames, self.side, self.side, 3

    def look(self, source: bytes | Path) -> bool:
        """Look at the header; whether the video is shorter than a window. Raises: OSError, ValueError."""
        return _count(source) < self.window.span

    def decode(self, source: bytes | Path, number: int) -> tuple[NDArray[np.uint8], bool]:
        """(the window of row `number`, whether its last frame is held). Raises: OSError, ValueError."""
        return read_clip(source, self.window, np.random.default_rng((self.seed, number)).random())

    def pack(self, source: bytes | Path, number: int, form: Form) -> tuple[bytes, NDArray[np.uint8]]:
        """(a clip as it is kept, its pixels). Raises: OSError, ValueError."""
        clip, _ = self.decode(source, number)
        if form == "exact":
            return PIXELS + clip.tobytes(), clip
        content = CLIP + _as_clip(clip)
        return content, self.unpack(content)

    def unpack(self, content: bytes) -> NDArray[np.uint8]:
        """The pixels of a clip that was kept."""
        import av

        if content[:1] == PIXELS:
            return np.frombuffer(content, np.uint8, offset=1).reshape(self.shape)
        container: Any = av.open(io.BytesIO(content[1:]), "r", format="matroska")
        try:
            container.streams.video[0].codec_context.thread_count = 1
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        finally:
            container.close()
        return np.stack(frames)


def _as_clip(clip: NDArray[np.uint8]) -> bytes:
    """Frames as H.264 that keeps all colours, in Matroska."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as container:
        _encode(container, clip, 8, "yuv444p", {"preset": "veryfast", "qp": str(QUANTISER)})
    return out.getvalue()


def _encode(container: Any, clip: NDArray[np.uint8], rate: int, pixels: str, options: dict[str, str]) -> None:
    """Write frames as H.264 into an open container, on one thread, so that the same frames give the same bytes."""
    import av

    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width = clip.shape[1:3]
    stream.pix_fmt = pixels
    stream.codec_context.thread_count = 1
    for frame in clip:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
    container.mux(stream.encode())


def cache_clips(
    rows: Rows, window: Window, seed: int, target: Path, name: str, workers: int, progress: Progress | None = None
) -> int:
    """Cache a window of the first video of every good row as (rows, frames, side, side, 3), zero for the others.

    seed: of where each row's window begins. How many videos end within it. See `cache_media`.
    """
    medium = Windows(window.frames, window.stride, window.side, seed)
    return cache_media(rows, rows.data.fields.videos, medium, target, name, workers, progress, CHUNK)


def write_clip(clip: NDArray[np.uint8], file: Path, rate: int) -> None:
    """Write (frames, height, width, 3), of even sides, as an H.264 mp4; the same frames give the same bytes."""
    import av

    with av.open(str(file), "w", format="mp4") as container:
        _encode(container, clip, rate, "yuv420p", {"preset": "ultrafast", "crf": "16"})
