"""Runs of W&B as lines of JSON: config and summary of each, as its API gives them (docs/guides/trackers.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.base.errors import DataError
from engine.base.ids import json_text
from engine.track.recorded.contract import Choice, Record, Tell, Value, listed, values_of

SUMMARIES = ("summary", "summary_metrics", "summaryMetrics")
USED = "finished"


def read(file: Path, choice: Choice, tell: Tell) -> list[Value]:
    """The values of a file of runs. Raises: DataError, which names the line."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); give a file with a run of W&B a line") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not in UTF-8 ({error}); write a run of W&B a line, as JSON") from error
    records, left = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        run = _parsed(file, number, line)
        name = str(run.get("name") or run.get("id") or f"line {number}")
        if str(run.get("state", USED)) != USED:
            left.append(name)
        else:
            records.append(_record(file, number, name, run))
    if left:
        tell(f"{len(left)} run(s) that have not finished are left out: {listed(left)}")
    if not records:
        raise DataError(f"{file} has no run that has finished; write one a line")
    return values_of(records, choice, str(file))


def _parsed(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        run = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}, line {number} is no JSON ({str(error)[:80]}); write a run of W&B a line") from None
    if not isinstance(run, dict):
        raise DataError(f"{file}, line {number} is no run of W&B; write an object with config and summary")
    return run


def _record(file: Path, number: int, name: str, run: dict[str, Any]) -> Record:
    there = [part for part in SUMMARIES if part in run]
    if "config" not in run or len(there) != 1:
        raise DataError(f"{file}, line {number}: a run needs config and one of {', '.join(SUMMARIES)}")
    config, summary = (_mapping(file, number, part, run[part]) for part in ("config", there[0]))
    facts = {key: _text(value) for key, value in _flat(config).items() if not key.startswith("_")}
    about = {key: _text(run[key]) for key in ("id", "name", "group") if isinstance(run.get(key), str)}
    numbers = {key: _text(value) for key, value in _flat(summary).items() if key[:1] != "_" and _is_number(value)}
    return Record(f"{file}, line {number} ({name})", {**about, **facts}, numbers)


def _mapping(file: Path, number: int, name: str, value: Any) -> dict[str, Any]:
    """W&B's API gives some of these as a text of JSON."""
    if isinstance(value, str):
        value = _parsed(file, number, value)
    if not isinstance(value, dict):
        raise DataError(f"{file}, line {number}: {name} is no object; write it as W&B's API gives it")
    return value


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`train.lr` → value; of `{"value": x}`, as W&B stores a config's values, x."""
    found: dict[str, Any] = {}
    for name, one in value.items():
        if isinstance(one, dict) and "value" in one and one.keys() <= {"value", "desc"}:
            one = one["value"]
        found |= _flat(one, f"{prefix}{name}.") if isinstance(one, dict) else {f"{prefix}{name}": one}
    return found


def _is_number(value: Any) -> bool:
    return value == "NaN" or (isinstance(value, int | float) and not isinstance(value, bool))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json_text(value)
