"""Content ids, and values as JSON."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from typing import Any

from engine.base.errors import StudyError, damaged

ID = re.compile(r"[0-9a-f]{6,32}")  # as content_id makes them, and beginnings that are long enough


def content_id(value: Any, length: int = 16) -> str:
    """Content hash of a JSON value: stable across runs, machines and key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=length // 2).hexdigest()


def checked_id(value: Any, where: str) -> str:
    """A stored id, which may become part of a path. Raises: StoreError where it has not the form of one."""
    if not (isinstance(value, str) and ID.fullmatch(value)):
        raise damaged(where, f"{str(value)[:80]!r} is no id")
    return value


def by_beginning(ids: Iterable[str], start: str, missing: str) -> str:
    """The one of these ids that begins so. missing: what the error says where none does. Raises: StudyError."""
    matches = [one for one in dict.fromkeys(ids) if one.startswith(start)]
    if not matches:
        raise StudyError(missing)
    if len(matches) > 1:
        raise StudyError(f"{start!r} is the beginning of several: {', '.join(matches[:9])}; give more of it")
    return matches[0]


def some(record: Any, *names: str) -> dict[str, Any]:
    """These attributes of a record, for JSON."""
    return {name: getattr(record, name) for name in names}


def plain(value: Any) -> Any:
    """A record, or NumPy's number, for JSON (`default=` of `json.dumps`)."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no value of JSON")


def json_text(value: Any, **options: Any) -> str:
    """A value as JSON that every reader takes: NaN and infinities, which JSON lacks, become null.

    options: of `json.dumps`; records and NumPy's numbers are made plain unless `default` is given.
    """
    options = {"default": plain, **options}
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        made = json.loads(json.dumps(value, **{**options, "ensure_ascii": True}))  # Python reads its own NaN
        return json.dumps(_finite(made), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    """Parsed JSON with null for what is no finite number."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
