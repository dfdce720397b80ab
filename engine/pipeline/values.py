"""Outputs of jobs as JSON text and back, exactly: NaN, tuples, bytes, NumPy's numbers and arrays. Nothing is code."""

from __future__ import annotations

import base64
import json
import math
from pathlib import PurePath
from typing import Any

from engine.base.errors import damaged
from engine.pipeline.contract import ComponentError

MARK = "$djsb"
_ODD = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(value: Any, where: str) -> str:
    """A value as JSON text. where: names it in errors. Raises: ComponentError for what no output may be."""
    return json.dumps(_plain(value, where), allow_nan=False)


def decode(text: str) -> Any:
    """The value of such a text. Raises: StoreError."""
    try:
        return _value(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged("an output of a job", error) from error


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool) or type(value) in (int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {MARK: "float", "v": str(value)}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list):
        return [_plain(one, where) for one in value]
    if isinstance(value, tuple):
        return {MARK: "tuple", "v": [_plain(one, where) for one in value]}
    if isinstance(value, bytes):
        return {MARK: "bytes", "v": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        if all(type(key) is str for key in value) and MARK not in value:
            return {key: _plain(one, where) for key, one in value.items()}
        return {MARK: "map", "v": [[_plain(k, where), _plain(v, where)] for k, v in value.items()]}
    if type(value).__module__ == "numpy" and hasattr(value, "dtype") and not value.dtype.hasobject:
        content = base64.b64encode(value.tobytes()).decode()
        return {MARK: "numpy", "dtype": value.dtype.str, "shape": list(value.shape), "v": content}
    raise ComponentError(
        f"{where}: an output is a {type(value).__name__}; give numbers, texts, lists, mappings or arrays"
    )


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_value(one) for one in plain]
    if not isinstance(plain, dict):
        return plain
    kind = plain.get(MARK)
    if kind is None:
        return {key: _value(one) for key, one in plain.items()}
    content = plain["v"]
    if kind == "float":
        return _ODD[content]
    if kind == "tuple":
        return tuple(_value(one) for one in content)
    if kind == "bytes":
        return base64.b64decode(content)
    if kind == "map":
        return {_value(k): _value(v) for k, v in content}
    if kind == "numpy":
        import numpy as np  # start-up time: the dry run needs none

        array = np.frombuffer(base64.b64decode(content), np.dtype(plain["dtype"])).reshape(plain["shape"])
        return array.copy() if plain["shape"] else array[()]
    raise KeyError(kind)


def unpacked(value: Any) -> Any:
    """A list of one as what it holds: what an input gets."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def within(value: Any, rest: tuple[str, ...]) -> Any:
    """What dotted keys name within an output. Raises: KeyError with the key that is not there."""
    for part in rest:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list | tuple) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise KeyError(part)
    return value


def mean(several: list[Any]) -> Any:
    """Values of one shape as one of that shape: numbers are their mean, all else is as the first has it."""
    first = several[0]
    if isinstance(first, dict) and all(isinstance(one, dict) and one.keys() == first.keys() for one in several):
        return {key: mean([one[key] for one in several]) for key in first}
    if isinstance(first, list | tuple) and all(type(v) is type(first) and len(v) == len(first) for v in several):
        return type(first)(mean(list(parts)) for parts in zip(*several, strict=True))
    if isinstance(first, list) or any(number(one) is None for one in several):
        return first
    return sum(float(one) for one in several) / len(several) if len(several) > 1 else first


def number(value: Any) -> float | None:
    """A finite number, of whatever type; None for all else: a truth value is none."""
    value = unpacked(value)
    if isinstance(value, bool | str | bytes) or value is None or type(value).__name__ in ("bool_", "bool", "str_"):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
