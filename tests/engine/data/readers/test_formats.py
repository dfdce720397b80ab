"""The same rows from every format that opens, one file or several; broken files are one plain line."""

from __future__ import annotations

import gzip
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import zstandard
from pyarrow import csv

from engine.base.errors import DataError
from engine.data.dataset import Dataset
from engine.data.readers import packed
from engine.data.readers.contract import BROKEN, Lines, Options, Tables
from engine.data.readers.json_rows import JsonReader
from engine.data.readers.opening import open_reader
from engine.settings.data import DatasetSection

ROWS: list[dict[str, Any]] = [{"id": n, "text": f"row {n}, ünï", "score": n / 8} for n in range(20)]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def stream(table: pa.Table, file: Path) -> None:
    with pa.ipc.new_stream(str(file), table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


WRITERS: dict[str, Callable[[list[dict[str, Any]], Path], Any]] = {
    ".jsonl": lambda rows, file: file.write_bytes(lines(rows)),
    ".json": lambda rows, file: file.write_text(json.dumps(rows)),
    ".jsonl.gz": lambda rows, file: file.write_bytes(gzip.compress(lines(rows[:5])) + gzip.compress(lines(rows[5:]))),
    ".jsonl.zst": lambda rows, file: file.write_bytes(zstandard.compress(lines(rows))),
    ".json.gz": lambda rows, file: file.write_bytes(gzip.compress(json.dumps(rows).encode())),
    ".csv": lambda rows, file: csv.write_csv(pa.Table.from_pylist(rows), file),
    ".tsv": lambda rows, file: csv.write_csv(pa.Table.from_pylist(rows), file, csv.WriteOptions(delimiter="\t")),
    ".csv.gz": lambda rows, file: csv.write_csv(pa.Table.from_pylist(rows), pa.output_stream(str(file), "gzip")),
    ".parquet": lambda rows, file: pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=6),
    ".feather": lambda rows, file: pa.feather.write_feather(pa.Table.from_pylist(rows), str(file), chunksize=6),
    ".arrow": lambda rows, file: stream(pa.Table.from_pylist(rows), file),
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("head", [False, True])
def test_one_file(tmp_path: Path, suffix: str, head: bool) -> None:
    WRITERS[suffix](ROWS, tmp_path / f"rows{suffix}")
    reader = open_reader(tmp_path / f"rows{suffix}", Options(index=tmp_path / "index", head=head))
    assert reader.read(0, 99) == ROWS and len(reader) == 20
    assert reader.read(7, 9) == ROWS[7:9]
    assert list(reader.files) == [tmp_path / f"rows{suffix}"]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_folder_a_pattern_and_braces(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "data").mkdir()
    for part, rows in enumerate((ROWS[:9], ROWS[9:10], ROWS[10:])):
        WRITERS[suffix](rows, tmp_path / "data" / f"part-{part}{suffix}")
    for path in ("data", f"data/*{suffix}", f"data/part-{{0..2}}{suffix}", f"*/part-{{0,1,2}}{suffix}"):
        reader = open_reader(tmp_path / path, Options(index=tmp_path / "index"))
        assert len(reader) == 20 and reader.read(0, 20) == ROWS
        assert [row for at in range(20) for row in reader.read(at, at + 1)] == ROWS
        assert reader.read(8, 12) == ROWS[8:12]
        assert "3 files" in reader.note
    numbers = np.array([0, 8, 9, 10, 19])
    raw = reader.lines(numbers) if isinstance(reader, Lines) else None
    if raw is not None:
        assert [json.loads(line) for line in b"".join(raw).splitlines()] == [ROWS[n] for n in numbers]
    elif isinstance(reader, Tables):
        for rows in (numbers, np.array([0, 8, 8, 9, 19, 19]), np.arange(20)):  # a row may be repeated
            assert pa.concat_tables(reader.tables(rows)).to_pylist() == [ROWS[n] for n in rows]
    with pytest.raises(DataError, match=r"1 of its 4 files are missing, as part-3"):
        open_reader(tmp_path / f"data/part-{{0..3}}{suffix}")
    data = Dataset(tmp_path / "data", DatasetSection(path="x"), tmp_path / "index")
    assert len(data.fingerprint) == 16


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".feather", ".parquet", ".jsonl.gz"])
def test_splits_are_never_mixed(tmp_path: Path, suffix: str) -> None:
    for name in ("train/0", "train/1", "test/0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        WRITERS[suffix](ROWS[:3], tmp_path / f"{name}{suffix}")
    with pytest.raises(DataError, match=r"several splits: test \(1\), train \(2\).* as \S+/train$"):
        open_reader(tmp_path)
    assert len(open_reader(tmp_path, Options("train"))) == len(open_reader(tmp_path / "train")) == 6
    with pytest.raises(DataError, match=r"no file of the split valid; its files by split: test \(1\), train \(2\)"):
        open_reader(tmp_path, Options("valid"))


def test_splits_with_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train_sft", "train_gen", "test_sft"):
        WRITERS[".parquet"](ROWS, tmp_path / f"data/{name}-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"test_sft \(1\), train_gen \(1\), train_sft \(1\)"):
        open_reader(tmp_path)
    assert len(open_reader(tmp_path, Options("train_sft"))) == 20


def test_shards_of_other_fields(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".csv", ".feather"):
        folder = tmp_path / suffix
        folder.mkdir()
        WRITERS[suffix](ROWS, folder / f"a{suffix}")
        WRITERS[suffix]([{**row, "label": "x"} for row in ROWS], folder / f"b{suffix}")
        assert open_reader(folder).note == "2 files, 1 of them without label"
        WRITERS[suffix]([{"id": 1, "words": "x"}], folder / f"c{suffix}")
        with pytest.raises(DataError, match=rf"c\{suffix} has fields that other files lack \(words\), and lacks"):
            open_reader(folder)


def test_several_formats_in_a_folder_are_refused(tmp_path: Path) -> None:
    WRITERS[".jsonl"](ROWS, tmp_path / "a.jsonl")
    WRITERS[".csv"](ROWS, tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"files of several formats \(a\.jsonl, b\.csv"):
        open_reader(tmp_path)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".csv.gz", ".feather", ".arrow", ".parquet"])
def test_a_file_cut_short_is_one_line(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"rows{suffix}"
    rows = [{"id": n, "text": str(random.Random(n).random())} for n in range(5000)]
    WRITERS[suffix](rows, file)
    whole = file.read_bytes()
    for cut in (len(whole) - 3, len(whole) // 2, 12):
        file.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"rows\S+( is|: rows\S+ cannot|.* cannot) ") as caught:
            open_reader(file, Options(index=tmp_path / "index"))
        assert "\n" not in str(caught.value), caught.value


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"text": "a"}\n' + b" " * (1 << 24)))
    monkeypatch.setattr(packed, "LOOSE", 1 << 20)
    with pytest.raises(DataError, match="unpacks to more than 250 times its"):
        open_reader(file, Options(index=tmp_path / "index"))
    assert not [f for f in (tmp_path / "index").iterdir() if f.is_dir()], "nothing of it is left"


def test_a_disk_that_is_too_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[".jsonl.gz"](ROWS, tmp_path / "rows.jsonl.gz")
    monkeypatch.setattr(packed, "SPARE", 1 << 60)
    with pytest.raises(DataError, match=r"whose disk has \d+\.\d GB left after .* of it; free some space"):
        open_reader(tmp_path / "rows.jsonl.gz", Options(index=tmp_path / "index"))


def test_what_is_unpacked_is_made_once_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[".jsonl.gz"](ROWS, tmp_path / "rows.jsonl.gz")
    options = Options(index=tmp_path / "index")
    assert open_reader(tmp_path / "rows.jsonl.gz", options).note == "unpacked in the study's cache, 0.0 MB"
    monkeypatch.setattr(packed, "unpacked", None)
    assert isinstance(open_reader(tmp_path / "rows.jsonl.gz", options), JsonReader)


def test_workers_use_what_a_command_without_a_study_has_unpacked(tmp_path: Path) -> None:
    WRITERS[".jsonl.gz"](ROWS, tmp_path / "rows.jsonl.gz")
    data = Dataset(tmp_path / "rows.jsonl.gz", DatasetSection(path="x"))
    assert len(data) == 20 and data.index is None
    sent = pickle.loads(pickle.dumps(data))
    assert sent == data and sent.index is not None and list(sent.index.glob("unpacked-*"))


def table(tmp_path: Path, text: str | bytes, name: str = "rows.csv", max_bad: float = 0.0) -> Any:
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return open_reader(file, Options(max_bad=max_bad))


def test_tables_are_typed_by_all_their_values(tmp_path: Path) -> None:
    text = 'id;text;n;flag;uid;zip\n1;"a; ""b""\nc";0.5;True;12345678901234567890;007\n2;d;;False;1;12\n3;e;nan;;2;\n'
    reader = table(tmp_path, text)
    assert reader.read(0, 3) == [
        {"id": 1, "text": 'a; "b"\nc', "n": 0.5, "flag": True, "uid": "12345678901234567890", "zip": "007"},
        {"id": 2, "text": "d", "n": None, "flag": False, "uid": "1", "zip": "12"},
        {"id": 3, "text": "e", "n": None, "flag": None, "uid": "2", "zip": ""},
    ]


def test_a_column_half_numbers_is_told(tmp_path: Path) -> None:
    reader = table(tmp_path, "text,score\na,1\nb,2\nc,high\nd,n/a\n")
    assert reader.note == "score is text, as 1 of 3 values are no numbers ('high')"
    assert [row["score"] for row in reader.read(0, 4)] == ["1", "2", "high", "n/a"]


def test_quotes_that_would_join_lines_are_letters(tmp_path: Path) -> None:
    reader = table(tmp_path, 'caption\turl\n"a\tu1\n"b\tu2\nc\tu3\n', "rows.tsv")
    assert [row["caption"] for row in reader.read(0, 3)] == ['"a', '"b', "c"]
    assert reader.note == "quotes are letters, as they would join lines"


def test_lines_of_other_columns_are_counted_or_refused(tmp_path: Path) -> None:
    text = "id,text\n1,a\n2\n3,b\n4,c,d\n"
    assert table(tmp_path, text, max_bad=0.5).left_out == (("lines of other columns", 2),)
    with pytest.raises(DataError, match="2 of 4 lines have another number of columns"):
        table(tmp_path, text, max_bad=0.4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"is no table \(Empty CSV file\)"),
        (b"text,a\n\xff\xfa,b\n", r"is no table \(.*invalid UTF8"),
        ("a,a\n1,2\n", "several columns of the name 'a'"),
        ("text,a\n".encode("utf-16"), "is UTF-16"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        table(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_no_file_of_many_stays_open(tmp_path: Path) -> None:
    for part in range(40):
        WRITERS[".parquet"](ROWS[:3], tmp_path / f"{part:02d}.parquet")
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader = open_reader(tmp_path)
    assert len(reader.read(0, 120, {"id"})) == 120 and reader.note == "40 files"
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 10


def spoiled(file: Path) -> None:
    """Bytes in the middle of a text are no UTF-8."""
    content = file.read_bytes()
    at = content.index(b"row 2 of") + 2
    file.write_bytes(content[:at] + b"\xff\xfe" + content[at + 2 :])


def test_rows_of_arrow_files_that_hold_no_text_are_bad_and_the_others_go_on(tmp_path: Path) -> None:
    import datasets

    table = pa.table({"id": list(range(5)), "text": [f"row {i} of five" for i in range(5)]})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    datasets.Dataset(table).save_to_disk(str(tmp_path / "saved"))
    spoiled(tmp_path / "a.arrow")
    spoiled(next((tmp_path / "saved").glob("*.arrow")))
    for name in ("a.arrow", "saved"):
        reader = open_reader(tmp_path / name)
        rows = reader.read(0, 5)
        assert [row.get("id") for row in rows] == [0, 1, None, 3, 4]
        assert rows[2][BROKEN].startswith("unreadable row of an Arrow file: ")
    reader = open_reader(tmp_path / "a.arrow")
    assert isinstance(reader, Tables)
    (kept,) = reader.tables(np.array([0, 1, 4]))
    assert kept["id"].to_pylist() == [0, 1, 4]
    with pytest.raises(DataError, match=r"a\.arrow is broken"):
        list(reader.tables(np.array([1, 2])))
