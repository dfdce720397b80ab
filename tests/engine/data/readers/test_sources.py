"""Several sources as one dataset: rows, names of fields, media, ids, and sources that cannot be read."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.base.errors import DataError, StudyError
from engine.data.dataset import Dataset, as_list
from engine.data.media import locate
from engine.data.readers.sources import SOURCE
from engine.data.scan import scan
from engine.journal.store import Store
from engine.settings.data import DatasetSection
from engine.settings.study import Study, study_yaml
from engine.study.file import parse_study
from tests.conftest import write_jsonl


def section(**fields: Any) -> DatasetSection:
    return DatasetSection.model_validate(fields)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sources with the same ids, the second under names of its own and with media beside it."""
    (tmp_path / "b" / "pictures").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b" / "pictures" / "one.png")
    write_jsonl(tmp_path / "a.jsonl", [{"id": i, "text": f"a {i}", "image": "one.png"} for i in range(5)])
    rows = [{"key": i, "caption": f"b {i}", "text": "alt", "image": "pictures/one.png"} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b" / "rows.parquet")
    return tmp_path


TWO = {
    "images": "image", "id": "id",
    "sources": {"laion": "a.jsonl", "cc3m": {"path": "b/rows.parquet", "text": "caption", "id": "key"}},
}  # fmt: skip


def test_rows_of_all_sources_are_one_row_space_under_one_set_of_names(folder: Path) -> None:
    data = pickle.loads(pickle.dumps(Dataset(folder, section(**TWO))))
    assert len(data) == 8 and data.spans == {"cc3m": range(3), "laion": range(3, 8)}
    rows = data.reader.read(2, 4)
    assert rows[0] == {"id": 2, "text": "b 2", "caption": "alt", "image": "b/pictures/one.png", SOURCE: "cc3m"}
    assert rows[1] == {"id": 0, "text": "a 0", "image": "one.png", SOURCE: "laion"}
    assert data.reader.note == "3 rows of cc3m, 5 rows of laion"
    assert [r["text"] for r in data.take(np.array([0, 0, 7]))] == ["b 0", "b 0", "a 4"]


def test_all_rows_are_good_though_ids_repeat_across_sources(folder: Path) -> None:
    with Store(folder / "study.db") as store:
        found = scan(Dataset(folder, section(**TWO)), store, folder / ".djsb", 1)
    assert found.good.all() and len(set(found.keys.tolist())) == 8


def test_the_order_in_the_file_says_nothing_and_the_content_says_all(folder: Path) -> None:
    first = Dataset(folder, section(**TWO))
    turned = {**TWO, "sources": dict(reversed(TWO["sources"].items()))}  # type: ignore[attr-defined]
    assert Dataset(folder, section(**turned)).fingerprint == first.fingerprint
    renamed = {**TWO, "sources": {"x": "a.jsonl", "cc3m": TWO["sources"]["cc3m"]}}  # type: ignore[index]
    assert Dataset(folder, section(**renamed)).fingerprint != first.fingerprint
    write_jsonl(folder / "a.jsonl", [{"id": 0, "text": "other", "image": "one.png"}])
    assert Dataset(folder, section(**TWO)).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ("gone.jsonl", "dataset.sources.b: no such file"),
        ("empty.jsonl", "dataset.sources.b: "),
        ("empty.parquet", "has no rows; give a file with rows, or take the source out"),
        ("other.jsonl", "has no field 'text'; set dataset.sources.b.text"),
        ({"path": "other.jsonl", "text": "title"}, "has no field 'title'; set dataset.sources.b.text"),
    ],
)  # fmt: skip
def test_a_source_that_is_gone_empty_or_lacks_a_field(folder: Path, second: Any, says: str) -> None:
    (folder / "empty.jsonl").touch()
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "empty.parquet")
    write_jsonl(folder / "other.jsonl", [{"caption": "x"}])
    with pytest.raises(DataError) as caught:
        len(Dataset(folder, section(sources={"a": "a.jsonl", "b": second})))
    assert says in str(caught.value) and "dataset.sources.b" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ({"sources": {"data/laion.jsonl": "x"}}, "'data/laion.jsonl' is no name of a source"),
        ({"sources": {"a b": "x"}}, "'a b' is no name of a source"),
        ({"sources": ["a.jsonl"]}, "give each source a name"),
        ({"path": "x", "sources": {"a": "y"}}, "give path or sources, and not both"),
        ({"sources": {"a": "x", "b": "x"}}, "x stands twice"),
        ({"sources": {"a": ""}}, "dataset.sources.a.path"),
        ({"sources": {"a": "x"}, "split": "train"}, "split belongs to each source"),
        ({"sources": {"a": {"path": "x", "label": "y"}}}, "dataset.sources.a.label: unknown field"),
        ({}, "path is missing; add it, or sources"),
    ],
)  # fmt: skip
def test_sources_that_are_wrong_in_the_study(dataset: dict[str, Any], says: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse_study(study_text(dataset))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def study_text(dataset: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump({"name": "s", "dataset": dataset, "ops": {"text_length_filter": {}}})


def test_a_study_with_sources_is_written_and_read_alike() -> None:
    study = parse_study(study_text(TWO))
    assert parse_study(study_yaml(study)) == study
    plain = Study.model_validate({"name": "s", "dataset": {"path": "x"}, "ops": {}})
    assert "sources:" not in study_yaml(plain)


def test_caches_of_a_study_without_sources_keep_their_keys() -> None:
    fields = DatasetSection(path="d.jsonl", images="image", id="id")
    assert Dataset(Path("d.jsonl"), fields).key == {
        "path": "d.jsonl", "text": "text", "images": "image", "videos": None, "id": "id", "max_bad": 0.2,
    }  # fmt: skip


def test_names_that_stand_in_each_others_way_change_places_and_nothing_is_lost(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"b": "text", "text": "id", "id": "other", "k": 1}])
    data = Dataset(tmp_path, section(id="id", sources={"a": {"path": "a.jsonl", "text": "b", "id": "text"}}))
    assert data.reader.read(0, 1) == [{"text": "text", "id": "id", "b": "other", "k": 1, SOURCE: "a"}]
    assert data.reader.read(0, 1, ["id"])[0]["id"] == "id"
    both = Dataset(tmp_path, section(id="id", sources={"a": {"path": "a.jsonl", "text": "b", "id": "b"}}))
    assert [(row["text"], row["id"]) for row in both.reader.read(0, 1)] == [("text", "text")]


def test_shards_of_a_source_are_read_in_place(folder: Path) -> None:
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "000.tar", "w") as tar:
        for name, content in (("0.txt", b"in a shard"), ("0.png", (folder / "one.png").read_bytes())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    shards = {"path": "shards", "text": "txt", "images": "png"}
    data = Dataset(folder, section(images="image", sources={"a": "a.jsonl", "shards": shards}))
    assert len(data) == 6
    (row,) = data.reader.read(5, 6)
    assert (row["text"], row[SOURCE]) == ("in a shard", "shards")
    assert [locate(value, folder, folder) for value in as_list(row["image"])] == [(folder / "one.png").read_bytes()]


def test_media_in_a_tar_beside_a_source_are_named_with_the_tar(folder: Path) -> None:
    with tarfile.open(folder / "b" / "pictures.tar", "w") as tar:
        tar.add(folder / "b" / "pictures" / "one.png", "pictures/one.png")
    (folder / "b" / "pictures" / "one.png").unlink()
    data = Dataset(folder, section(**TWO, max_bad=0.5))
    with Store(folder / "study.db") as store:
        assert scan(data, store, folder / "state", 1).good.tolist() == [False] * 3 + [True] * 5
        (why,) = {row["reason"] for row in store.query("SELECT reason FROM quarantine")}
    assert why.startswith("missing file b/pictures/one.png: pictures.tar beside source cc3m is not unpacked; unpack it")
