"""Mappers on real rows by real Data-Juicer OPs: what changes, what is kept, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from engine.base.errors import OpError
from engine.base.paths import ENTRY
from engine.data.apply_recipe import apply_recipe
from engine.data.catalogue import check_mapper
from engine.data.dataset import Dataset
from engine.data.mappers import MapperRun, _map_chunk, failures
from engine.data.recipes import read_recipe, recipe_yaml
from engine.records.pool import MapperStep, Pool, pool_from_json
from engine.settings.data import DatasetSection
from tests.conftest import make_rows, write_jsonl
from tests.engine.data.tiny_mappers import captioner, diffuser

TAGS = MapperStep("remove_specific_chars_mapper", (("chars_to_remove", "<>/"),))


def written(folder: Path, texts: Sequence[str]) -> Dataset:
    """Rows with an image each and these texts."""
    rows = make_rows(folder, "images", len(texts), 0)
    file = write_jsonl(folder / "rows.jsonl", [{**r, "text": t, "more": [1]} for r, t in zip(rows, texts, strict=True)])
    return Dataset(file, DatasetSection(path="rows.jsonl", text="text", images="images", id="id"))


def rewriting(data: Dataset, *mappers: MapperStep) -> MapperRun:
    return MapperRun(data, data.path.parent, mappers, data.path.parent, data.path.parent / "cache")


def run(work: MapperRun, rows: Sequence[int], workers: int = 1) -> int:
    """How many rows were rewritten."""
    return sum(n for _, n, _ in work.run(np.asarray(rows, np.int64), workers))


def test_a_pool_without_mappers_keeps_its_id_and_one_with_them_survives_json() -> None:
    plain, mapped = (
        Pool(size=9),
        Pool(size=9, mappers=(MapperStep("image_captioning_mapper", (("caption_num", 2),), "a"),)),
    )
    assert plain.id == "edca61c18557" and "mappers" not in plain.to_json()
    assert pool_from_json(json.loads(json.dumps(mapped.to_json()))) == mapped
    assert plain.id != mapped.id and not mapped.is_control


def test_text_mappers_run_one_after_the_other_and_only_on_the_rows_asked_for(tmp_path: Path) -> None:
    data = written(tmp_path, ["<red> a@b.com", "<blue>", "green", "</>"])
    work, rows = rewriting(data, TAGS, MapperStep("clean_email_mapper")), np.array([0, 2, 3])
    assert run(work, rows) == 3 and run(work, rows) == 0
    found = work.dataset(rows)
    read = found.reader.read(0, 4)
    assert [r.get("text") for r in read] == ["red ", None, "green", "</>"]
    assert read[1] == {} and read[0]["more"] == [1] and read[0]["id"] == 0
    assert read[0]["images"] == [str(tmp_path / "images" / "0000.png")]  # the file stands in another folder
    told = work.summary(rows)
    assert told.kept == {"the mapper left no text": 1} and told.changed == 1
    assert (told.examples[0].before.text, told.examples[0].after.text) == (
        "<red> a@b.com",
        "red ",
    )


def test_a_growing_set_of_rows_is_another_dataset_and_computes_what_is_new_only(tmp_path: Path) -> None:
    data = written(tmp_path, ["plain"] * 3)
    work = rewriting(data, TAGS)
    run(work, [0, 1])
    first = work.dataset(np.array([0, 1]))
    assert run(work, [0, 1, 2]) == 1
    assert work.dataset(np.array([0, 1, 2])).fingerprint != first.fingerprint


def test_captions_are_made_of_images_alike_in_any_order(tmp_path: Path) -> None:
    data = written(tmp_path, ["old words"] * 3)
    model = captioner(tmp_path / "blip")
    step = MapperStep("image_captioning_mapper", (("hf_img2seq", model.name),))
    work = rewriting(data, step)
    assert run(work, [0, 1, 2]) == 3
    made = [work.results(0)[n] for n in range(3)]
    assert all(m["kept"] is None and m["images"] is None for m in made), made
    assert all("old" not in m["text"] and "__dj__" not in m["text"] for m in made)
    again = MapperRun(data, tmp_path, (step,), tmp_path, tmp_path / "again")
    assert run(again, [2]) == 1 and again.results(0)[2] == made[2]


@pytest.mark.long
def test_images_are_drawn_anew_from_their_captions(tmp_path: Path) -> None:
    data = written(tmp_path, ["a red thing", "a blue thing"])
    model = diffuser(tmp_path / "sd")
    step = MapperStep("image_diffusion_mapper", (("hf_diffusion", model.name), ("strength", 0.04)))
    work = rewriting(data, step)
    assert run(work, [0]) == 1 and work.results(0)[0]["kept"] is None, work.results(0)
    row, left = work.dataset(np.array([0])).reader.read(0, 2)
    assert left == {} and row["text"] == "a red thing"
    with Image.open(row["images"][0]) as new, Image.open(tmp_path / "images" / "0000.png") as old:
        assert new.size == old.size
        assert not np.array_equal(np.asarray(new.convert("RGB")), np.asarray(old.convert("RGB")))
    assert Path(row["images"][0]).is_relative_to(work.folder / "media")


SLOW = """
import sys, time
sys.path.insert(0, {home!r})
import numpy as np
import engine.data.mappers as r
from pathlib import Path
from tests.engine.data.test_mappers import TAGS, rewriting
from engine.data.dataset import Dataset
from engine.settings.data import DatasetSection
r.TEXT_CHUNK = 2
data = Dataset(Path({file!r}), DatasetSection(path="rows.jsonl", text="text", images="images", id="id"))
for start, n, _ in rewriting(data, TAGS).run(np.arange(12), 1):
    print(start, flush=True)
    time.sleep(0.2)
"""


def test_a_killed_rewriting_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.data.mappers.TEXT_CHUNK", 2)
    data = written(tmp_path, [f"<{i}/>" for i in range(12)])
    code = SLOW.format(home=str(ENTRY.parent), file=str(data.path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ENTRY.parent)
    assert process.stdout is not None and process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    work = rewriting(data, TAGS)
    deadline = time.monotonic() + 30
    while any(work.folder.glob(".0*")) and time.monotonic() < deadline:
        time.sleep(0.1)  # its data worker ends with it
    assert 0 < run(work, range(12)) < 12
    read = work.dataset(np.arange(12)).reader.read(0, 12)
    assert [r["text"] for r in read] == [str(i) for i in range(12)]


def test_a_row_that_a_mapper_cannot_read_stays_and_is_counted(tmp_path: Path) -> None:
    data = written(tmp_path, ["one", "two"])
    (tmp_path / "images" / "0001.png").write_bytes(b"no image")
    model = captioner(tmp_path / "blip")
    work = rewriting(data, MapperStep("image_captioning_mapper", (("hf_img2seq", model.name),)))
    run(work, [0, 1])
    assert work.results(0)[1]["text"] is None and sum(work.summary(np.array([0, 1])).kept.values()) == 1


def test_a_failure_without_a_message_counts_and_a_text_that_a_mapper_empties_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    data, rows = written(tmp_path, ["one", "two"]), np.array([0, 1])
    emptied = rewriting(data, MapperStep("remove_specific_chars_mapper", (("chars_to_remove", "onetw"),)))
    run(emptied, [0, 1])
    told = emptied.summary(rows)
    assert (sum(told.kept.values()), failures(told)) == (2, 0)
    monkeypatch.setattr("engine.data.mappers._mapped", broken)
    (tmp_path / "other").mkdir()
    work = replace(emptied, folder=tmp_path / "other")
    _map_chunk((work, 0, [0, 1], 0))
    assert failures(work.summary(rows)) == 2


@pytest.mark.parametrize(
    ("name", "params", "why"),
    [
        ("image_diffusion_mapper", {"hf_diffusion": "m", "strength": 1.5}, "at most 1"),
        ("image_captioning_mapper", {"hf_img2seq": "../m"}, "leads out"),
        ("clean_links_mapper", {"x": 1}, "may not be set"),
    ],
)
def test_a_mappers_parameters_are_checked(tmp_path: Path, name: str, params: dict[str, object], why: str) -> None:
    with pytest.raises(OpError, match=why):
        check_mapper(name, params, tmp_path)


def test_a_recipe_with_mappers_is_applied_by_djsb_and_by_data_juicer_itself(tmp_path: Path) -> None:
    data = written(tmp_path, ["<red> words", "x", "<blue> words"])
    text = recipe_yaml((), data.fields, name="mapped", mappers=(TAGS,))
    text = text.replace("process:\n", "process:\n- text_length_filter: {min_len: 2}\n")
    (tmp_path / "recipe.yaml").write_text(text)
    done = apply_recipe(text, "recipe.yaml", data.path, tmp_path / "ours.jsonl", root=tmp_path)
    assert (done.rows_in, done.rows_out, done.rewritten) == (3, 2, 2)
    ours = [json.loads(line) for line in (tmp_path / "ours.jsonl").read_text().splitlines()]
    assert [r["text"] for r in ours] == ["red words", "blue words"] and ours[0]["images"] == ["images/0000.png"]
    script = Path(sys.executable).with_name("dj-process")
    command = [script, "--config", "recipe.yaml", "--dataset_path", data.path, "--export_path", "theirs.jsonl"]
    plain = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert plain.returncode == 0, plain.stderr[-2000:]
    theirs = [json.loads(line) for line in (tmp_path / "theirs.jsonl").read_text().splitlines()]
    assert [r["text"] for r in theirs] == [r["text"] for r in ours]


@pytest.mark.long
def test_new_images_of_an_applied_recipe_lie_beside_its_output(tmp_path: Path) -> None:
    data = written(tmp_path, ["a red thing"])
    step = MapperStep("image_diffusion_mapper", (("hf_diffusion", "sd"), ("strength", 0.04)))
    diffuser(tmp_path / "sd")
    text = recipe_yaml((), data.fields, name="mapped", mappers=(step,), root=tmp_path)
    assert yaml.safe_load(text)["process"][0]["image_diffusion_mapper"]["caption_key"] == "text"
    (tmp_path / "out").mkdir()
    done = apply_recipe(text, "recipe.yaml", data.path, tmp_path / "out" / "new.jsonl", root=tmp_path)
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "new.jsonl").read_text().splitlines()]
    assert done.rewritten == 1 and row["images"] == ["new-media/0-0.png"]
    assert (tmp_path / "out" / "new-media" / "0-0.png").is_file()


def test_a_filter_after_a_mapper_and_a_model_by_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OpError, match="filters come first"):
        read_recipe("process:\n- clean_links_mapper:\n- text_length_filter: {min_len: 1}\n", "r", tmp_path)
    with pytest.raises(OpError, match="hf_img2seq"):
        read_recipe("process:\n- image_captioning_mapper: {hf_img2seq: Salesforce/blip2-opt-2.7b}\n", "r", tmp_path)
    with pytest.raises(OpError, match="keep_original_sample"):
        read_recipe("process:\n- image_captioning_mapper: {keep_original_sample: true}\n", "r", tmp_path)
