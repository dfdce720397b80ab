"""Of a folder with several splits one is read, never all as one; shards of other columns are told or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.base.errors import DataError, StudyError
from engine.data.dataset import Dataset
from engine.data.fingerprints import content_hash
from engine.data.readers.contract import BROKEN, Options
from engine.data.readers.opening import open_reader
from engine.settings.data import DatasetSection
from engine.study.opened import open_study
from tests.conftest import Tiny


def shards(folder: Path, *names: str, rows: Sequence[dict[str, Any]] = ({"text": "x"},)) -> Path:
    """Parquet files whose rows say where they stand."""
    folder.mkdir(exist_ok=True)
    for name in names:
        pq.write_table(pa.Table.from_pylist([{**row, "in": name} for row in rows]), folder / name)
    return folder


def read(path: Path, split: str | None = None) -> list[str]:
    reader = open_reader(path, Options(split))
    return [row["in"] for row in reader.read(0, len(reader))]


@pytest.mark.parametrize(
    "names",
    [
        ("test-00000-of-00001.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"),
        ("test.parquet", "train_0.parquet", "train_1.parquet"),
        ("my.validation.parquet", "my.train.0.parquet", "my.train.1.parquet"),
        ("part-0-val.parquet", "part-0-train.parquet", "part-1-train.parquet"),
    ],
)
def test_train_and_other_shards_are_not_read_as_one(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = shards(tmp_path / "data", *names)
    for path in (folder, folder / "*.parquet"):
        with pytest.raises(
            DataError, match=r"holds files of several splits: .*train \(2\).*set dataset\.split"
        ) as caught:
            open_reader(path)
        assert "\n" not in str(caught.value)
        assert read(path, "train") == sorted(names[1:])
    assert read(folder, "test" if "test" in names[0] else "validation") == [names[0]]
    with pytest.raises(DataError, match="no file of the split held; its files by split"):
        open_reader(folder, Options("held"))


def test_the_path_that_is_proposed_reads_the_split(tmp_path: Path) -> None:
    folder = shards(tmp_path / "data", "test-0.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet")
    with pytest.raises(DataError) as caught:
        open_reader(folder)
    like = Path(str(caught.value).rsplit(" as ", 1)[1])
    assert like == folder / "train*.parquet"
    assert len(open_reader(like)) == 2


def test_files_of_no_split_are_one_dataset(tmp_path: Path) -> None:
    folder = shards(tmp_path / "data", "contest-0.parquet", "latest.parquet", "pretrained.parquet")
    assert len(open_reader(folder)) == 3
    shards(folder, "test.parquet")
    with pytest.raises(DataError, match=r"test \(1\), without a split in their names \(3\)"):
        open_reader(folder)


def test_a_split_and_a_pattern_of_the_same_files_are_the_same_data(tmp_path: Path) -> None:
    folder = shards(tmp_path / "data", "train-0.parquet", "train-1.parquet")
    alone = Dataset(folder, DatasetSection(path="x"))
    assert alone.fingerprint == content_hash(folder)  # as it always was
    shards(folder, "test-0.parquet")
    named = Dataset(folder, DatasetSection(path="x", split="train"))
    pattern = Dataset(folder / "train-*.parquet", DatasetSection(path="x"))
    assert alone.fingerprint == named.fingerprint == pattern.fingerprint
    assert named.key == pattern.key


def test_shards_that_lack_columns_are_told_and_others_refused(tmp_path: Path) -> None:
    folder = shards(tmp_path / "data", "a.parquet", "b.parquet")
    shards(folder, "c.parquet", rows=[{"text": "y", "label": 3}])
    assert open_reader(folder).note == "3 files, 2 of them without label"
    shards(folder, "d.parquet", rows=[{"text": 5}])
    with pytest.raises(
        DataError, match=r"d\.parquet has other columns than the files before it \(.*text.*; give files"
    ):
        open_reader(folder)


def test_a_saved_dataset_reads_the_named_split(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    parts = {name: datasets.Dataset.from_list([{"in": name}]) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved") == ["train"]
    assert open_reader(tmp_path / "saved").note == "split train, not test"
    assert read(tmp_path / "saved", "test") == ["test"]
    with pytest.raises(DataError, match=r"has the splits train, test; name one of them as dataset\.split"):
        open_reader(tmp_path / "saved", Options("validation"))
    test, train = (Dataset(tmp_path / "saved", DatasetSection(path="x", split=name)) for name in ("test", "train"))
    assert test.fingerprint != train.fingerprint


def test_evaluation_rows_of_a_saved_dataset_need_a_split(tiny: Tiny) -> None:
    import datasets

    rows = datasets.load_dataset("json", data_files=str(tiny.test_file), split="train", cache_dir=str(tiny.root / "hf"))
    datasets.DatasetDict({"train": rows, "test": rows.select(range(30))}).save_to_disk(tiny.study.parent / "saved")
    tiny.set({"evaluation": {"path": "../saved"}})
    with (study := open_study(tiny.study, 1)).store, pytest.raises(StudyError, match=r"evaluation\.split to one"):
        _ = study.evaluation
    tiny.set({"evaluation": {"path": "../saved", "split": "test"}})
    with (study := open_study(tiny.study, 1)).store:
        assert len(study.evaluation) == 30


def test_a_shard_that_cannot_be_read_is_left_out_up_to_the_limit(tmp_path: Path) -> None:
    folder = shards(tmp_path / "data", *(f"part-{n}.parquet" for n in range(6)))
    (folder / "part-3.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(
        DataError, match=r"data: part-3\.parquet cannot be read \(.*\); 1 of 6 files are so, check them"
    ):
        open_reader(folder)
    data = Dataset(folder, DatasetSection(path="x"))
    assert len(data) == 5
    assert data.reader.note.startswith("5 files, 1 files left out: part-3.parquet cannot be read (")
    with pytest.raises(DataError, match="1 of 6 files are so"):
        len(Dataset(folder, DatasetSection(path="x", max_bad=0.1)))


def test_rows_of_a_broken_part_are_bad_and_the_others_are_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    rows = [{"id": n, "text": f"row {n:03d} " + "x" * 50} for n in range(90)]
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=30, compression="none", use_dictionary=False)
    content = bytearray(file.read_bytes())
    at = content.index(b"row 040")
    content[at - 4 : at] = b"\xff\xff\xff\x7f"  # the length of a text: more than there is
    file.write_bytes(content)
    read = open_reader(file).read(0, 90)
    assert read[:30] + read[60:] == rows[:30] + rows[60:]
    assert all(row[BROKEN].startswith("unreadable part of a Parquet file: ") for row in read[30:60])
