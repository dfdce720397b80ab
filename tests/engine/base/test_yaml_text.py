"""YAML from anywhere: a bomb, an equal key, a key that is no text and another encoding are refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import DjsbError
from engine.base.yaml_text import NotYaml, parse_yaml, read_utf8
from tests.conftest import fuzz

LAYERS = "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a [x, x]\n" + LAYERS, "stands for more than"),
        ("&a [*a, *a]", "it holds itself"),
        ("[" * 5000, "nested more than"),
        ("a: 1\nb: 2\na: 3", "line 3 is not YAML: the key a stands there twice, on line 1 too"),
        ("a: {b: 1, b: 1}", "the key b stands there twice"),
        ("on: 1", "the key 'on' is no text; put quotes around it"),
        ("1: 2", "the key '1' is no text"),
        ("~: 2", "the key '~' is no text"),
        ("? [a]\n: 1", "the key a list or mapping is no text"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 0x" + "f" * 50, "more than 64 bits"),
        ('a: "\\ud800"', "half a letter"),
        ("!!python/object/apply:os.system [id]", "line 1 is not YAML"),
        ("!!set {a, b}", "constructor"),
        ("a: 1\n---\nb: 1", "another document"),
        ("\x00", "unacceptable character"),
        ("a: " + "x" * 1_000_001, "is it the right file?"),
    ],
    ids=lambda v: v[:12],
)
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(NotYaml) as error:
        parse_yaml(text, "study.yaml")
    assert says in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 300


def test_what_people_write_is_read() -> None:
    assert parse_yaml("base: &b {x: 1}\nmade: {<<: *b, x: 2, y: [*b]}", "") == {
        "base": {"x": 1}, "made": {"x": 2, "y": [{"x": 1}]}
    }  # fmt: skip
    assert parse_yaml('"on": x\nday: 2024-01-01\nf: 1.5\nnone: ~', "") == {
        "on": "x", "day": "2024-01-01", "f": 1.5, "none": None
    }  # fmt: skip
    assert parse_yaml("", "") is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", "utf-32"])
def test_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes("name: für\n".encode(encoding))
    with pytest.raises(NotYaml, match=r"is not UTF-8 \((UTF-16|byte \d+)\); save it as UTF-8|is not YAML"):
        parse_yaml(read_utf8(file), str(file))


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes("\ufeffname: für\n".encode())
    assert parse_yaml(read_utf8(file), str(file)) == {"name": "für"}


@fuzz
@given(st.text(alphabet="ab:-[]{}&*!?|>'\"#%@`,\n \t<~01.e\\xu\ufeff\x00é", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_yaml(text, "study.yaml")
    except DjsbError as error:
        assert "\n" not in str(error)
