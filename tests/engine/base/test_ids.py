"""Values as JSON that every reader takes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.ids import json_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def strict(text: str) -> Any:
    """Read as other languages do: no NaN, no Infinity."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_what_is_no_number_becomes_null() -> None:
    value = {"a": [1.5, math.nan, {"b": -math.inf}], "c": np.float64("nan"), "d": np.float32(0.5)}
    assert strict(json_text(value)) == {"a": [1.5, None, {"b": None}], "c": None, "d": 0.5}
    assert json_text({"a": "é", "b": math.nan}, ensure_ascii=False) == '{"a": "é", "b": null}'


@given(VALUES)
def test_any_value_is_read_by_a_strict_reader(value: Any) -> None:
    strict(json_text(value, indent=2))
