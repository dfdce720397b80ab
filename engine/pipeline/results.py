"""What a job's result hangs on, and whether it still stands: its id, and the files that it wrote."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.base.ids import content_id
from engine.data.fingerprints import content_hash
from engine.pipeline.check import Node, absolute, rows_of
from engine.pipeline.contract import Draft
from engine.pipeline.registry import plugin_of
from engine.pipeline.values import encode

Files = Mapping[str, list[int]]
STRINGS = 100_000  # of outputs that are looked at as paths


def result_id(node: Node, draft: Draft, seed: int, needs: Iterable[str], root: Path) -> str:
    """The id of what a job gives: of its component, settings, seed, the results that it needs, the files that it reads.

    Raises: DataError when a file cannot be read.
    """
    component = node.component
    writes = [absolute(path, root) for path in component.writes(draft)]
    reads = {
        path: content_hash(Path(absolute(path, root)))
        for path in sorted(set(component.reads(draft)))
        if _is_fixed(absolute(path, root), writes)
    }
    reads |= {path: content_hash(rows) for path in node.kept if (rows := rows_of(path, root))}
    plugin = plugin_of(component)
    return content_id([
        node.job.hook, component.name, component.version, encode(dict(draft.groups), node.job.key),
        seed if component.seeded else 0, sorted(needs), reads, *([plugin.package] if plugin else []),
    ])  # fmt: skip


def _is_fixed(path: str, writes: Iterable[str]) -> bool:
    """True for a path that is there, and that the job itself does not write into."""
    return Path(path).exists() and not any(w == path or w.startswith(path + os.sep) for w in writes)


def written(node: Node, draft: Draft, outputs: Iterable[Any], root: Path) -> dict[str, list[int]]:
    """Path → size and time of the files that a job has written, as far as its outputs and settings name them."""
    names = [*node.component.writes(draft), *_texts(outputs)]
    return {path: stamp for name in names[:STRINGS] if (stamp := _stamp(path := absolute(name, root)))}


def stands(files: Files) -> bool:
    """True when all that a job has written is there as it was."""
    return all(_stamp(path) == stamp for path, stamp in files.items())


def _stamp(path: str) -> list[int] | None:
    """Of a folder only that it is there: other jobs write into it, too."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return [0, 0] if Path(path).is_dir() else [found.st_size, found.st_mtime_ns]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and 0 < len(value) < 4096 and "\n" not in value and "\0" not in value:
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
