"""Media that lie in a larger file: read where they lie, named from elsewhere, copied out of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.data.dataset import Dataset
from engine.data.media import as_file, check_media, files_of, locate
from engine.data.placement import Placement
from engine.data.samples import suffix_of
from engine.data.scan import inspect
from engine.settings.data import DatasetSection
from tests.engine.data.test_videos import video


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def part(folder: Path, content: bytes, name: str = "a.tar") -> dict[str, Any]:
    """A value that means these bytes in the middle of a file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x" * 100 + content + b"y" * 100)
    return {"path": name, "offset": 100, "size": len(content)}


def test_a_part_is_read_where_it_lies(tmp_path: Path) -> None:
    value = part(tmp_path, b"picture")
    assert locate(value, tmp_path, tmp_path) == b"picture"
    assert locate({**value, "path": str(tmp_path / "a.tar")}, tmp_path, tmp_path / "other") == b"picture"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"size": 1000}, "truncated shard: a.tar ends within it"),
        ({"offset": 10**15}, "truncated shard"),
        ({"offset": -1}, "offset and size are no numbers"),
        ({"size": True}, "offset and size are no numbers"),
        ({"size": "7"}, "offset and size are no numbers"),
        ({"size": 2**31}, "2147483648 bytes in a shard, more than"),
        ({"path": "b.tar"}, "missing file b.tar"),
        ({"path": "/dev/zero"}, "missing file /dev/zero"),
    ],
)
def test_a_part_that_is_not_there_is_a_fault_of_its_row(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        locate({**part(tmp_path, b"picture"), **change}, tmp_path, tmp_path)


def test_a_video_may_be_bytes_wherever_it_may_be_a_file(tmp_path: Path) -> None:
    value = part(tmp_path, video())
    data = Dataset(tmp_path / "rows.jsonl", DatasetSection(path="rows.jsonl", text=None, videos="mp4"))
    assert inspect({"mp4": value}, data, tmp_path, tmp_path) is None
    assert inspect({"mp4": part(tmp_path, b"#EXTM3U\n")}, data, tmp_path, tmp_path) == "not a video file: by its " + (
        "content it is none of MP4/MOV, Matroska/WebM, AVI, MPEG, FLV, GIF, Ogg, ASF/WMV"
    )
    check_media(video(), video=True)
    with files_of([[video()]]) as ((file,),):
        assert Path(file).read_bytes() == video()
    assert suffix_of(video()) == ".mp4"


@pytest.mark.parametrize("copies", [False, True])
def test_rows_that_are_written_elsewhere_find_their_parts(tmp_path: Path, copies: bool) -> None:
    value, out = part(tmp_path / "data", png()), tmp_path / "out"
    out.mkdir()
    data = Dataset(tmp_path / "data" / "rows.jsonl", DatasetSection(path="rows.jsonl", text=None, images="jpg"))
    base = tmp_path / "data"
    placement = Placement(data, base, out, out / "media" if copies else None, True, ("jpg",))
    (row,) = placement.change(np.array([0]), [{"jpg": [value]}])
    assert set(row["jpg"][0]) == set(value) and row["jpg"][0]["path"].startswith(
        "media/" if copies else "../data/a.tar"
    )
    assert locate(row["jpg"][0], out, out) == png()


def test_a_new_file_in_the_place_of_a_part_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "new.png").write_bytes(png())
    value = as_file(part(tmp_path, b"old"), "new.png", len(png()))
    assert locate(value, tmp_path, tmp_path) == png()
    assert as_file("a.png", "b.png", 7) == "b.png"
    assert as_file({"bytes": b"x", "path": None}, "b.png", 7) == {"bytes": None, "path": "b.png"}
