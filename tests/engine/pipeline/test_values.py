"""Outputs are kept exactly, whatever they are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from engine.base.errors import StoreError
from engine.pipeline.contract import ComponentError
from engine.pipeline.values import decode, encode, number, unpacked, within


@pytest.mark.parametrize(
    "value",
    [0.0, 0, "", [], {}, None, False, -0.0, 2**70, 1e-310, math.inf, (1, (2, "a")), b"\x00\xff", {1: "a", None: [()]},
     {"$djsb": "tuple", "v": [1]}, "\ud800", {"a": {"b": [1, {"c": 0.1}]}}, "__import__('os').system('touch ran')"],
)  # fmt: skip
def test_plain_values_come_back_as_they_were(value: object) -> None:
    found = decode(encode(value, "job"))
    assert found == value and type(found) is type(value)


def test_numbers_of_numpy_keep_type_and_bits() -> None:
    for value in (np.float32(0.1), np.float64(math.nan), np.int8(-3), np.bool_(False)):
        found = decode(encode(value, "job"))
        assert type(found) is type(value) and found.tobytes() == value.tobytes()
    array = np.arange(12, dtype=np.float16).reshape(3, 4)
    found = decode(encode({"a": array}, "job"))["a"]
    assert found.dtype == array.dtype and found.shape == (3, 4) and (found == array).all()
    assert math.isnan(decode(encode(math.nan, "job")))


def test_a_large_output_is_whole() -> None:
    large = [f"row {i}" for i in range(200_000)]
    assert decode(encode(large, "job")) == large


def test_what_is_no_value_is_refused() -> None:
    with pytest.raises(ComponentError, match="an output is a set"):
        encode({1, 2}, "p.job")
    with pytest.raises(ComponentError):
        encode(np.array([object()]), "p.job")
    assert decode(encode(Path("/a/b"), "job")) == "/a/b"


@pytest.mark.parametrize("text", ["", "{", '{"$djsb": "code", "v": "1"}', '{"$djsb": "float", "v": "x"}'])
def test_a_damaged_output_is_named(text: str) -> None:
    with pytest.raises(StoreError, match="an output of a job"):
        decode(text)


def test_what_counts_as_a_number() -> None:
    assert number(np.float32(0.5)) == 0.5 and number([3]) == 3.0
    for value in (math.nan, "0.5", True, None, [1, 2], {}, np.bool_(True)):
        assert number(value) is None


def test_parts_of_an_output() -> None:
    assert unpacked(["a"]) == "a" and unpacked(("a",)) == ("a",) and unpacked(["a", "b"]) == ["a", "b"]
    assert within({"a": [{"b": 0}]}, ("a", "0", "b")) == 0
    with pytest.raises(KeyError, match="c"):
        within({"a": 1}, ("c",))
