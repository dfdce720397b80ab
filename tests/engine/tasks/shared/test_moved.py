"""Media in packs are found again when a study is moved with its data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.dataset import Dataset
from engine.settings.data import DatasetSection
from engine.tasks.shared.images import Squares
from engine.tasks.shared.media import entry_of, set_bound, source_entry, whence_of, write_sources
from engine.tasks.shared.packed import open_media


@pytest.mark.parametrize("of_rows", [False, True])
def test_a_study_that_is_moved_with_its_data_finds_its_media(tmp_path: Path, of_rows: bool) -> None:
    data, caches = tmp_path / "here" / "data", tmp_path / "here" / "study" / ".djsb" / "cache" / "lm-1"
    data.mkdir(parents=True)
    caches.mkdir(parents=True)
    Image.new("RGB", (8, 8), (200, 0, 0)).save(data / "a.png")
    (data / "rows.jsonl").write_text(json.dumps({"text": "t", "images": ["a.png"]}) + "\n")
    rows = Dataset(data / "rows.jsonl", DatasetSection(path="rows.jsonl", images="images"))
    whence = whence_of(rows, data, "images") if of_rows else None
    sources = [entry_of("a.png") if of_rows else source_entry(data / "a.png")]
    set_bound(caches.parent, 1)
    write_sources(caches, "x", sources, Squares(4), "exact", "k", whence)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = tmp_path / "there" / "study" / ".djsb" / "cache" / "lm-1"
    assert open_media(moved, "x")[np.array([0])][0, 0, 0].tolist() == [200, 0, 0]
    # as an older djsb has written it: absolute paths hold where they are
    if not of_rows:
        entry = source_entry(tmp_path / "there" / "data" / "a.png")
        (moved / "x-sources.bin").write_bytes(entry)
        ends = next(f for f in moved.glob("x-*.npy"))
        np.save(ends, np.array([len(entry)]))
        fresh = tmp_path / "there" / "study" / ".djsb" / "cache" / "lm-2"
        moved.rename(fresh)
        assert open_media(fresh, "x")[np.array([0])][0, 0, 0].tolist() == [200, 0, 0]
