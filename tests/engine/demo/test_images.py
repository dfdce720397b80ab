"""The demo world: same bytes each time, defects at their documented rates, captions that agree with truth."""

import hashlib
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.base.errors import DjsbError
from engine.demo import images as demo
from engine.demo.files import DemoFiles
from engine.demo.images import CAPTION_DEFECTS, CLASSES, IMAGE_DEFECTS, make_demo

ROWS, TEST_ROWS = 1200, 160
CLASS_WORDS = {word for label in CLASSES for word in label.split()}


@dataclass(frozen=True)
class World:
    files: DemoFiles
    train: list[dict[str, Any]]
    test: list[dict[str, Any]]
    truth: list[dict[str, Any]]

    @property
    def folder(self) -> Path:
        return self.files.train.parent


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def class_words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text)) & CLASS_WORDS


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    files = make_demo(tmp_path_factory.mktemp("demo") / "world", ROWS, TEST_ROWS)
    return World(files, lines(files.train), lines(files.test), lines(files.truth))


def test_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    make_demo(tmp_path / "one", 40, 16, seed=3)
    make_demo(tmp_path / "two", 40, 16, seed=3)
    make_demo(tmp_path / "other", 40, 16, seed=4)
    first = digests(tmp_path / "one")
    assert len(first) == 40 + 16 + 4
    assert first == digests(tmp_path / "two")
    assert first["train.jsonl"] != digests(tmp_path / "other")["train.jsonl"]


def test_a_row_does_not_depend_on_the_number_of_rows(tmp_path: Path, world: World) -> None:
    short = make_demo(tmp_path / "short", 20, 16)
    assert lines(short.train) == world.train[:20]
    name = world.train[7]["images"][0]
    assert (tmp_path / "short" / name).read_bytes() == (world.folder / name).read_bytes()


def test_rows_have_the_documented_fields(world: World) -> None:
    assert [row["id"] for row in world.train] == list(range(ROWS))
    assert [row["id"] for row in world.test] == list(range(TEST_ROWS))
    assert [row["id"] for row in world.truth] == list(range(ROWS))
    assert all(set(row) == {"id", "text", "images"} for row in world.train)
    assert all(set(row) == {"id", "text", "images", "label"} for row in world.test)
    assert all(set(row) == {"id", "label", "defects"} for row in world.truth)
    assert all(row["text"].strip() for row in world.train)


def test_test_rows_are_balanced_and_clean(world: World) -> None:
    counts = {label: sum(row["label"] == label for row in world.test) for label in CLASSES}
    assert counts == dict.fromkeys(CLASSES, TEST_ROWS // len(CLASSES))
    assert all(class_words(row["text"]) == set(row["label"].split()) for row in world.test)


def test_train_has_every_class_about_equally(world: World) -> None:
    counts = [sum(row["label"] == label for row in world.truth) for label in CLASSES]
    assert min(counts) > ROWS / len(CLASSES) / 2 and max(counts) < ROWS / len(CLASSES) * 2


@pytest.mark.parametrize(("defect", "rate"), [*CAPTION_DEFECTS.items(), *IMAGE_DEFECTS.items()])
def test_defects_occur_at_their_rate(world: World, defect: str, rate: float) -> None:
    seen = sum(defect in row["defects"] for row in world.truth) / ROWS
    assert abs(seen - rate) < 4 * math.sqrt(rate * (1 - rate) / ROWS)


def test_a_good_third_of_the_captions_is_clean(world: World) -> None:
    clean = sum(not set(row["defects"]) & set(CAPTION_DEFECTS) for row in world.truth) / ROWS
    assert 0.33 < clean < 0.43


def test_a_clean_caption_names_its_class_and_a_mismatched_one_another(world: World) -> None:
    seen = {"clean": 0, "mismatched": 0}
    for row, truth in zip(world.train, world.truth, strict=True):
        defects = set(truth["defects"]) & set(CAPTION_DEFECTS)
        label = set(truth["label"].split())
        if not defects:
            assert class_words(row["text"]) == label
            seen["clean"] += 1
        elif defects == {"mismatched"}:
            assert len(class_words(row["text"])) == 2
            assert class_words(row["text"]) != label
            seen["mismatched"] += 1
    assert min(seen.values()) > 50


def test_caption_defects_show_in_the_text(world: World) -> None:
    alone: dict[str, list[str]] = {name: [] for name in (*CAPTION_DEFECTS, "")}
    for row, truth in zip(world.train, world.truth, strict=True):
        defects = [name for name in truth["defects"] if name in CAPTION_DEFECTS]
        if len(defects) <= 1:
            alone["".join(defects)].append(row["text"])
    assert not any(class_words(text) for text in alone["truncated"])
    assert all(re.search(r"\d", text) for text in alone["file_name"])
    assert all(max(map(text.split().count, text.split())) >= 3 for text in alone["repeated"])
    longest = max(map(len, alone[""]))
    assert np.median([len(text) for text in alone["spammed"]]) > longest
    assert np.mean([len(text) for text in alone["truncated"]]) < np.mean([len(text) for text in alone[""]]) / 2


def test_the_longest_third_of_the_captions_is_the_worst(world: World) -> None:
    order = np.argsort([len(row["text"]) for row in world.train], kind="stable")
    right = [
        class_words(row["text"]) == set(truth["label"].split())
        for row, truth in zip(world.train, world.truth, strict=True)
    ]
    low, mid, high = (float(np.mean([right[i] for i in part])) for part in np.array_split(order, 3))
    assert high < low - 0.2 < mid - 0.2


def test_images_have_the_documented_sizes(world: World) -> None:
    seen = set()
    for row, truth in zip(world.train, world.truth, strict=True):
        with Image.open(world.folder / row["images"][0]) as image:
            image.load()
            assert image.mode == "RGB"
            sides = sorted(image.size)
            seen.add(image.format)
        if "stretched" in truth["defects"]:
            assert 3 <= sides[1] / sides[0] <= 6
        elif "tiny" in truth["defects"]:
            assert 8 <= sides[0] <= sides[1] <= 12
        else:
            assert 28 <= sides[0] <= sides[1] <= 40
    assert seen == {"PNG", "JPEG"}


def test_blur_removes_detail_and_noise_adds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = demo.render(demo.draw_scene("red star", rng))

    def detail(defect: str) -> float:
        monkeypatch.setattr(demo, "IMAGE_DEFECTS", {defect: 1.0})
        changed, defects = demo.web_image(image, rng)
        assert defects == [defect]
        return float(np.abs(np.diff(np.asarray(changed, dtype=float), axis=0)).mean())

    plain = float(np.abs(np.diff(np.asarray(image, dtype=float), axis=0)).mean())
    assert detail("blurred") < plain < detail("noisy")


@pytest.mark.parametrize("label", CLASSES)
def test_a_scene_shows_its_colour_where_the_shape_is(label: str) -> None:
    scene = demo.draw_scene(label, np.random.default_rng(5))
    pixels = np.asarray(demo.render(scene))
    assert tuple(pixels[int(scene.y * scene.height), int(scene.x * scene.width)]) == scene.tint


def test_moving_the_shape_keeps_the_background() -> None:
    scene = replace(demo.draw_scene("blue circle", np.random.default_rng(1)), x=0.3, y=0.3, size=0.35)
    before, after = (np.asarray(demo.render(at)) for at in (scene, replace(scene, x=0.7)))
    assert (before[:, :2] == after[:, :2]).all()
    assert (before != after).any()


def test_a_finished_demo_is_reused(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    files = make_demo(folder, 20, 16)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert make_demo(folder, 20, 16) == files
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == stamps
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    assert make_demo(tmp_path, 4, 4).train.exists()


def test_a_foreign_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DjsbError, match="not a demo; name another folder"):
        make_demo(tmp_path, 4, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(DjsbError, match="not a demo"):
        make_demo(tmp_path / "demo", 4, 4)


def test_a_demo_of_other_arguments_is_refused_and_kept(tmp_path: Path) -> None:
    make_demo(tmp_path / "demo", 4, 4)
    before = digests(tmp_path / "demo")
    with pytest.raises(DjsbError, match="other arguments"):
        make_demo(tmp_path / "demo", 5, 4)
    assert digests(tmp_path / "demo") == before


def test_a_damaged_demo_is_refused(tmp_path: Path) -> None:
    make_demo(tmp_path / "demo", 4, 4).truth.unlink()
    with pytest.raises(DjsbError, match=r"without its truth\.jsonl"):
        make_demo(tmp_path / "demo", 4, 4)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(demo, "_write_test", fail)
    with pytest.raises(OSError, match="disk full"):
        make_demo(tmp_path / "demo", 4, 4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [(0, 4, 0), (4, 0, 0), (4, 4, -1)])
def test_arguments_out_of_range_are_refused(tmp_path: Path, arguments: tuple[int, int, int]) -> None:
    with pytest.raises(DjsbError, match="at least 1 row"):
        make_demo(tmp_path / "demo", *arguments)
