"""A task's caches of a study: a folder that is complete once it is sealed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.base.confine import inside
from engine.base.durable import SEAL, is_whole, seal_folder, write_text
from engine.tasks.contract import Progress, Rows


def make_caches(folder: Path, name: str, make: Callable[[Path], dict[str, Any]]) -> Path:
    """`FOLDER/.djsb/cache/NAME`, which `make` fills unless it is complete; what `make` returns is its meta.json."""
    target = inside(folder, f".djsb/cache/{name}")
    if not is_whole(target):
        target.mkdir(parents=True, exist_ok=True)
        (target / SEAL).unlink(missing_ok=True)
        write_text(target / "meta.json", json.dumps(make(target), allow_nan=False))
        seal_folder(target)
    return target


def disk(prepared: Path, factor: float) -> int:
    """Bytes that a task's caches take on disk beside the media in packs.

    prepared: caches of a sample of the training rows and of all others. factor: rows for each of the sample.
    """
    files = ((f, f.stat().st_size) for f in prepared.rglob("*") if f.is_file())
    return int(sum(size * (factor if f.name.startswith("train-") else 1) for f, size in files))


def read_meta(prepared: Path) -> dict[str, Any]:
    """The meta.json of caches."""
    meta: dict[str, Any] = json.loads((prepared / "meta.json").read_text(encoding="utf-8"))
    return meta


def in_turn(
    train: Rows, evaluation: Rows | None, progress: Progress | None
) -> Iterator[tuple[str, Rows, Progress | None]]:
    """(`train` or `eval`, its rows, their part of the progress) of both, or of the one that is there."""
    counts = len(train.data), len(evaluation.data) if evaluation else 0

    def after(before: int) -> Progress | None:
        return None if progress is None else lambda done, _: progress(before + done, sum(counts))

    yield "train", train, after(0)
    if evaluation is not None:
        yield "eval", evaluation, after(counts[0])
