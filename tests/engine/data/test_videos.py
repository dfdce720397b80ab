"""Videos: a container on the list by its content, from the file alone, within limits; anything else is one error."""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.paths import HOME
from engine.data import videos
from engine.data.videos import check_video, open_video
from engine.tasks.shared.videos import Window, read_clip
from tests.conftest import fuzz

KINDS = [
    ("mp4", "libx264"), ("mov", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"),
    ("mpegts", "libx264"), ("mpeg", "mpeg2video"), ("vob", "mpeg2video"), ("flv", "flv"), ("gif", "gif"),
    ("ogg", "libvpx"), ("asf", "wmv2"),
]  # fmt: skip


@cache
def video(form: str = "mp4", codec: str = "libx264", frames: int = 12, size: tuple[int, int] = (48, 32)) -> bytes:
    """A small video, ever brighter."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "a"
        options = {"movflags": "faststart"} if form == "mp4" else {}  # the index stands before the frames
        with av.open(str(file), "w", format=form, options=options) as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
            for i in range(frames):
                picture = np.full((size[1], size[0], 3), i * 5, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        return file.read_bytes()


PLAYLISTS = {
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nok.mp4\n#EXT-X-ENDLIST\n",
    "ffconcat": b"ffconcat version 1.0\nfile ok.mp4\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "rtsp": b"RTSPtextrtsp://127.0.0.1/a\n",
    "text": b"no video",
    "nothing": b"",
}


@pytest.mark.parametrize(("form", "codec"), KINDS)
def test_containers_on_the_list_are_read(tmp_path: Path, form: str, codec: str) -> None:
    file = tmp_path / "named.txt"
    file.write_bytes(video(form, codec))
    check_video(file, decode=True)
    clip, held = read_clip(file, Window(4, 2, 8), 0)
    assert clip.shape == (4, 8, 8, 3) and not held


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_what_names_other_files_is_no_video(tmp_path: Path, kind: str) -> None:
    (tmp_path / "ok.mp4").write_bytes(video())
    (tmp_path / "a.mp4").write_bytes(PLAYLISTS[kind])
    with pytest.raises(ValueError, match="not a video file: by its content it is none of MP4/MOV"):
        check_video(tmp_path / "a.mp4")


def test_a_series_of_images_by_a_pattern_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "%03d.mp4").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match="not a video file"):
        check_video(tmp_path / "%03d.mp4")


def test_a_name_is_never_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("http:/127.0.0.1/a.mp4")
    file.parent.mkdir(parents=True)
    file.write_bytes(video())
    check_video(file, decode=True)


def test_limits_are_those_of_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(video())
    for limit, value, says in (
        ("SIDE", 40, "48 × 32 pixels, more than 40 a side"),
        ("PIXELS", 1000, "48 × 32 pixels, more than .* or 1000 in all"),
        ("FRAMES", 11, "12 frames"),
    ):
        with monkeypatch.context() as patch, pytest.raises(ValueError, match=says):
            patch.setattr(videos, limit, value)
            check_video(file)


def test_a_frame_larger_than_the_header_says_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(video())
    monkeypatch.setattr(
        videos, "_check_limits", lambda c: setattr(c.streams.video[0].codec_context, "options", {"max_pixels": "9"})
    )
    with pytest.raises(ValueError, match="unreadable video"), open_video(file) as container:
        next(container.decode(video=0))


def test_a_codec_that_nobody_knows_is_named(tmp_path: Path) -> None:
    content = video()
    at = content.rindex(b"avc1")  # of the track; the first is a brand of the file
    (tmp_path / "a.mp4").write_bytes(content[:at] + b"zzzz" + content[at + 4 :])
    with pytest.raises(ValueError, match="no decoder knows its codec"):
        check_video(tmp_path / "a.mp4")


def test_a_clip_behind_the_last_whole_frame_is_taken_before_it(tmp_path: Path) -> None:
    content = video("mp4", "mpeg4", 40)
    file = tmp_path / "a.mp4"
    file.write_bytes(content[: -len(content[content.index(b"mdat") :]) // 2])
    check_video(file, decode=True)
    last, held = read_clip(file, Window(4, 1, 8), 0.999)
    assert not held and 50 < last.mean() < 150  # of 0 … 195


def test_ops_open_no_other_kind_by_themselves(tmp_path: Path) -> None:
    """Once Data-Juicer is imported, Pillow, PyAV and OpenCV keep to the list in that process."""
    (tmp_path / "ok.mp4").write_bytes(video())
    for kind in ("hls", "ffconcat", "dash"):
        (tmp_path / f"{kind}.mp4").write_bytes(PLAYLISTS[kind])
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    script = """
import sys
from engine.data import datajuicer
datajuicer.prepare()
import av, cv2
from PIL import Image
found = []
for name in ("ok", "hls", "ffconcat", "dash"):
    found.append(cv2.VideoCapture(f"{name}.mp4").read()[0])
    try:
        with av.open(f"{name}.mp4") as container:
            found.append(next(container.decode(video=0)).width == 48)
    except ValueError:
        found.append(False)
try:
    Image.open("a.jpg")
except OSError:
    found.append(False)
print(found)
"""
    environment = {"PYTHONPATH": str(HOME), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split("\n")[-2] == str([True, True] + [False] * 7), done.stdout + done.stderr


FORMS = [video(*kind) for kind in KINDS] + list(PLAYLISTS.values())


@fuzz
@given(st.data())
def test_any_bytes_are_a_video_or_one_error(tmp_path: Path, data: st.DataObject) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    content = bytearray(data.draw(st.one_of(st.sampled_from(FORMS), st.binary(max_size=300))))
    for _ in range(data.draw(st.integers(0, 6)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    file = tmp_path / "a.mp4"
    file.write_bytes(content)
    try:
        check_video(file, decode=True)
        read_clip(file, Window(2, 2, 8), 0.5)
    except ValueError as error:
        assert str(error).startswith(("unreadable video: ", "not a video file: ")) and "\n" not in str(error)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024 < 1500
