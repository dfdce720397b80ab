"""Apply a recipe to a full dataset: Data-Juicer decides which rows stay; the rows stay as they were.

Data-Juicer runs in a process of its own on a working copy of the fields that it reads; only the numbers
of the kept rows come back, and the output is written from the original.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import datajuicer
from engine.catalogue import IMAGE_TOKEN, VIDEO_TOKEN, missing_needs
from engine.dataset import Dataset, FolderReader, ParquetReader, as_list
from engine.errors import DataError, OpError
from engine.media import locate, media_root
from engine.parallel import run_chunks
from engine.recipes import Recipe, one_line, read_recipe
from engine.scan import inspect
from engine.study_sections import DatasetSection

CHUNK = 1_000
BLOCK = 4_096
SUFFIXES = (".jsonl", ".parquet")
# text for OPs that score it against media: they skip text that does not name them
TOKENS = {
    "text+image": ("image_text", IMAGE_TOKEN, "images"),
    "text+video": ("video_text", VIDEO_TOKEN, "videos"),
}
Bad = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Applied:
    """What a recipe did. rows_in = rows_out + quarantined + what the filters dropped.

    bad: (row, reason) of every quarantined row, in order.
    """

    rows_in: int
    rows_out: int
    bad: Bad = ()

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

    where: names the recipe in errors. data: JSONL, Parquet or a Hugging Face folder; relative media
    paths start from its folder and come back as they were. out: .jsonl or .parquet. root: folder
    that the recipe's model paths start from (default: the working directory). skip: rows to leave
    out. overwrite: replace an existing `out`. state: folder where a tar beside the data is unpacked for good.

    Raises: StudyError or OpError for a recipe that is not allowed or cannot run here, DataError for
    data or an output that is not usable.
    """
    recipe = read_recipe(recipe_text, where, root or Path())
    for name, params in recipe.process:
        if reason := missing_needs(name, dict(params)):
            raise OpError(f"{where}: {name} {reason}")
    _check_out(out, data, overwrite)
    names = {"text": recipe.text, "images": recipe.images, "videos": recipe.videos}
    fields = DatasetSection.model_validate({"path": str(data), **names})
    rows = Dataset(data, fields)
    total = len(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Data-Juicer takes braces in its paths for placeholders; then the system's folder must do
    folder = None if re.search("[{}]", str(out.parent.resolve())) else out.parent
    with TemporaryDirectory(prefix=".djsb-apply-", dir=folder) as scratch:
        bad = _working_copy(recipe, rows, Path(scratch), skip, state)
        if len(bad) < total:
            kept = _filter(recipe, Path(scratch), where)
        else:
            (reason, n), *_ = Counter(why for _, why in bad).most_common(1)
            raise DataError(f"no row of {data} can be read for {where}: {n} × {reason}; check the recipe's fields")
        with _replacing(out, data, overwrite) as target:
            _write(rows, kept, target)
    return Applied(total, len(kept), bad)


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
    with TemporaryDirectory(prefix=".djsb-out-", dir=out.parent) as scratch:
        target = Path(scratch) / out.name
        yield target
        _check_out(out, data, overwrite)
        target.replace(out)


# --- the working copy ---

_Job = tuple[Recipe, Dataset, Path, Path, int, int, frozenset[int]]


def _working_copy(recipe: Recipe, rows: Dataset, scratch: Path, skip: Sequence[int], state: Path | None) -> Bad:
    """Write what Data-Juicer reads of the good rows as Parquet files; the bad rows come back."""
    (scratch / "rows").mkdir()
    (scratch / "media").mkdir()
    folder = rows.path if rows.path.is_dir() else rows.path.parent
    root = media_root(rows.path, state or scratch) if recipe.images or recipe.videos else folder
    left_out = np.unique(np.asarray(skip, np.int64))
    jobs: list[_Job] = []
    for start, stop in rows.chunks(CHUNK):
        a, b = np.searchsorted(left_out, (start, stop))
        jobs.append((recipe, rows, scratch, root, start, stop, frozenset(left_out[a:b].tolist())))
    return tuple(sorted(pair for bad in run_chunks(_copy_chunk, jobs, recipe.np) for pair in bad))


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
            bad.append((number, f"unreadable media: {error}"[:300]))
            continue
        text = row[recipe.text] if recipe.text else ""
        record: dict[str, Any] = {"row": number, "text": _utf8(text), "images": [], "videos": [], **media}
        for column, token, kind in TOKENS.values():
            record[column] = token * len(record[kind]) + " " + record["text"]  # as statistics are computed
        good.append(record)
    if good:
        paths = pa.list_(pa.string())
        texts = [(name, pa.string()) for name in ("text", "image_text", "video_text")]
        schema = pa.schema([("row", pa.int64()), ("images", paths), ("videos", paths), *texts])
        pq.write_table(pa.Table.from_pylist(good, schema), scratch / "rows" / f"{start:012d}.parquet")
    return bad


def _utf8(text: str) -> str:
    """Half of a surrogate pair, which JSON can hold and Parquet cannot, counts as one unknown character."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


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


# --- Data-Juicer ---


def _filter(recipe: Recipe, scratch: Path, where: str) -> NDArray[np.int64]:
    """Numbers of the rows that the recipe keeps, ascending."""
    process = tuple(
        (op.name, {**params, **({"text_key": TOKENS[op.modality][0]} if op.modality in TOKENS else {})})
        for op, (_, params) in zip(recipe.ops, recipe.process, strict=True)
    )
    config = scratch / "recipe.yaml"
    config.write_text(Recipe(process, "text", "images", "videos", recipe.np).yaml(), encoding="utf-8")
    # a process of its own: Data-Juicer changes its process for good (stdout, logging, caching, signals)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_run_data_juicer, scratch.resolve(), config.resolve(), where).result()
        except BrokenProcessPool as error:
            raise DataError(
                f"Data-Juicer died on {where}, most often for want of memory; free some, or lower np"
            ) from error


def _run_data_juicer(scratch: Path, config: Path, where: str) -> NDArray[np.int64]:
    """Runs in the spawned process; all that Data-Juicer prints goes to a file in `scratch`."""
    log = os.open(scratch / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)  # our caller's stdout may be piped
    os.dup2(log, 2)
    datajuicer.prepare()
    datajuicer.local_only()
    if "hf_owlvit" in config.read_text(encoding="utf-8"):
        datajuicer.prepare_grounding()
    from data_juicer.config import init_configs
    from data_juicer.core.executor import DefaultExecutor

    arguments = {
        "config": config,
        "dataset_path": scratch / "rows",
        "export_path": scratch / "out" / "kept.jsonl",
        "ds_cache_dir": scratch / "cache",
    }
    try:
        settings = init_configs([part for name, path in arguments.items() for part in (f"--{name}", str(path))])
        kept = DefaultExecutor(settings).run(skip_export=True)
        return np.sort(np.asarray(kept["row"], np.int64))
    except (Exception, SystemExit) as error:  # a process border: libraries raise whatever they raise
        reason = one_line(str(error))[:300] or type(error).__name__
        raise DataError(
            f"Data-Juicer could not apply {where}: {type(error).__name__}: {reason}; mend or leave out that row or OP"
        ) from None


# --- the output ---


def _write(rows: Dataset, kept: NDArray[np.int64], target: Path) -> None:
    """The kept rows as they are in the original.

    Raises: DataError when the format of the output cannot hold them.
    """
    blocks = [kept[at : at + BLOCK] for at in range(0, len(kept), BLOCK)]
    if target.suffix == ".jsonl":
        with target.open("w", encoding="utf-8") as file:
            for block in blocks:
                file.writelines(_json(row, target.name) + "\n" for row in rows.take(block))
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = _schema(rows, blocks)
        with pq.ParquetWriter(target, schema) as writer:
            for block in blocks:
                table = pa.Table.from_pylist(list(rows.take(block)), schema)
                writer.write_table(table)
    except (pa.ArrowException, UnicodeEncodeError) as error:
        reason = one_line(str(error))[:200]
        raise DataError(f"{target.name} cannot hold the rows ({reason}); write a .jsonl file instead") from error


def _json(row: dict[str, Any], name: str) -> str:
    try:
        text = json.dumps(row, ensure_ascii=False)
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            return json.dumps(row)
        return text
    except TypeError as error:  # bytes and dates of a Parquet file
        raise DataError(f"{name} cannot hold the rows ({error}); write a .parquet file instead") from error


def _schema(rows: Dataset, blocks: Sequence[NDArray[np.int64]]) -> Any:
    """The original's schema; for JSONL, one that all kept rows fit."""
    import pyarrow as pa

    reader = rows.reader
    if isinstance(reader, ParquetReader):
        return reader._files[0].schema_arrow
    if isinstance(reader, FolderReader):
        return reader._data.features.arrow_schema
    found = [pa.schema(list(pa.array(list(rows.take(block))).type)) for block in blocks]
    return pa.unify_schemas([pa.schema([]), *found], promote_options="permissive")
