"""JSON files of rows: a line or a list, with a BOM or without, are the same rows; what is neither is one plain line."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import DataError
from engine.data.readers.contract import BROKEN
from engine.data.readers.json_rows import JsonReader, entries

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def read(file: Path) -> list[Any]:
    """All rows, each by itself."""
    reader = JsonReader(file)
    assert reader.read(0, len(reader)) == [row for i in range(len(reader)) for row in reader.read(i, i + 1)]
    return reader.read(0, len(reader))


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=3), max_size=6),
    bom=st.booleans(), listed=st.booleans(), indent=st.sampled_from([None, 1, "\t"]), letters=st.booleans(),
)  # fmt: skip
def test_a_list_and_lines_are_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], bom: bool, listed: bool, indent: Any, letters: bool
) -> None:
    file = tmp_path_factory.mktemp("rows") / "rows.json"
    text = (
        json.dumps(rows, indent=indent, ensure_ascii=letters) if listed else "".join(json.dumps(r) + "\n" for r in rows)
    )
    file.write_bytes((codecs.BOM_UTF8 if bom else b"") + text.encode("utf-8", "surrogatepass"))
    assert read(file) == rows


def test_places_name_the_line_or_the_entry(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text('\n{"a": 1}\n\n{"a": 2}\n')
    assert [place for place, _ in entries(file)] == [f"{file}, line 2", f"{file}, line 4"]
    assert JsonReader(file).left_out == (("blank lines", 2),)
    file.write_text('[{"a": 1},\n {"a": 2}]')
    assert [place for place, _ in entries(file)] == [f"{file}, entry 0", f"{file}, entry 1"]


def test_what_is_no_object_is_a_broken_row_in_either_form(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    for text in ('{"a": 1}\n[1]\n"x"\n', '[{"a": 1}, [1], "x"]', '[1]\n{"a": 1}\n7\n'):
        file.write_text(text)
        rows = read(file)
        assert len(rows) == 3
        assert [row for row in rows if BROKEN not in row] == [{"a": 1}], text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"a": 1}, {"a": 2}', r"rows\.json, entry 2 is not JSON \(the file ends before its \]"),
        ('[{"a": 1} {"a": 2}]', r"entry 1 is not JSON \(a comma or \] is missing"),
        ('[{"a": 1}, {"a": ]', r"entry 1 is not JSON \(Expecting value"),
        ('[{"a": 1},]', r"entry 1 is not JSON"),
        ('[\n{"a": 1}]\n[{"a": 2}]', r"goes on after the end of its list"),
        ("[" * 200_000, r"entry 0 is not JSON"),
    ],
)
def test_a_broken_list_names_its_entry(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text)
    with pytest.raises(DataError, match=told) as caught:
        list(entries(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_text_is_refused_in_one_line(tmp_path: Path, coding: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes('{"a": 1}\n'.encode(coding))
    with pytest.raises(DataError, match=r"rows\.jsonl is UTF-16, not UTF-8; convert it: iconv"):
        list(entries(file))
