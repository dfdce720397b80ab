"""`djsb init` on data as people have it: `djsb check` accepts what it writes; addresses of images are no text study."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.commands.check import check
from app.commands.init import write_study
from engine.base.errors import DataError, DjsbError, StudyError
from engine.data.addressed import picture_addresses
from engine.study.file import read_study
from tests import layouts
from tests.conftest import make_rows, run_djsb
from tests.engine.data.readers.test_formats import WRITERS
from tests.engine.tasks.vlm.test_benchmarks import picture

TEXTS = [{"id": n, "text": f"a row of text, number {n} of {'many ' * (n % 5)}rows"} for n in range(60)]


def silent(*_: Any) -> None:
    pass


def accepted(folder: Path) -> dict[str, Any]:
    """What `check` finds; there is no problem."""
    found = check(folder, 1, silent)
    assert found["problems"] == [], found["problems"]
    return found


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with the data set a/b."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    place = cache / "datasets--a--b"
    snapshot = place / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    (snapshot / "data").mkdir()
    for split, rows in (("train", TEXTS), ("test", TEXTS[:7])):
        pq.write_table(pa.Table.from_pylist(rows), snapshot / f"data/{split}-00000-of-00001.parquet")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    return cache


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_is_a_study_that_check_accepts(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](TEXTS, tmp_path / f"rows{suffix}")
    write_study(tmp_path / "study", tmp_path / f"rows{suffix}", None, None, force=False)
    found = accepted(tmp_path / "study")
    assert found["inputs"][0]["used"] == 60, found["inputs"]
    assert read_study(tmp_path / "study").dataset.path == f"../rows{suffix}"


def test_splits_of_a_folder_are_named_or_asked_for(tmp_path: Path) -> None:
    for split, rows in (("train", TEXTS), ("test", TEXTS[:9])):
        (tmp_path / "set" / split).mkdir(parents=True)
        WRITERS[".jsonl"](rows, tmp_path / "set" / split / "0.jsonl")
    data = tmp_path / "set"
    with pytest.raises(DataError, match=r"several splits: test .*; name one of them as --split"):
        write_study(tmp_path / "study", data, None, None, force=False)
    with pytest.raises(StudyError, match="is the training data itself"):
        write_study(tmp_path / "study", data, data, None, False, "train", "train")
    write_study(tmp_path / "study", data, data, None, False, "train", "test")
    study = read_study(tmp_path / "study")
    assert (study.task, study.dataset.split, study.evaluation.split) == ("lm", "train", "test")


def test_a_saved_dataset_dict_without_train_asks(tmp_path: Path) -> None:
    saved = datasets.DatasetDict({n: datasets.Dataset.from_list(TEXTS) for n in ("one", "two")})
    saved.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"has the splits one, two; name one of them as dataset\.split"):
        write_study(tmp_path / "study", tmp_path / "saved", None, None, force=False)
    write_study(tmp_path / "study", tmp_path / "saved", None, None, False, "two")
    assert accepted(tmp_path / "study")["inputs"][0]["used"] == 60


def test_the_hub_by_its_cache(tmp_path: Path, hub: Path) -> None:
    name = Path("hf://datasets/a/b")  # as typer gives it
    write_study(tmp_path / "study", name, name, None, False, "train", "test")
    study = read_study(tmp_path / "study")
    assert study.dataset.path == study.evaluation.path == "hf://datasets/a/b"
    assert accepted(tmp_path / "study")["inputs"][0]["used"] == 60
    write_study(tmp_path / "part", Path("hf://datasets/a/b/data/train-*.parquet"), None, None, False)
    assert accepted(tmp_path / "part")["inputs"][0]["used"] == 60


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hf://datasets/a/c", "fetch it: hf download a/c --repo-type dataset$"),
        ("hf://datasets/a/b@v2", "fetch it: hf download a/b --repo-type dataset --revision v2$"),
        (
            "hf://datasets/a/b/gone.csv",
            "gone.csv is not on this machine; fetch it: hf download a/b --repo",
        ),
        ("hf://datasets/a/b/../../../x", "leads out of its data set"),
        ("hf://models/a", "names no data set; write hf://datasets/OWNER/NAME"),
        ("ftp://a/b", "addresses of ftp are not read"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_is_not_on_this_machine_is_one_line_with_the_command(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(DjsbError, match=told) as caught:
        write_study(tmp_path / "study", Path(name), None, None, force=False)
    assert "\n" not in str(caught.value)


def test_a_file_by_its_address(tmp_path: Path) -> None:
    WRITERS[".jsonl"](TEXTS, tmp_path / "my rows.jsonl")
    address = (tmp_path / "my rows.jsonl").as_uri()
    write_study(tmp_path / "study", Path(address), None, None, force=False)
    assert read_study(tmp_path / "study").dataset.path == address
    assert accepted(tmp_path / "study")["inputs"][0]["used"] == 60


LAION = [
    {"URL": f"https://example.org/{n}.jpg?w=1", "TEXT": f"picture {n} of a dog", "WIDTH": 4, "similarity": 0.3}
    for n in range(40)
]
DATACOMP = [
    {"uid": f"{n:032x}", "url": f"http://example.org/{n}", "text": f"picture {n}", "original_width": 640, "sha256": "0"}
    for n in range(40)
]


@pytest.mark.parametrize(("rows", "columns"), [(LAION, ("URL", "TEXT")), (DATACOMP, ("url", "text"))])
def test_addresses_of_images_are_no_text_study_unasked(tmp_path: Path, rows: Any, columns: tuple[str, str]) -> None:
    file, held = tmp_path / "meta.parquet", tmp_path / "held.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    pq.write_table(pa.Table.from_pylist(rows[:5]), held)
    with pytest.raises(DataError, match="has addresses of images") as caught:
        write_study(tmp_path / "study", file, held, None, force=False)
    assert "\n" not in str(caught.value) and "--task lm" in str(caught.value)
    command = shlex.split(str(caught.value).split("--data: ")[1].split(" – ")[0])
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert command[0] == "img2dataset" and (options["--url_col"], options["--caption_col"]) == columns
    assert options["--url_list"] == str(file) and options["--input_format"] == "parquet"
    assert set(json.loads(options["--save_additional_columns"])) == set(rows[0]) - set(columns)
    write_study(tmp_path / "study", file, held, "lm", force=False)
    assert read_study(tmp_path / "study").task == "lm"
    assert any("has addresses of images that are not here" in text for text in accepted(tmp_path / "study")["findings"])


def test_addresses_of_pages_are_beside_texts() -> None:
    rows = [{"text": "a page of the web", "url": f"https://example.org/page/{n}", "timestamp": "x"} for n in range(9)]
    assert picture_addresses(rows) is None
    assert picture_addresses([{**row, "image_url": "https://example.org/a"} for row in rows]) == "image_url"


def test_conversations_with_images_suit_vlm(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, "in", 40, 0)
    talks = [
        {"id": str(row["id"]), "image": row["images"][0],
         "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": row["text"]}]}
        for row in rows
    ]  # fmt: skip
    file = tmp_path / "llava.json"
    file.write_text(json.dumps(talks))
    _, notes = write_study(tmp_path / "plain", file, None, None, force=False)
    assert any("suit task vlm: name a file of TextVQA" in note for note in notes)
    found = accepted(tmp_path / "plain")
    assert found["inputs"][0]["used"] == 40 and "text written from conversations" in found["inputs"][0]["line"]
    picture(tmp_path / "train_images" / "a.png")
    asked = {"data": [{"image_id": "a", "question": "Is it red?", "answers": ["yes"] * 10, "question_id": 1}] * 4}
    (tmp_path / "TextVQA_val.json").write_text(json.dumps(asked))
    write_study(tmp_path / "study", file, tmp_path / "TextVQA_val.json", None, force=False)
    study = read_study(tmp_path / "study")
    assert (study.task, study.evaluation.benchmarks) == ("vlm", {"textvqa": "../TextVQA_val.json"})


def test_the_command_line_takes_an_address_and_splits(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "set", ignore_errors=True)
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
        WRITERS[".csv"](TEXTS, tmp_path / "set" / split / "0.csv")
    done = run_djsb("init", tmp_path / "study", "--data", (tmp_path / "set").as_uri(), "--split", "train")
    assert done.returncode == 0, done.stderr
    assert run_djsb("check", tmp_path / "study").returncode == 0


def test_the_index_of_shards_is_kept_for_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = layouts.one_tar(tmp_path, layouts.rows(60, 0))
    write_study(tmp_path / "study", Path(data), None, None, force=False)
    monkeypatch.setattr("engine.data.readers.shards._looked", None)  # it is not made again
    assert accepted(tmp_path / "study")["inputs"][0]["used"] == 60
