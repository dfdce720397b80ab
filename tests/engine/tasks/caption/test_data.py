"""What the evaluation of captions keeps: each distinct image once, with the captions of all its rows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.data.dataset import Dataset
from engine.data.media import Unreadable
from engine.settings.data import DatasetSection
from engine.tasks.contract import Rows
from engine.tasks.vlm import data as caches


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(out, "png")
    return out.getvalue()


def rows_of(folder: Path, held: str) -> Rows:
    """Five captions of two images, one of which has two names; the last row is bad. held: `paths` or `bytes`."""
    content = {"a.png": png(10), "b.png": png(200), "copy.png": png(10)}
    for name, picture in content.items():
        (folder / name).write_bytes(picture)
    names = ["a.png", "b.png", "a.png", "copy.png", "b.png", "gone.png"]
    images: list[Any] = names if held == "paths" else [content.get(name, b"") for name in names]
    pq.write_table(pa.table({"text": [f"t{i}" for i in range(6)], "images": images}), folder / "rows.parquet")
    data = Dataset(folder / "rows.parquet", DatasetSection(path="rows.parquet", images="images"))
    return Rows(data, folder, np.array([True] * 5 + [False]))


@pytest.mark.parametrize("held", ["paths", "bytes"])
def test_each_image_is_decoded_once(tmp_path: Path, held: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[list[bool]] = []
    inner = caches.cache_images

    def cache_images(rows: Rows, *more: Any) -> None:
        decoded.append(rows.good.tolist())
        inner(rows, *more)

    monkeypatch.setattr(caches, "cache_images", cache_images)
    rows = rows_of(tmp_path, held)
    (tmp_path / "made").mkdir()
    caches._cache_captions(rows, "Say.", 4, tmp_path / "made", 1)
    by_name = [True, True, False, True, False, False]
    assert decoded == [by_name if held == "paths" else [True, True, False, False, False, False]]
    told = json.loads((tmp_path / "made" / "caption.json").read_text())
    assert [entry["answers"] for entry in told] == [["t0", "t2", "t3"], ["t1", "t4"]]
    assert [entry["item"] for entry in told] == ["0", "1"]
    assert np.load(tmp_path / "made" / "caption-images.npy")[:, 0, 0, 0].tolist() == [10, 200]


def test_an_image_that_is_gone_costs_all_its_rows(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "paths")
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "made").mkdir()
    with pytest.raises(Unreadable) as error:
        caches._cache_captions(rows, "Say.", 4, tmp_path / "made", 1)
    assert sorted(error.value.rows) == [1, 4]
