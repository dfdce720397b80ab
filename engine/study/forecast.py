"""What a study will take before it trains: disk against what is free, memory, and the time of its statistics."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from engine.base.amounts import format_bytes
from engine.base.errors import MachineError
from engine.base.paths import folder_of
from engine.data import scan, stat_files
from engine.data.packs import bound_of
from engine.data.tars import media_root
from engine.data.timing import Costs, time_ops
from engine.journal import caches
from engine.study.opened import OpenStudy
from engine.study.sample import Seen, look_at
from engine.tasks.shared.caches import disk as disk_of_caches
from engine.tasks.shared.media import disk as disk_of_media
from engine.tasks.shared.packed import kept_size

MEASURED = 64  # media that are made to see what one takes
SPARE = 1 << 30  # bytes of a disk that stay free
LITTLE = 16 << 20  # bytes that are written on any disk: when they fail, that is told as well
TEXT = 16_384  # bytes that a task's caches may take of a row beside its media, before a sample says it
PREFIX = {"train": "train", "evaluation": "eval"}  # of files in a task's caches
TAILS = 2  # pools beside the buckets of a statistic
COLUMN = 12  # bytes of memory that the engine takes a row and statistic, while it cuts pools


@dataclass(frozen=True)
class Thing:
    """Something on disk. size: bytes once all of it is there; there: those that are. remedy: how it takes less."""

    what: str
    size: int
    there: int
    remedy: str = ""


@dataclass(frozen=True)
class Disk:
    """things: all that a study keeps. free: bytes on its disk. folder: the study's."""

    things: tuple[Thing, ...]
    free: int
    folder: Path

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(thing.size for thing in self.things)

    @property
    def needed(self) -> int:
        """Bytes that are still to be written."""
        return sum(max(0, thing.size - thing.there) for thing in self.things)

    @property
    def problem(self) -> str | None:
        """Why the disk cannot hold it and what to do, in one line; None where it can."""
        if self.needed + SPARE <= self.free or self.needed < LITTLE:
            return None
        most = sorted(self.things, key=lambda t: t.there - t.size)
        parts = ", ".join(f"{t.what} {format_bytes(t.size - t.there)}" for t in most[:3] if t.size > t.there)
        remedies = [most[0].remedy] if most[0].remedy else []
        remedies += [f"free {format_bytes(self.needed + SPARE - self.free)}", "move the study to a larger disk"]
        return (
            f"the study will write {format_bytes(self.needed)} ({parts}) to {self.folder}, whose disk has "
            f"{format_bytes(self.free)} free, and {format_bytes(SPARE)} is left over: {', or '.join(remedies)}"
        )


@dataclass(frozen=True)
class Forecast:
    """rows: good ones of the training rows. memory: bytes at most, of engine and data workers. available: now."""

    rows: int
    disk: Disk
    costs: Costs
    memory: int
    available: int

    def to_json(self) -> dict[str, Any]:
        """As `djsb plan --json` prints it."""
        disk = self.disk
        return {
            "rows": self.rows,
            "disk": [asdict(thing) for thing in disk.things],
            "disk_bytes": disk.size, "disk_needed": disk.needed, "disk_free": disk.free,
            "statistics": [{**asdict(cost), "seconds": cost.seconds} for cost in self.costs.ops],
            "statistics_seconds": self.costs.seconds,
            "memory_bytes": self.memory, "memory_available": self.available,
        }  # fmt: skip


def forecast(opened: OpenStudy, seen: Seen | None) -> Forecast:
    """seen: None for a study without a task. Raises: MachineError where the disk cannot hold what is to come."""
    disk = disk_of(opened, seen)
    if disk.problem:
        raise MachineError(disk.problem)
    runs, _ = opened.op_plan
    left = {run: len(opened.data) - _computed(opened, run.key) for run in runs}
    data = opened.data
    root = media_root(data.path, opened.state) if data.fields.images or data.fields.videos else folder_of(data.path)
    costs = time_ops(left, data, opened.scanned.good, root, opened.workers)
    columns = sum(len(run.statistics) for run in runs)
    engine = psutil.Process().memory_info().rss + COLUMN * len(data) * (columns + 1)
    memory = engine + opened.workers * costs.memory
    return Forecast(int(opened.scan.good.sum()), disk, costs, memory, psutil.virtual_memory().available)


def are_complete(opened: OpenStudy) -> bool:
    """True where every statistic of the study has been computed."""
    return all(_computed(opened, run.key) == len(opened.data) for run in opened.op_plan[0])


def _computed(opened: OpenStudy, key: str) -> int:
    return sum(chunk.stop - chunk.start for chunk in caches.chunks(opened.store, key))


def refuse_if_full(opened: OpenStudy) -> None:
    """Raises: MachineError where the disk cannot hold the study. A sample is looked at only where that is in doubt."""
    rows, free = len(opened.data), shutil.disk_usage(opened.state).free
    size = opened.task.medium(opened.study, opened.folder) if opened.study.task else 0
    runs, _ = opened.op_plan
    most = rows * (size + TEXT) + sum(stat_files.disk(run, rows) for run in runs)
    most += sum(thing.size for thing in _of_models(opened))
    if most + SPARE > free / 2:
        disk = disk_of(opened, look_at(opened, decode=False) if opened.study.task else None)
        if disk.problem:
            raise MachineError(disk.problem)


def disk_of(opened: OpenStudy, seen: Seen | None) -> Disk:
    """See `forecast`."""
    things = [*_of_data(opened), *(_of_task(opened, seen) if seen else ()), *_of_models(opened)]
    return Disk(tuple(things), shutil.disk_usage(opened.state).free, opened.folder)


def _of_data(opened: OpenStudy) -> Iterator[Thing]:
    cache, rows = opened.state / "cache", len(opened.data)
    if made := _size(cache / "rows"):
        yield Thing("index and unpacked copies of the data", made, made)
    held = len(opened.evaluation) if opened.has_evaluation_rows else 0
    keys = scan.disk(rows + held)
    yield Thing("keys of rows", keys, min(keys, sum(_size(file) for file in cache.glob("scan-*.npz"))))
    runs, _ = opened.op_plan
    size = sum(stat_files.disk(run, rows) for run in runs)
    there = sum(_size(stat_files.column_file(opened.state, run.key)) for run in runs)
    yield Thing("statistics", size, min(size, there), "name fewer ops")


def _of_task(opened: OpenStudy, seen: Seen) -> Iterator[Thing]:
    """Of caches and media; what an earlier run has made of them counts by its size."""
    name, cache = opened.study.task, opened.state / "cache"
    sides = {"train": len(opened.data)}
    if opened.has_evaluation_rows:
        sides["evaluation"] = len(opened.evaluation)
    medium = opened.task.medium(opened.study, opened.folder)
    prepared, forms = seen.study.prepared, seen.study.forms
    size, packed = disk_of_caches(prepared, len(opened.data) / seen.rows), 0
    for side, count in sides.items() if medium else ():
        form = opened.forms.get(side, "raw")
        if form == "raw":
            size += disk_of_media(form, count, medium) if forms.get(side, "raw") != "raw" else 0
        elif lists := sorted(prepared.glob(f"{PREFIX[side]}-*-sources.bin")):
            file = lists[0].with_name(lists[0].name.removesuffix("-sources.bin") + ".json")
            packed += disk_of_media(form, count, medium, kept_size(file, form, MEASURED))
    there = sum(_size(f) for f in cache.glob(f"{name}-*") if f != prepared or seen.whole)
    raw = medium and "raw" in opened.forms.values()
    remedy = "set cache.form to jpeg" if raw else ""
    yield Thing(f"caches of task {name}{', with decoded media' if raw else ''}", size, min(size, there), remedy)
    if packed:
        bound = bound_of(cache, opened.study.cache.max_gb)
        size, there = min(packed, bound), _size(cache / "packs")
        yield Thing("media in packs", size, min(size, there), "set cache.max_gb to less")


def _of_models(opened: OpenStudy) -> Iterator[Thing]:
    """Checkpoints at most, one being written beside those that are kept, and states of trainings that may go on."""
    study = opened.study
    each = opened.task.kept(study, opened.folder) if study.task else None
    if each is None:
        return
    if keep := study.train.keep_checkpoints:
        size, there = (keep + 1) * study.cycles.max * each.checkpoint, _size(opened.state / "checkpoints")
        yield Thing("checkpoints", size, min(size, there), "set train.keep_checkpoints to less")
    if study.search.strategy == "race" and opened.can_pause:
        buckets = study.pools.buckets + (TAILS if study.pools.rare else 0)
        trials = (1 + buckets * sum(len(run.statistics) for run in opened.op_plan[0])) * study.search.seeds
        size, whole = min(int(study.search.pause_gb * 1e9), trials * each.state), trials * each.state
        there = _size(opened.state / "paused")
        some = f" ({size // max(1, each.state)} of {trials}: more start anew; all take {format_bytes(whole)})"
        what = f"states of trainings that may go on{some if size < whole else ''}"
        yield Thing(what, size, min(size, there), "set search.pause_gb to less")


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if path.is_dir():
        return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    return path.stat().st_size if path.is_file() else 0
