"""The moving demo world: same bytes each time, defects at their rates, found where the statistics say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data.datajuicer import load_op
from engine.demo.files import DemoFiles
from engine.demo.video import CAPTION_DEFECTS, CLIP_DEFECTS, LABELS, make_demo
from engine.tasks.shared.videos import Window, read_clip
from engine.tasks.t2v.scores import seen_in

ROWS, TESTED = 160, 48


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> DemoFiles:
    return make_demo(tmp_path_factory.mktemp("demo") / "world", ROWS, TESTED)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_same_arguments_give_the_same_bytes(tmp_path: Path, world: DemoFiles) -> None:
    short = make_demo(tmp_path / "short", 12, 4)
    assert lines(short.train) == lines(world.train)[:12]
    for row in lines(short.train):
        one, other = ((f.train.parent / row["videos"][0]).read_bytes() for f in (short, world))
        assert hashlib.sha256(one).digest() == hashlib.sha256(other).digest()
    assert make_demo(tmp_path / "short", 12, 4) == short


def test_defects_come_at_their_rates_and_the_test_rows_have_none(world: DemoFiles) -> None:
    truth = lines(world.truth)
    for name, rate in (CAPTION_DEFECTS | CLIP_DEFECTS).items():
        share = np.mean([name in row["defects"] for row in truth])
        assert share == pytest.approx(rate, abs=4 * (rate * (1 - rate) / ROWS) ** 0.5)
    assert sorted(row["label"] for row in lines(world.test)) == sorted(LABELS)


def test_clean_clips_show_what_their_captions_say(world: DemoFiles) -> None:
    window, folder = Window(6, 2, 32), world.train.parent
    for row in lines(world.test)[::5]:
        colour, shape, _, way = row["label"].split()
        clip, held = read_clip(folder / row["videos"][0], window, 0.5)
        assert not held and seen_in(clip) == (colour, shape, way)
        assert all(word in row["text"] for word in (colour, shape, way))
    by_id = {r["id"]: r for r in lines(world.train)}
    clean = [t for t in lines(world.truth) if not t["defects"]]
    assert len(clean) > 20
    assert all(word in by_id[t["id"]]["text"] for t in clean for word in t["label"].split() if word != "moving")


@pytest.mark.long
def test_the_statistics_show_the_planted_defects(world: DemoFiles) -> None:
    rows, truth = lines(world.train)[:80], lines(world.truth)[:80]
    names = {"video_motion_score_filter": "video_motion_score", "video_duration_filter": "video_duration",
             "video_aspect_ratio_filter": "video_aspect_ratios"}  # fmt: skip
    values = {}
    for op, key in names.items():
        batch = {"videos": [[str(world.train.parent / r["videos"][0])] for r in rows], "text": ["x"] * len(rows),
                 "__dj__stats__": [{} for _ in rows], "__dj__context__": [{} for _ in rows]}  # fmt: skip
        params = {"video_duration_filter": {"video_backend": "av"}, "video_motion_score_filter": {"sampling_fps": 8.0}}
        stats = load_op(op, params.get(op, {})).compute_stats_batched(batch)["__dj__stats__"]
        values[op] = np.array([float(s[key][0]) for s in stats])

    def mean(op: str, defect: str | None) -> float:
        return float(np.mean([v for v, t in zip(values[op], truth, strict=True) if defect in (t["defects"] or [None])]))

    moves = values["video_motion_score_filter"]
    still = np.array(["static" in t["defects"] and "flickering" not in t["defects"] for t in truth])
    flickers = np.array(["flickering" in t["defects"] for t in truth])
    assert np.max(moves[still]) < 0.1 and np.min(moves[flickers]) > np.median(moves[~flickers])
    assert mean("video_duration_filter", "short") < 0.8 < mean("video_duration_filter", None)
    stretch = np.abs(np.log(values["video_aspect_ratio_filter"]))
    is_stretched = np.array(["stretched" in t["defects"] for t in truth])
    assert stretch[is_stretched].min() > stretch[~is_stretched].max()
