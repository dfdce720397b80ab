"""Rows in a file of their own: Parquet refuses in one line what its columns cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.base.durable import replaced
from engine.base.errors import DataError
from engine.data.dataset import Dataset
from engine.data.rows_file import write_rows
from engine.settings.data import DatasetSection
from engine.tasks.command.pool_file import write_pool
from tests.conftest import write_jsonl

Write = Callable[[Dataset, Path], object]


def exported(data: Dataset, out: Path) -> None:
    with replaced(out) as scratch:
        write_rows(data, np.arange(len(data)), scratch, form="parquet")


def pooled(data: Dataset, out: Path) -> None:
    write_pool("parquet", data, out.parent, np.arange(len(data)), 1, out.parent / "pool")


def dataset(folder: Path, ids: list[Any]) -> Dataset:
    file = write_jsonl(folder / "d.jsonl", [{"id": i, "text": "a text"} for i in ids])
    return Dataset(file, DatasetSection(path="d.jsonl", id="id"))


@pytest.mark.parametrize(("write", "name"), [(exported, "out.parquet"), (pooled, "command.format: parquet")])
@pytest.mark.parametrize("ids", [[1, "s2", 3], ["s"] * 5000 + [1], [2**70, 1], [{"a": 1}, 2]], ids=str)
def test_mixed_ids_are_refused_in_one_line(tmp_path: Path, write: Write, name: str, ids: list[Any]) -> None:
    with pytest.raises(DataError, match=rf"^{name} cannot hold the rows \(.*\); write a \.jsonl file instead$"):
        write(dataset(tmp_path, ids), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_file_of_any_name_is_written_in_the_form_that_is_named(tmp_path: Path) -> None:
    exported(dataset(tmp_path, [1, 2, None]), tmp_path / "out.dat")
    assert pq.read_table(tmp_path / "out.dat")["id"].to_pylist() == [1, 2, None]


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_rows_that_nobody_changes_are_copied_as_they_lie(tmp_path: Path, form: str) -> None:
    """Also one that stands twice, the last line without an end, and lines that JSON would write otherwise."""
    lines = [b'{"id": 1,   "text": "a"}', b"", '{"text": "é", "id": 2}'.encode(), b'{"id":3,"text":"\\u00e9"}']
    (tmp_path / "d.jsonl").write_bytes(b"\n".join(lines))
    data = Dataset(tmp_path / "d.jsonl", DatasetSection(path="d.jsonl", id="id"))
    out = tmp_path / "out"
    write_rows(data, np.array([0, 1, 1, 2]), out, form=form)
    if form == "parquet":
        assert pq.read_table(out).to_pylist() == [
            {"id": i, "text": t} for i, t in zip((1, 2, 2, 3), "aééé", strict=True)
        ]
        return
    with pa.input_stream(out, compression={"jsonl.gz": "gzip", "jsonl.zst": "zstd"}.get(form)) as file:
        assert file.read() == b"".join(line + b"\n" for line in (lines[0], lines[2], lines[2], lines[3]))


def test_columns_of_parquet_shards_are_copied_with_what_some_lack(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([1, 2], pa.int16()), "text": ["a", "b"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["c", "d"], "score": [0.5, None]}), tmp_path / "b.parquet", row_group_size=1)
    data = Dataset(tmp_path, DatasetSection(path="."))
    write_rows(data, np.array([1, 2, 2, 3]), tmp_path / "out", form="parquet")
    table = pq.read_table(tmp_path / "out")
    assert table.to_pylist() == [
        {"id": 2, "text": "b", "score": None},
        *([{"id": None, "text": "c", "score": 0.5}] * 2),
        {"id": None, "text": "d", "score": None},
    ]
    assert table.schema.field("id").type == pa.int16()
