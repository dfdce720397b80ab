"""Statistics by real Data-Juicer OPs: cached, resumable, honest about what cannot be read."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.base import machine
from engine.base.durable import checksum
from engine.base.errors import MachineError, OpError
from engine.data import stat_files, statistics
from engine.data.cuts import keeps
from engine.data.op_values import ChunkResult, Job, OpRun
from engine.journal import caches
from engine.records.pool import Slice
from engine.study.opened import OpenStudy, open_study
from tests.conftest import TEXT_ONLY, Tiny, write_jsonl


def text_study(tiny: Tiny, texts: list[str], ops: dict[str, Any]) -> OpenStudy:
    write_jsonl(tiny.train_file, [{"id": i, "text": t} for i, t in enumerate(texts)])
    tiny.set({**TEXT_ONLY, "ops": ops})
    return open_study(tiny.study, 1)


def test_values_are_those_of_the_ops(tiny: Tiny) -> None:
    opened = text_study(tiny, ["abc def", "a!", "é" * 5], {"text_length_filter": {}, "special_characters_filter": {}})
    with opened.store:
        assert opened.columns["text_len"].value.tolist() == [7, 2, 5]
        assert opened.columns["special_char_ratio"].value.tolist() == pytest.approx([1 / 7, 1 / 2, 0])


def test_adding_an_op_computes_that_op_only(tiny: Tiny) -> None:
    texts = [f"{'word ' * (i % 9)}end" for i in range(300)]
    with (opened := text_study(tiny, texts, {"text_length_filter": {}})).store:
        _ = opened.columns
        (first,) = opened.store.query("SELECT id, at, seconds FROM statistics")
    with (opened := text_study(tiny, texts, {"text_length_filter": {}, "words_num_filter": {}})).store:
        assert set(opened.columns) == {"text_len", "num_words"}
        rows = {r["op"]: r for r in opened.store.query("SELECT * FROM statistics")}
    assert (rows["text_length_filter"]["at"], rows["text_length_filter"]["seconds"]) == (first["at"], first["seconds"])


def test_a_killed_computation_goes_on_with_the_missing_chunks(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK", 50)
    with (opened := text_study(tiny, [f"{'x' * (i % 17)} y" for i in range(200)], {"text_length_filter": {}})).store:
        whole = opened.columns["text_len"].value.copy()
        (run,) = opened.op_plan[0]
        # as if the engine had been killed after two of four chunks: their rows are there, the others are not
        opened.store.execute("DELETE FROM statistic_chunks WHERE start >= 100")
        file = np.load(opened.state / "cache" / "statistics" / f"{run.key}.npy", mmap_mode="r+")
        file[:, 100:] = -1
        file.flush()
    with (again := open_study(tiny.study, 1)).store:
        assert np.array_equal(again.columns["text_len"].value, whole)
        assert len(again.store.query("SELECT * FROM statistic_chunks")) == 4


def test_an_image_that_disappears_after_the_scan_is_unreadable_with_a_reason(tiny: Tiny) -> None:
    tiny.set({"ops": {"image_shape_filter": {}}})
    with (opened := open_study(tiny.study, 1)).store:
        assert opened.scan.bad == 0
        picture = tiny.train_file.parent / tiny.rows[7]["images"][0]
        picture.write_bytes(b"no image any more")
        widths = opened.columns["image_width"]
        assert np.flatnonzero(np.isnan(widths.value)).tolist() == [7]
        reasons = opened.store.query("SELECT row, reason FROM unreadable")
        assert {r["row"] for r in reasons} == {7}
        assert all(r["reason"].startswith("unreadable image: ") for r in reasons)
        assert not keeps(Slice("image_shape_filter", "image_width"), widths)[7]


def test_rows_with_several_images_keep_their_extremes(tiny: Tiny) -> None:
    from PIL import Image

    folder = tiny.train_file.parent
    for size in (8, 20, 40):
        Image.new("RGB", (size, 10)).save(folder / f"{size}.png")
    pictures = [["8.png"], ["8.png", "40.png"], ["20.png", "20.png"]]
    write_jsonl(tiny.train_file, [{"id": i, "text": "a", "images": p} for i, p in enumerate(pictures)])
    tiny.set({"task": None, "ops": {"image_shape_filter": {}}})
    with (opened := open_study(tiny.study, 1)).store:
        widths = opened.columns["image_width"]
    assert not widths.single
    assert (widths.low.tolist(), widths.high.tolist()) == ([8, 8, 20], [8, 40, 20])
    assert keeps(Slice("image_shape_filter", "image_width", 10, 41), widths).tolist() == [False, False, True]


def test_ops_without_their_weights_are_left_out_with_the_reason(tiny: Tiny, tmp_path: Path) -> None:
    ops = {
        "text_length_filter": {},
        "token_num_filter": {},
        "image_nsfw_filter": {"hf_nsfw_model": str(tmp_path / "no")},
    }
    with (opened := text_study(tiny, ["a", "b"], ops)).store:
        left = {x.op: x.reason for x in opened.op_plan[1]}
    assert "ops.token_num_filter.hf_tokenizer" in left["token_num_filter"]
    assert "the data has no image" in left["image_nsfw_filter"]


def test_an_unknown_parameter_is_refused_before_anything_is_computed(tiny: Tiny) -> None:
    opened = text_study(tiny, ["a"], {"text_length_filter": {"min_len": 3}})
    with opened.store, pytest.raises(OpError, match="unknown parameter 'min_len'"):
        _ = opened.op_plan


def test_videos_have_duration_shape_and_motion(tiny: Tiny) -> None:
    av = pytest.importorskip("av")
    folder = tiny.train_file.parent
    for name, (width, height, frames) in {"a": (64, 48, 16), "b": (48, 64, 40)}.items():
        with av.open(str(folder / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=8)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for i in range(frames):
                picture = np.zeros((height, width, 3), np.uint8)
                picture[:, i % width : i % width + 8] = 255
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
    (folder / "broken.mp4").write_bytes(b"no video")
    rows = [{"id": i, "text": "x", "videos": [f"{n}.mp4"]} for i, n in enumerate(["a", "b", "broken"])]
    write_jsonl(tiny.train_file, rows)
    fields = {"path": "../data/train.jsonl", "images": None, "videos": "videos", "id": "id", "max_bad": 0.5}
    ops = {"video_duration_filter": {}, "video_resolution_filter": {}, "video_aspect_ratio_filter": {}}
    tiny.set({"task": None, "dataset": fields, "ops": ops})
    with (opened := open_study(tiny.study, 1)).store:
        assert opened.scan.good.tolist() == [True, True, False]
        assert opened.columns["video_width"].value[:2].tolist() == [64, 48]
        assert opened.columns["video_aspect_ratios"].value[:2].tolist() == pytest.approx([4 / 3, 3 / 4])
        assert opened.columns["video_duration"].value[:2].tolist() == pytest.approx([2, 5], abs=0.3)
        (bad,) = opened.store.query("SELECT row, reason FROM quarantine")
    assert bad["row"] == 2
    assert bad["reason"].startswith("not a video file")


def test_the_scan_is_cached_under_the_content(tiny: Tiny) -> None:
    with (opened := text_study(tiny, ["a", "b", "c"], {"text_length_filter": {}})).store:
        _ = opened.scan
        (file,) = (opened.state / "cache").glob("scan-*.npz")
        stamp = file.stat().st_mtime_ns
    time.sleep(0.01)
    with (again := open_study(tiny.study, 1)).store:
        _ = again.scan
        assert file.stat().st_mtime_ns == stamp
    with (other := text_study(tiny, ["a", "b", "d"], {"text_length_filter": {}})).store:
        _ = other.scan
        assert len(list((other.state / "cache").glob("scan-*.npz"))) == 2


def test_a_column_takes_one_number_a_row_on_disk_and_an_older_one_of_two_is_read(tiny: Tiny) -> None:
    texts = [f"{'word ' * (i % 9)}end" for i in range(300)]
    with (opened := text_study(tiny, texts, {"text_length_filter": {}})).store:
        (run,) = opened.op_plan[0]
        lengths = opened.columns["text_len"].value.copy()
        file = opened.state / "cache" / "statistics" / f"{run.key}.npy"
        assert np.load(file).shape == (1, 300)
        old = np.stack([lengths, lengths])  # as an older djsb wrote it
        np.save(file, old)
        opened.store.execute("UPDATE statistic_chunks SET sum = ?", (checksum(old.tobytes()),))
        stamp = file.stat().st_mtime_ns
    with (again := open_study(tiny.study, 1)).store:
        (known,) = caches.statistic_runs(again.store)
        assert stat_files.verify(known, again.state, again.store, deep=True) == (old.nbytes, None)
        column = again.columns["text_len"]
        assert column.single
        assert column.value.tolist() == column.high.tolist() == lengths.tolist()
        assert file.stat().st_mtime_ns == stamp


def test_after_an_error_of_the_machine_the_next_run_goes_on(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK", 50)
    done: list[int] = []

    def fails_once(work: Callable[[Job], ChunkResult], jobs: list[Job], *_: object) -> Iterator[ChunkResult]:
        for job in jobs:
            if len(done) == 2:
                done.append(-1)
                machine.refuse(OSError(errno.ENOSPC, "No space left on device"), "text_length_filter")
            done.append(job.start)
            yield work(job)

    monkeypatch.setattr(statistics, "run_chunks", fails_once)
    texts = [f"{'word ' * (i % 9)}end" for i in range(200)]
    with (
        (opened := text_study(tiny, texts, {"text_length_filter": {}})).store,
        pytest.raises(MachineError, match="free some space, and run the same command again: it goes on"),
    ):
        _ = opened.columns
    with (again := open_study(tiny.study, 1)).store:
        assert again.columns["text_len"].value.tolist() == [len(t) for t in texts]
        assert not caches.unreadable_statistics(again.store)
        assert again.scan.bad == 0
    assert done == [0, 50, -1, 100, 150]  # none is computed twice


def test_several_values_are_not_lost_where_the_catalogue_says_one() -> None:
    run, column = OpRun("text_length_filter", (), "k"), np.zeros((1, 9))
    stat_files.write(run, column, 2, np.array([[1, np.nan, 3], [1, np.nan, 3]]))
    assert np.array_equal(column[0, 2:5], [1, np.nan, 3], equal_nan=True)
    with pytest.raises(OpError, match="text_length_filter gives several values of text_len in a row"):
        stat_files.write(run, column, 2, np.array([[1, 2, 3], [1, 2, 4.0]]))


def test_an_op_is_built_without_ray_and_executors_are_there_when_asked_for() -> None:
    code = """
import sys
from engine.data import datajuicer
op = datajuicer.load_op("text_length_filter", {})
assert op.compute_stats_batched({"text": ["abc"], "__dj__stats__": [{}]})["__dj__stats__"] == [{"text_len": 3}]
assert not {"ray", "data_juicer.core.executor"} & set(sys.modules)
from data_juicer.core import DefaultExecutor, NestedDataset
from data_juicer.core.data import NestedDataset as same
assert same is NestedDataset and DefaultExecutor.run
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
