"""Where the rows of a large JSON file stand is looked up once, in little memory, and kept in the study's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.durable import is_whole
from engine.base.errors import DataError
from engine.data.readers import json_rows
from engine.data.readers.contract import BROKEN, Options
from engine.data.readers.json_rows import JsonReader
from engine.data.readers.kept import kept
from tests.engine.data.readers.test_json_rows import JSON, read


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a large one, looked at a few bytes at a time."""
    monkeypatch.setattr(json_rows, "WINDOW", 3)
    monkeypatch.setattr(json_rows, "PLACES", 1)
    monkeypatch.setattr(json_rows, "KEPT", 1)


def written(file: Path, rows: list[Any], listed: bool) -> Path:
    file.write_text(json.dumps(rows, indent=1) if listed else "".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.usefixtures("small")
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=3), max_size=6), listed=st.booleans(),
    space=st.sampled_from(["", " ", "\n", " \n\n\t "]),
)  # fmt: skip
def test_pieces_of_a_file_give_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], listed: bool, space: str
) -> None:
    file = tmp_path_factory.mktemp("rows") / "rows.json"
    texts = [json.dumps(row, indent=1 if listed else None) for row in rows]
    file.write_text(f"{space}[{space}{f'{space},{space}'.join(texts)}{space}]{space}" if listed else "\n".join(texts))
    assert read(file) == rows


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"a": 1}, {"a": 2}', r"entry 2 is not JSON \(the file ends before its \], byte 19"),
        ('[{"a": 1} {"a": 2}]', r"entry 1 is not JSON \(a comma or \] is missing, byte 10"),
        ('[{"a": 1}, {"a": ]', r"entry 1 is not JSON \(Expecting value, byte 11"),
        ('[\n{"a": 1}]\n[{"a": 2}]', r"goes on after the end of its list \(byte 12"),
    ],
)
def test_a_broken_list_names_its_entry_and_its_byte(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text)
    with pytest.raises(DataError, match=told):
        len(JsonReader(file))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("listed", [True, False])
def test_it_is_looked_up_once_for_all_processes(tmp_path: Path, listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"a": n} for n in range(9)]
    file, options = written(tmp_path / "rows.json", rows, listed), Options(index=tmp_path / "index")
    assert JsonReader(file, options).read(0, 9) == rows
    (folder,) = [entry for entry in (tmp_path / "index").iterdir() if entry.is_dir()]
    assert is_whole(folder, sums=True)
    with monkeypatch.context() as patch:
        patch.delattr(json_rows, "_list_places")
        patch.delattr(json_rows, "_line_places")
        patch.setattr(json_rows, "_list_places", None, raising=False)
        patch.setattr(json_rows, "_line_places", None, raising=False)
        assert JsonReader(file, options).read(3, 5) == rows[3:5]
    written(file, [*rows, {"a": 9}], listed)
    os.utime(file, ns=(1, 1))
    assert len(JsonReader(file, options)) == 10
    assert [e for e in (tmp_path / "index").iterdir() if e.is_dir()] != [folder], (
        "what was kept of the old file is gone"
    )


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    file, options = written(tmp_path / "rows.jsonl", [{"a": 1}], False), Options(index=tmp_path / "index")
    with pytest.raises(DataError, match=r"index/rows-\w+-\w+ cannot be written \(No space left on device\); free some"):
        kept([file], "rows", options, full)
    assert [f.name for f in (tmp_path / "index").iterdir()] == [".lock"]


def test_a_row_that_is_too_long_is_a_broken_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "LARGEST", 1000)
    file = written(tmp_path / "rows.jsonl", [{"a": 1}, {"a": "x" * 2000}, {"a": 3}], False)
    rows = JsonReader(file).read(0, 3)
    assert [rows[0], rows[2]] == [{"a": 1}, {"a": 3}]
    assert rows[1] == {BROKEN: "not JSON: it has 2010 bytes, more than 1000"}
    written(file, [{"a": "x" * 2000}], True)
    monkeypatch.setattr(json_rows, "WINDOW", 1)
    with pytest.raises(DataError, match=r"entry 0 is not JSON \(it does not end within 1000 bytes, byte"):
        len(JsonReader(file))


MEASURE = """
import resource, sys
from pathlib import Path
from engine.data.readers.contract import Options
from engine.data.readers.json_rows import JsonReader
from engine.data.readers.kept import kept
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reader = JsonReader(Path(sys.argv[1]), Options(index=Path(sys.argv[2])))
reader.read(len(reader) - 1, len(reader))
print(len(reader), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_list_is_not_loaded(tmp_path: Path) -> None:
    """120 MB of rows take less than half of that, its own index included."""
    file, text = tmp_path / "rows.json", json.dumps({"text": "x" * 1000})
    with file.open("w") as f:
        f.write("[" + ",\n".join([text] * 1000))
        for _ in range(119):
            f.write(",\n" + ",\n".join([text] * 1000))
        f.write("]")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(file), str(tmp_path / "index")], capture_output=True, text=True, check=True
    )
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 120_000 and megabytes < 60, done.stdout
