"""A job's settings put together: its own, then local ones, then inputs, then the iteration's folder."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from engine.pipeline.configuration import Job, Problem, load
from engine.pipeline.contract import GROUPS, Draft


def drafted(
    job: Job, root: Path, inputs: Mapping[str, Any], iteration: int, local: Mapping[str, Any] | None = None,
    later: frozenset[str] = frozenset(),
) -> tuple[Draft, list[Problem]]:  # fmt: skip
    """The job's settings, and what is wrong with them. inputs: dotted key → value. later: keys that inputs will give.

    local: settings of the iteration or of a sweep, on top of the job's own.
    """
    problems: list[Problem] = []
    given = later | inputs.keys() | (local or {}).keys() | job.local.keys()  # what is replaced whole is not read
    groups = {name: _loaded(job, name, value, root, given, problems)
              for name, value in zip(GROUPS, (job.dj, job.extra), strict=True)}  # fmt: skip
    for part, values in (("local", {**job.local, **(local or {})}), ("input", inputs)):
        for key, value in values.items():
            if key in GROUPS:
                groups[key] = _loaded(job, key, value, root, frozenset(), problems)
            elif key.split(".")[0] in GROUPS and not put(groups, key, copy.deepcopy(value)):
                problems.append(Problem(job.key, f"{part}.{key}", "leads through a value that has no keys"))
    for name in GROUPS:
        if "export_path" in (group := groups[name]) and f"{name}.export_path" not in later:
            group["export_path"] = in_folder(group["export_path"], f"iter_{iteration}")
    return Draft(groups, later), problems


def _loaded(
    job: Job, name: str, value: Any, root: Path, later: frozenset[str], problems: list[Problem]
) -> dict[str, Any]:
    if value is None or (name in later and not isinstance(value, dict)):
        return {}
    content = load(value, root) if isinstance(value, str) else value
    if isinstance(content, dict):
        return copy.deepcopy(content)
    problems.append(Problem(job.key, name, content if isinstance(content, str) else "is no mapping of keys"))
    return {}


def put(value: Any, key: str, new: Any) -> bool:
    """Set what a dotted key names; what is missing on the way is made. False where a plain value is on the way.

    Entries of a list are named by their number, or, as in a recipe's process, by the one key that they have.
    """
    *way, last = key.split(".")
    for part in way:
        value = _step(value, part)
        if not isinstance(value, dict | list):
            return False
    if isinstance(value, dict):
        value[last] = new
        return True
    place = _place(value, last)
    if place is None:
        return False
    value[place] = {last: new} if not last.isdigit() else new
    return True


def _step(value: Any, part: str) -> Any:
    if isinstance(value, dict):
        if value.get(part) is None:
            value[part] = {}
        return value[part]
    place = _place(value, part)
    if place is None:
        return None
    entry = value[place]
    if part.isdigit() or not isinstance(entry, dict):
        return entry
    if entry.get(part) is None:
        entry[part] = {}
    return entry[part]


def _place(value: list[Any], part: str) -> int | None:
    if part.isdigit():
        return int(part) if int(part) < len(value) else None
    return next((i for i, entry in enumerate(value) if isinstance(entry, dict) and list(entry) == [part]), None)


def in_folder(path: Any, folder: str) -> Any:
    """An output's path, or several, with one more folder as its last one, before a file's name."""
    if isinstance(path, list):
        return [in_folder(one, folder) for one in path]
    if not isinstance(path, str) or not path:
        return path
    name = PurePath(path).name
    if "." in name and not name.startswith("."):
        return str(PurePath(path).with_name(folder) / name)
    return str(PurePath(path) / folder)
