"""Lines from another program: in whatever pieces they arrive, however long, whatever they hold."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base import lines
from engine.base.lines import Lines, read_object
from tests.conftest import FUZZ

TEXT = st.text(st.characters(), max_size=5)  # half characters among them
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.fuzz
@FUZZ
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_pieces_make_no_difference(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(data)]
    split = Lines()
    out = [line for a, b in itertools.pairwise(places) for line in split.feed(data[a:b])]
    assert [*out, split.rest()] == data.split(b"\n")


def test_a_line_without_end_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST", 10)
    split = Lines()
    for _ in range(1000):
        assert list(split.feed(b"x" * 7)) == []
    assert list(split.feed(b"x\nshort\n" + b"y" * 11 + b"\n" + b"z" * 10 + b"\nrest")) == [
        None, b"short", None, b"z" * 10,
    ]  # fmt: skip
    assert split.rest() == b"rest" and split.rest() == b""


@pytest.mark.parametrize(
    "line", [b"", b"null", b"[]", b"1", b"{", b'{"a": 1} x', b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"\x00"]
)
def test_what_is_no_object_is_none(line: bytes) -> None:
    assert read_object(line) is None


def test_an_object_holds_nothing_that_no_database_takes() -> None:
    read = read_object(
        b'\xef\xbb\xbf{"big": 123456789012345678901234567890, "huge": ' + b"9" * 5000 + b', "\\ud800": "\\udfff\xff"}'
    )
    assert read == {"big": pytest.approx(1.2345678901234568e29), "huge": math.inf, "?": "?�"}
    assert read_object(b'{"a": "\\ud83d\\ude00", "b": -12}') == {"a": "😀", "b": -12}


@pytest.mark.fuzz
@FUZZ
@given(anything)
def test_whatever_json_holds_is_storable(value: object) -> None:
    read = read_object(json.dumps({"value": value}).encode())
    assert read is not None
    json.dumps(read, ensure_ascii=False).encode()

    def whole(part: object) -> list[int]:
        if isinstance(part, dict):
            return [n for v in part.values() for n in whole(v)]
        if isinstance(part, list):
            return [n for v in part for n in whole(v)]
        return [part] if isinstance(part, int) else []

    assert all(abs(n) < 2**63 for n in whole(read))
