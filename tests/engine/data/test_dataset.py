"""Datasets: the same rows from every kind of file, row by row, and files that are none."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.base.errors import DataError
from engine.data.dataset import Dataset, as_list
from engine.data.images import open_image
from engine.data.media import locate
from engine.data.readers.contract import BROKEN
from engine.data.readers.json_rows import JsonReader
from engine.data.readers.opening import open_reader
from engine.settings.data import DatasetSection
from tests.conftest import write_jsonl

ROWS: list[dict[str, Any]] = [{"id": i, "text": f"row {i} – 数据\t{'x' * (i % 7)}", "n": [i, i + 1]} for i in range(25)]


def jsonl(folder: Path) -> Path:
    return write_jsonl(folder / "rows.jsonl", ROWS)


def parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet", row_group_size=7)
    return folder / "rows.parquet"


def parquet_parts(folder: Path) -> Path:
    (folder / "parts").mkdir()
    for name, part in (("0", ROWS[:10]), ("1", ROWS[10:11]), ("2", ROWS[11:])):
        pq.write_table(pa.Table.from_pylist(part), folder / "parts" / f"part-{name}.parquet", row_group_size=4)
    return folder / "parts"


def hugging_face(folder: Path) -> Path:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "hf")
    return folder / "hf"


def hugging_face_splits(folder: Path) -> Path:
    import datasets

    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(folder / "hfd")
    return folder / "hfd"


@pytest.mark.parametrize("make", [jsonl, parquet, parquet_parts, hugging_face, hugging_face_splits])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    reader = open_reader(make(tmp_path))
    assert len(reader) == 25
    assert reader.read(0, 25) == ROWS
    for start, stop in ((0, 1), (3, 9), (6, 7), (10, 11), (24, 25), (5, 5)):
        assert reader.read(start, stop) == ROWS[start:stop]


@pytest.mark.parametrize("make", [jsonl, parquet_parts, hugging_face])
def test_a_dataset_takes_rows_by_number_and_can_be_sent_to_a_worker(
    tmp_path: Path, make: Callable[[Path], Path], text_fields: DatasetSection
) -> None:
    data = pickle.loads(pickle.dumps(Dataset(make(tmp_path), text_fields)))
    assert list(data.chunks(10)) == [(0, 10), (10, 20), (20, 25)]
    assert list(data.take(np.array([0, 3, 4, 24]))) == [ROWS[i] for i in (0, 3, 4, 24)]
    assert list(data.take(np.array([], np.int64))) == []


def test_rows_are_taken_across_blocks(tmp_path: Path, text_fields: DatasetSection) -> None:
    rows = [{"id": i, "text": "x"} for i in range(9000)]
    data = Dataset(write_jsonl(tmp_path / "rows.jsonl", rows), text_fields)
    wanted = np.array([0, 4095, 4096, 8191, 8192, 8999])
    assert [r["id"] for r in data.take(wanted)] == wanted.tolist()


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}\n{"a": 2}\n{"a": 3}\n',
        '{"a": 1}\n{"a": 2}\n{"a": 3}',
        '{"a": 1}\r\n{"a": 2}\r\n{"a": 3}\r\n',
        '{"a": 1}\r\n\r\n{"a": 2}\r\n\r\n\r\n{"a": 3}',
        '\n\n{"a": 1}\n\n{"a": 2}\n \n{"a": 3}\n\n\n',
    ],
    ids=["plain", "no last newline", "CRLF", "CRLF and blank lines", "blank lines"],
)
def test_line_ends_and_blank_lines_are_no_rows(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(text.encode())
    reader = JsonReader(file)
    assert len(reader) == 3
    assert reader.read(0, 3) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [reader.read(i, i + 1) for i in range(3)] == [[{"a": 1}], [{"a": 2}], [{"a": 3}]]


@given(st.lists(st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=5)), max_size=12), st.booleans())
def test_what_was_written_line_by_line_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str] | None], last: bool
) -> None:
    file = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    text = "\n".join("" if row is None else json.dumps(row) for row in rows) + ("\n" if last else "")
    file.write_text(text)
    reader = JsonReader(file)
    wanted = [row for row in rows if row is not None]
    assert len(reader) == len(wanted)
    assert reader.read(0, len(wanted)) == wanted


def test_lines_beyond_one_block_are_found(tmp_path: Path) -> None:
    rows = [{"a": "x" * (9 << 20)}, {"a": "y" * (9 << 20)}, {"a": "z"}]  # blocks are 16 MiB
    reader = JsonReader(write_jsonl(tmp_path / "rows.jsonl", rows))
    assert len(reader) == 3
    assert reader.read(1, 3) == rows[1:]


def test_a_broken_line_is_a_row_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    deep = "[" * 100_000
    file.write_bytes(f'{{"a": 1}}\n{{"a": \n5\n"text"\n{deep}\n{{"a": 2}}\n'.encode() + b'{"a": "\xff"}\n')
    rows = open_reader(file).read(0, 7)
    assert rows[0] == {"a": 1}
    assert rows[5] == {"a": 2}
    assert [row[BROKEN][:8] for row in rows if BROKEN in row] == [
        "not JSON",
        "not a JS",
        "not a JS",
        "not JSON",
        "not JSON",
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "ndjson"])
def test_an_empty_file_has_no_rows(tmp_path: Path, suffix: str) -> None:
    for content in ("", "\n\n", " \n"):
        (tmp_path / f"rows.{suffix}").write_text(content)
        with pytest.raises(DataError, match="has no rows; give a file with one JSON object a line"):
            open_reader(tmp_path / f"rows.{suffix}")


def test_an_empty_parquet_file_has_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    assert len(open_reader(tmp_path / "rows.parquet")) == 0


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"no parquet" * 100)
    (tmp_path / "rows.xml").write_text("<rows/>")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.jsonl").write_text("[\n[1]\n]\n")
    for name, says in (
        ("gone.jsonl", "no such file"),
        ("rows.parquet", "cannot be read"),
        ("rows.xml", "unknown kind of file; JSON lines, Parquet, CSV, TSV, Arrow, tar"),
        ("empty", "holds no data set that can be read"),
        ("list.jsonl", "is not JSONL"),
    ):
        with pytest.raises(DataError, match=says) as caught:
            open_reader(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_dataset_without_a_train_split_names_its_splits(tmp_path: Path) -> None:
    import datasets

    datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "hf")
    with pytest.raises(DataError, match=r"has the splits test; name one of them as dataset\.split"):
        open_reader(tmp_path / "hf")


def _png(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(out, "PNG")
    return out.getvalue()


def test_images_as_bytes_are_read_from_parquet_and_hugging_face(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    images = [_png("red"), _png("blue")]
    plain = [{"text": "a", "image": data} for data in images]
    nested = [{"text": "a", "image": {"bytes": data, "path": "x.png"}} for data in images]
    listed = [{"text": "a", "image": [{"bytes": data, "path": None}]} for data in images]
    for name, rows in (("plain", plain), ("nested", nested), ("listed", listed)):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    features = datasets.Features({"text": datasets.Value("string"), "image": datasets.Image()})
    datasets.Dataset.from_list(plain, features).save_to_disk(tmp_path / "hf")
    features = datasets.Features({"text": datasets.Value("string"), "image": datasets.List(datasets.Image())})
    datasets.Dataset.from_list(listed, features).save_to_disk(tmp_path / "hf-list")
    for name in ("plain.parquet", "nested.parquet", "listed.parquet", "hf", "hf-list"):
        rows = open_reader(tmp_path / name).read(0, 2)
        sources = [locate(as_list(row["image"])[0], tmp_path, tmp_path) for row in rows]
        assert sources == images, name
        assert open_image(sources[1]).getpixel((0, 0)) == (0, 0, 255)


def test_the_fingerprint_follows_the_content(tmp_path: Path, text_fields: DatasetSection) -> None:
    def fingerprint(rows: list[dict[str, Any]], name: str) -> str:
        return Dataset(write_jsonl(tmp_path / name, rows), text_fields).fingerprint

    assert fingerprint(ROWS, "a.jsonl") == fingerprint(ROWS, "b.jsonl")
    assert fingerprint(ROWS, "a.jsonl") != fingerprint(ROWS[:-1], "a.jsonl")
    parts = parquet_parts(tmp_path)
    before = Dataset(parts, text_fields).fingerprint
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), parts / "part-3.parquet")
    assert Dataset(parts, text_fields).fingerprint != before


@pytest.mark.parametrize(("value", "listed"), [(None, []), ("", []), ("a", ["a"]), (["a", "b"], ["a", "b"]), ((), [])])
def test_one_path_or_many(value: Any, listed: list[Any]) -> None:
    assert as_list(value) == listed
