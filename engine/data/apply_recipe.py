"""Apply a recipe to a full dataset: Data-Juicer decides which rows stay; the rows stay as they were.

Data-Juicer runs in a process of its own on a working copy of the fields that it reads; only the numbers
of the kept rows come back, and the output is written from the original.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base import machine, program_guard
from engine.base.environment import passed
from engine.base.errors import DataError, OpError
from engine.base.parallel import run_chunks
from engine.base.paths import ENTRY
from engine.base.scratch import HERE, scratch
from engine.data import datajuicer
from engine.data.catalogue import MAPPERS_FIXED
from engine.data.dataset import Dataset, as_list, utf8
from engine.data.mappers import MapperRun
from engine.data.media import locate
from engine.data.ops.contract import IMAGE_TOKEN, VIDEO_TOKEN
from engine.data.ops.needs import missing_needs
from engine.data.recipes import Recipe, one_line, read_recipe
from engine.data.rows_file import write_rows
from engine.data.scan import inspect
from engine.data.tars import explained, media_root, unpack
from engine.records.pool import MapperStep
from engine.settings.data import DatasetSection

CHUNK = 1_000
SUFFIXES = (".jsonl", ".parquet")
KEPT, FAILED = "kept.npy", "failed.txt"  # what Data-Juicer's process leaves

# text for OPs that score it against media: they skip text that does not name them
TOKENS = {
    "text+image": ("image_text", IMAGE_TOKEN, "images"),
    "text+video": ("video_text", VIDEO_TOKEN, "videos"),
}
Bad = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Applied:
    """What a recipe did. rows_in = rows_out + quarantined + what the filters dropped.

    bad: (row, reason) of every quarantined row, in order. rewritten: rows that mappers changed. kept: reason → rows
    that a mapper was to change and could not, which stay as they were.
    """

    rows_in: int
    rows_out: int
    bad: Bad = ()
    rewritten: int = 0
    kept: Mapping[str, int] = field(default_factory=dict)

    @property
    def quarantined(self) -> int:
        """Rows that Data-Juicer never saw: unreadable, without media, or left out by the caller."""
        return len(self.bad)


def apply_recipe(
    recipe_text: str,
    where: str,
    data: Path,
    out: Path,
    *,
    root: Path | None = None,
    skip: Sequence[int] = (),
    overwrite: bool = False,
    state: Path | None = None,
) -> Applied:
    """Write the rows of `data` that a recipe keeps to `out`, in order, with all their columns unchanged.

    Mappers then rewrite the text or the images of these rows; new images lie in a folder `OUT-media` beside `out`.

    where: names the recipe in errors. data: JSONL, Parquet or a Hugging Face folder; relative media
    paths start from its folder and come back as they were. out: .jsonl or .parquet. root: folder
    that the recipe's model paths start from (default: the working directory). skip: rows to leave
    out. overwrite: replace an existing `out`. state: folder where a tar beside the data is unpacked for good.

    Raises: StudyError or OpError for a recipe that is not allowed or cannot run here, DataError for
    data or an output that is not usable.
    """
    recipe = read_recipe(recipe_text, where, root or Path())
    for name, params in recipe.filters:
        if reason := missing_needs(name, dict(params)):
            raise OpError(f"{where}: {name} {reason}")
    _check_out(out, data, overwrite)
    names = {"text": recipe.text, "images": recipe.images, "videos": recipe.videos}
    fields = DatasetSection.model_validate({"path": str(data), **names})
    rows = Dataset(data, fields)
    total = len(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch(out.parent / HERE) as work_folder:
        bad = _working_copy(recipe, rows, work_folder, skip, state)
        if len(bad) == total:
            (reason, n), *_ = Counter(why for _, why in bad).most_common(1)
            raise DataError(f"no row of {data} can be read for {where}: {n} × {reason}; check the recipe's fields")
        kept = np.setdiff1d(np.arange(total, dtype=np.int64), np.array([row for row, _ in bad], np.int64))
        if recipe.filters:
            kept = _filter(recipe, work_folder, where)
        work = _map(recipe, rows, kept, work_folder, root or Path(), state)
        media = out.with_name(f"{out.stem}-media")
        moved = work is not None and "image" in work.changes
        if moved and media.exists() and not overwrite:
            raise DataError(f"{media} exists already; give another file, or overwrite it explicitly")
        change = work.changed(kept, False, media, out.parent) if work else None
        summary = work.summary(kept) if work else None
        if moved and work is not None:
            shutil.rmtree(media, ignore_errors=True)
            shutil.move(work.folder / "media", media)
        with _replacing(out, data, overwrite) as target:
            write_rows(rows, kept, target, change)
    return Applied(total, len(kept), bad, summary.changed if summary else 0, summary.kept if summary else {})


def _map(
    recipe: Recipe, rows: Dataset, kept: NDArray[np.int64], scratch: Path, root: Path, state: Path | None
) -> MapperRun | None:
    """Run the recipe's mappers over the kept rows; None without any."""
    if not recipe.mappers or not len(kept):
        return None
    own = {name: (*MAPPERS_FIXED.get(name, {}), "caption_key") for name, _ in recipe.mappers}
    steps = tuple(
        MapperStep(name, tuple(sorted((k, v) for k, v in params.items() if k not in own[name])))
        for name, params in recipe.mappers
    )
    folder = media_root(rows.path, state or scratch) if recipe.images else rows.path.parent
    work = MapperRun(rows, folder, steps, root, (scratch / "rewritten").resolve(), anywhere=True)
    for _ in work.run(kept, recipe.np):
        pass
    return work


def _check_out(out: Path, data: Path, overwrite: bool) -> None:
    if out.suffix not in SUFFIXES:
        raise DataError(f"{out} must end in {' or '.join(SUFFIXES)}; give such a file")
    if out.exists() and (out.is_dir() or not overwrite):
        raise DataError(f"{out} exists already; give another file, or overwrite it explicitly")
    if out.resolve() == data.resolve() or data.resolve() in out.resolve().parents:
        raise DataError(f"{out} is the data itself, or inside it; give another file")


@contextmanager
def _replacing(out: Path, data: Path, overwrite: bool) -> Iterator[Path]:
    """A sibling to write to, which takes the place of `out` when the block succeeds."""
    with scratch(out.parent / HERE) as folder:
        target = folder / out.name
        yield target
        _check_out(out, data, overwrite)
        target.replace(out)


_Job = tuple[Recipe, Dataset, Path, Path, int, int, frozenset[int]]


def _working_copy(recipe: Recipe, rows: Dataset, scratch: Path, skip: Sequence[int], state: Path | None) -> Bad:
    """Write what Data-Juicer reads of the good rows as Parquet files; the bad rows come back."""
    (scratch / "rows").mkdir()
    (scratch / "media").mkdir()
    folder = rows.path if rows.path.is_dir() else rows.path.parent
    refused = unpack(rows, state or scratch)
    root = media_root(rows.path, state or scratch) if recipe.images or recipe.videos else folder
    left_out = np.unique(np.asarray(skip, np.int64))
    jobs: list[_Job] = []
    for start, stop in rows.chunks(CHUNK):
        a, b = np.searchsorted(left_out, (start, stop))
        jobs.append((recipe, rows, scratch, root, start, stop, frozenset(left_out[a:b].tolist())))
    bad = (pair for found in run_chunks(_copy_chunk, jobs, recipe.np) for pair in found)
    return tuple(sorted((row, explained(reason, refused)) for row, reason in bad))


def _copy_chunk(job: _Job) -> list[tuple[int, str]]:
    """One chunk, in a worker process."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    recipe, rows, scratch, root, start, stop, skip = job
    folder = rows.path if rows.path.is_dir() else rows.path.parent
    good: list[dict[str, Any]] = []
    bad: list[tuple[int, str]] = []
    for number, row in enumerate(rows.reader.read(start, stop), start):
        reason = "left out" if number in skip else inspect(row, rows, root, folder)
        if reason is not None:
            bad.append((number, reason[:300]))
            continue
        try:
            media = {
                kind: _paths(as_list(row.get(name)), root, folder, scratch / "media" / f"{number}-{kind}")
                for kind, name in (("images", recipe.images), ("videos", recipe.videos))
                if name
            }
        except (OSError, ValueError) as error:
            machine.refuse(error, str(rows.path))
            bad.append((number, f"unreadable media: {error}"[:300]))
            continue
        text = row[recipe.text] if recipe.text else ""
        record: dict[str, Any] = {"row": number, "text": utf8(text), "images": [], "videos": [], **media}
        for column, token, kind in TOKENS.values():
            record[column] = token * len(record[kind]) + " " + record["text"]  # as statistics are computed
        good.append(record)
    if good:
        paths = pa.list_(pa.string())
        texts = [(name, pa.string()) for name in ("text", "image_text", "video_text")]
        schema = pa.schema([("row", pa.int64()), ("images", paths), ("videos", paths), *texts])
        pq.write_table(pa.Table.from_pylist(good, schema), scratch / "rows" / f"{start:012d}.parquet")
    return bad


def _paths(values: list[Any], root: Path, folder: Path, stem: Path) -> list[str]:
    """Absolute paths of a row's media; bytes become files of their own."""
    paths = []
    for i, value in enumerate(values):
        source = locate(value, root, folder)
        if isinstance(source, bytes):
            file = stem.with_name(f"{stem.name}-{i}")
            file.write_bytes(source)
            source = file
        path = str(source.absolute())
        path.encode()  # Data-Juicer's tables hold UTF-8 only
        paths.append(path)
    return paths


def _filter(recipe: Recipe, scratch: Path, where: str) -> NDArray[np.int64]:
    """Numbers of the rows that the recipe keeps, ascending."""
    steps = tuple(
        (op.name, {**params, **({"text_key": TOKENS[op.modality][0]} if op.modality in TOKENS else {})})
        for op, (_, params) in zip(recipe.ops, recipe.filters, strict=True)
    )
    text = Recipe(steps, "text", "images", "videos", recipe.np).yaml()
    (scratch / "recipe.yaml").write_text(text, encoding="utf-8")
    # a process of its own: Data-Juicer changes its process for good (stdout, logging, caching, signals)
    with (scratch / "log.txt").open("wb") as log:
        command = [sys.executable, str(ENTRY), "filter"]
        guarded = program_guard.start(command, stdout=log, stderr=log, cwd=scratch, env=passed())
        try:
            guarded.wait()
        finally:
            program_guard.end(guarded)
    if (scratch / KEPT).exists():
        kept: NDArray[np.int64] = np.load(scratch / KEPT)
        return kept
    if (scratch / FAILED).exists():
        reason = (scratch / FAILED).read_text(encoding="utf-8")
        raise DataError(f"Data-Juicer could not apply {where}: {reason}; mend or leave out that row or OP")
    raise DataError(f"Data-Juicer died on {where}, most often for want of memory; free some, or lower np")


def filter_here() -> None:
    """What the process does that Data-Juicer has for itself, in the scratch folder.

    Data-Juicer takes blanks, quotes and braces in its paths for syntax, so none of them stands in what it is given.
    """
    here = Path("/proc/self/cwd") if Path("/proc/self/cwd").exists() else Path.cwd()
    arguments = {
        "config": here / "recipe.yaml",
        "dataset_path": here / "rows",
        "export_path": here / "out" / "kept.jsonl",
        "ds_cache_dir": here / "cache",
    }
    try:
        datajuicer.prepare()
        datajuicer.local_only()
        recipe = Path("recipe.yaml").read_text(encoding="utf-8")
        for mend in (mend for op, mend in datajuicer.PREPARE.items() if op in recipe):
            mend()
        from data_juicer.config import init_configs
        from data_juicer.core.executor import DefaultExecutor

        settings = init_configs([part for name, path in arguments.items() for part in (f"--{name}", str(path))])
        kept = DefaultExecutor(settings).run(skip_export=True)
        draft = Path(f".{KEPT}")
        np.save(draft, np.sort(np.asarray(kept["row"], np.int64)))
        draft.replace(KEPT)
    except (Exception, SystemExit) as error:  # a process border: libraries may raise any exception
        reason = one_line(str(error))[:300] or type(error).__name__
        Path(FAILED).write_text(f"{type(error).__name__}: {reason}", encoding="utf-8")
