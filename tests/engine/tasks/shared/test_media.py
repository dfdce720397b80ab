"""Media in packs against media in one array: the same pixels where that is said, little disk, errors in one line."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.base.errors import DataError
from engine.data.dataset import Dataset
from engine.data.media import Unreadable
from engine.loop.run import run_loop
from engine.settings.data import DatasetSection
from engine.settings.running import CacheSection
from engine.study.opened import held, open_study
from engine.tasks.contract import Form, Rows
from engine.tasks.shared import images, packed
from engine.tasks.shared.images import NEAR, Squares, cache_images, fit_square, near_square
from engine.tasks.shared.media import cache_media, form_of, set_bound
from engine.tasks.shared.packed import Packed, ahead, open_media
from engine.tasks.shared.videos import Windows, write_clip
from tests.conftest import Tiny, write_jsonl

SIDE = 64


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Large soft shapes and a little noise, as photographs have."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((width, height), 3)
    return Image.fromarray(np.clip(np.asarray(soft) + rng.normal(0, 2, (height, width, 3)), 0, 255).astype(np.uint8))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with 40 images of several kinds and sizes, and their rows."""
    rows = []
    for n in range(40):
        name = f"{n}.{'png' if n % 3 else 'jpg'}"
        size = (40, 40) if n % 4 == 0 else (300, 200 + n)
        picture(n, *size).save(tmp_path / name, **({} if n % 3 else {"quality": 90}))
        rows.append({"id": n, "text": "a text", "images": [name]})
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return tmp_path


def rows_of(folder: Path, form: Form, bad: tuple[int, ...] = (5,), file: str = "rows.jsonl", **fields: Any) -> Rows:
    section = DatasetSection(path=file, **{"text": "text", "images": "images", "id": "id", **fields})
    data = Dataset(folder / file, section)
    good = np.ones(len(data), bool)
    good[list(bad)] = False
    return Rows(data, folder, good, form=form)


def cached(folder: Path, rows: Rows, name: str = "clip-x", max_gb: float | None = None) -> Path:
    """A task's folder of caches with these images."""
    cache = folder / "study" / ".djsb" / "cache"
    set_bound(cache, max_gb)
    packed._store.cache_clear()
    cache_images(rows, SIDE, cache / f"{name}-{rows.form}", "train-images", 1)
    return cache / f"{name}-{rows.form}"


def packs_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.pack"))


def test_the_form_hangs_on_number_size_and_settings_only() -> None:
    auto = CacheSection()
    assert form_of(auto, 2_400, 32 * 32 * 3) == "raw"
    assert form_of(auto, 50_000, 32 * 32 * 3) == "exact"  # a JPEG of so few pixels saves nothing
    assert form_of(auto, 20_000, 224 * 224 * 3) == "exact"
    assert form_of(auto, 50_000, 224 * 224 * 3) == "jpeg"
    assert form_of(auto, 5_000, 16 * 256 * 256 * 3) == "jpeg"
    assert form_of(CacheSection(max_gb=0.1), 2_400, 224 * 224 * 3) == "exact"
    assert form_of(CacheSection(form="jpeg"), 10, 300) == "jpeg"


@pytest.mark.parametrize("readers", [0, 2])
def test_exact_packs_have_the_pixels_of_the_array(
    pictures: Path, readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(packed.READERS, str(readers))
    raw = open_media(cached(pictures, rows_of(pictures, "raw")), "train-images")
    some = open_media(cached(pictures, rows_of(pictures, "exact")), "train-images")
    assert isinstance(some, Packed) and some.shape == raw.shape and some.nbytes == raw.nbytes
    chosen = np.array([[3, 39, 3], [5, 0, 21]])
    assert np.array_equal(some[chosen], raw[chosen]) and not some[np.array([5])].any()
    assert packs_of(pictures) < raw.nbytes / 4  # what was drawn, and nothing else
    batches = [np.sort(np.random.default_rng(n).permutation(40)[:20]) for n in range(6)]
    for batch, asked in zip(ahead(some, iter(batches)), batches, strict=True):
        assert batch is asked and np.array_equal(some[batch], raw[batch])
        assert np.array_equal(some[batch[3:9]], raw[batch[3:9]])
    assert np.array_equal(some[10:], raw[10:])
    held = packs_of(pictures)
    assert np.array_equal(some[:], raw[:]) and packs_of(pictures) >= held
    before = packs_of(pictures)
    assert np.array_equal(some[:], raw[:]) and packs_of(pictures) == before  # each image once


def test_jpegs_are_near_and_small(pictures: Path) -> None:
    raw = open_media(cached(pictures, rows_of(pictures, "raw")), "train-images")
    some = open_media(cached(pictures, rows_of(pictures, "jpeg")), "train-images")
    first = some[:]
    error = np.abs(first.astype(int) - raw[:].astype(int))
    assert 0 < error.mean() < 2 and error.max() < 50
    assert np.array_equal(some[:], first)  # as it is kept, the first time too
    assert packs_of(pictures) < 0.4 * raw.nbytes  # of so small images; docs/benchmarks.md has those of models


def test_the_fast_way_to_a_square_gives_the_same_within_two() -> None:
    for n, size in enumerate([(300, 217), (64, 64), (40, 31), (65, 900), (1, 1), (1000, 101)]):
        image = picture(n, *size)
        assert np.abs(fit_square(image, SIDE).astype(int) - near_square(image, SIDE)).max() <= 2
        assert near_square(image, SIDE).flags.c_contiguous and near_square(image, SIDE).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize(("size", "kept"), [((60, 64), True), ((90, 64), False), ((200, 210), False)])
def test_a_small_jpeg_is_kept_as_it_is(size: tuple[int, int], kept: bool) -> None:
    content, medium = io.BytesIO(), Squares(SIDE)
    picture(1, *size).save(content, "JPEG", quality=40)
    item, pixels = medium.pack(content.getvalue(), 0, "jpeg")
    assert (item == NEAR + content.getvalue()) == kept and np.array_equal(medium.unpack(item), pixels)
    whole, _ = medium.decode(content.getvalue(), 0)
    assert np.abs(whole.astype(int) - pixels).mean() < (0.1 if kept else 3)


def test_a_large_jpeg_is_decoded_no_finer_than_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    content, medium, sizes = io.BytesIO(), Squares(SIDE), []
    picture(1, 800, 640).save(content, "JPEG", quality=95)
    resized = images.by_vectors
    monkeypatch.setattr(images, "by_vectors", lambda image, *to: (sizes.append(image.size), resized(image, *to))[1])
    _, pixels = medium.pack(content.getvalue(), 0, "jpeg")
    assert sizes == [(200, 160)]
    assert np.abs(medium.decode(content.getvalue(), 0)[0].astype(int) - pixels).mean() < 3


def test_media_in_parquet_stay_in_their_rows(pictures: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = [{"bytes": next(pictures.glob(f"{n}.*")).read_bytes(), "path": None} for n in range(40)]
    table = pa.table({"id": range(40), "text": ["a text"] * 40, "images": content})
    pq.write_table(table, pictures / "rows.parquet", row_group_size=7)
    raw = open_media(cached(pictures, rows_of(pictures, "raw")), "train-images")
    where = cached(pictures, rows_of(pictures, "exact", file="rows.parquet"))
    assert np.array_equal(open_media(where, "train-images")[:], raw[:])
    assert (where / "train-images-sources.bin").stat().st_size == 39


def test_what_is_gone_is_named_before_and_while_it_is_drawn(pictures: Path) -> None:
    rows = rows_of(pictures, "exact")
    some = open_media(cached(pictures, rows), "train-images")
    some[np.arange(5)]
    (pictures / "3.jpg").unlink()
    (pictures / "8.png").write_bytes((pictures / "8.png").read_bytes()[:-200])
    some[np.arange(5)]  # it is kept
    with pytest.raises(DataError, match=r"rows.jsonl, row 8: unreadable image: .*; mend it, or take the row out"):
        some[np.arange(10)]
    with pytest.raises(Unreadable) as told:
        cached(pictures, rows, "clip-y")
    assert told.value.rows.keys() == {3, 8}
    assert not list((pictures / "study" / ".djsb" / "cache" / "clip-y-exact").glob("*.json"))


def test_a_damaged_item_is_made_again(pictures: Path) -> None:
    where = cached(pictures, rows_of(pictures, "exact"))
    whole = open_media(where, "train-images")[:]
    (pack,) = pictures.rglob("*.pack")
    content = bytearray(pack.read_bytes())
    content[1000::5000] = bytes(255 - b for b in content[1000::5000])
    pack.write_bytes(content)
    packed._store.cache_clear()
    assert np.array_equal(open_media(where, "train-images")[:], whole)


def test_a_bound_that_holds_nothing_costs_time_only(pictures: Path) -> None:
    raw = open_media(cached(pictures, rows_of(pictures, "raw")), "train-images")
    some = open_media(cached(pictures, rows_of(pictures, "exact"), max_gb=1e-6), "train-images")
    assert np.array_equal(some[:], raw[:]) and packs_of(pictures) <= 1000


def test_clips_are_near_and_small(tmp_path: Path) -> None:
    frames = np.stack([np.asarray(picture(3, 96, 64)) // 2 + 4 * n for n in range(12)]).astype(np.uint8)
    write_clip(frames, tmp_path / "a.mp4", 8)
    write_jsonl(tmp_path / "rows.jsonl", [{"id": n, "text": "t", "videos": ["a.mp4"]} for n in range(3)])
    cache = tmp_path / "study" / ".djsb" / "cache"
    set_bound(cache, None)
    found: dict[Form, NDArray[np.uint8]] = {}
    for form in ("raw", "exact", "jpeg"):
        rows = rows_of(tmp_path, form, (), images=None, videos="videos")
        short = cache_media(rows, "videos", Windows(8, 2, 64, 7), cache / form, "train-clips", 1, None, 10)
        assert short == 3  # 15 frames do not fit into 12
        found[form] = open_media(cache / form, "train-clips")[:]
    assert np.array_equal(found["raw"], found["exact"])
    assert 0 < np.abs(found["raw"].astype(int) - found["jpeg"]).mean() < 2
    (pack,) = [p for p in cache.rglob("*.pack") if p.stat().st_size < found["raw"].nbytes / 4]
    assert pack.stat().st_size > 1000


# -- whole studies -----------------------------------------------------------------------------


def scores(tiny: Tiny, form: Form | None) -> tuple[str, dict[str, Any]]:
    """(setup, metrics of each trial) of a probe."""
    shutil.rmtree(tiny.study, ignore_errors=True)
    tiny.set({"cache": {"form": form}} if form else {})
    with (opened := open_study(tiny.study, 1)).store as store:
        assert run_loop(opened, until="probe", workers=1).how == "done"
        rows = store.query("SELECT t.pool, m.name, m.value FROM trials t JOIN metrics m ON m.trial = t.id")
        return opened.root, {f"{r['pool']} {r['name']}": r["value"] for r in rows}


@pytest.mark.long
@pytest.mark.slow
def test_exact_packs_give_the_results_of_the_array_and_jpegs_are_another_study(tiny: Tiny) -> None:
    assert scores(tiny, "exact") == scores(tiny, None)
    root, metrics = scores(tiny, "jpeg")
    assert root != scores(tiny, "raw")[0] and metrics


def test_a_study_that_was_begun_with_arrays_goes_on_with_them(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with (opened := open_study(tiny.study, 1)).store:
        opened.record(measured=False)
        before = opened.root
    monkeypatch.setattr("engine.tasks.shared.media.RAW_BYTES", 1000)
    monkeypatch.setattr("engine.tasks.shared.media.TINY", 1000)
    with (again := open_study(tiny.study, 1)).store:
        assert again.root == before and again.forms == {"train": "raw", "evaluation": "raw"}
    shutil.rmtree(tiny.study / ".djsb")
    with (other := open_study(tiny.study, 1)).store:
        assert other.root != before and other.forms == {"train": "jpeg", "evaluation": "jpeg"}


def test_an_image_that_is_gone_since_the_scan_is_left_out(tiny: Tiny) -> None:
    tiny.set({"cache": {"form": "exact"}})
    with (opened := open_study(tiny.study, 1)).store:
        assert opened.scan.bad == 0
        (tiny.root / "data" / tiny.rows[9]["images"][0]).unlink()
        assert not open_media(opened.prepared, "train-images")[np.array([9])].any()
        assert np.flatnonzero(~opened.scan.good).tolist() == [9]


def test_a_deep_check_finds_damaged_items(tiny: Tiny) -> None:
    tiny.set({"cache": {"form": "exact"}})
    with (opened := open_study(tiny.study, 1)).store:
        media = open_media(opened.prepared, "train-images")
        whole = media[:]
        for pack in opened.state.rglob("*.pack"):
            content = bytearray(pack.read_bytes())
            content[50] ^= 255
            pack.write_bytes(content)
        with held(opened) as found:
            assert not found.damaged
        with held(opened, deep=True) as found:
            (line,) = found.damaged
        assert line.startswith("cache/packs/") and line.endswith("is damaged (1 of its media); they are made anew")
        assert np.array_equal(media[:], whole)


def test_a_full_disk_is_a_line_in_the_log(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of a process that reads comes to the worker's log, and from there to the engine's."""
    lines: list[str] = []
    monkeypatch.setattr(packed.LOG, "warning", lines.append)
    monkeypatch.setenv(packed.READERS, "2")
    media = Packed.__new__(Packed)
    media._said, media._file = set(), Path()
    done = [_Done(np.zeros((1, 2), np.uint8), ["the disk is full"]) for _ in range(2)]
    media._arrived(packed._Part(np.arange(2), [np.arange(1), np.arange(1, 2)], done))  # type: ignore[arg-type]
    assert lines == ["the disk is full"]


class _Done:
    def __init__(self, *result: Any) -> None:
        self._result = result

    def result(self) -> Any:
        return self._result
