"""The reader for a path, chosen by what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from engine.base.errors import DataError
from engine.base.paths import folder_of
from engine.base.remote import is_remote
from engine.data.readers.arrow import ArrowReader
from engine.data.readers.contract import BROKEN, PLAIN, BrokenFile, Options, Reader, first_line
from engine.data.readers.formats import format_of, packing
from engine.data.readers.hub import card_files
from engine.data.readers.image_folder import bare_images, image_folder
from engine.data.readers.joined import joined
from engine.data.readers.json_rows import JsonReader
from engine.data.readers.packed import PackedReader
from engine.data.readers.parquet import ParquetReader
from engine.data.readers.plugged import opener_for
from engine.data.readers.pool_rows import PoolReader, read_rows_file
from engine.data.readers.saved import SavedReader, is_saved
from engine.data.readers.splits import NoData, files_of
from engine.data.readers.table import TableReader
from engine.data.readers.turns import with_text
from engine.data.readers.webdataset import WebDatasetReader

KINDS = "JSON lines, Parquet, CSV, TSV, Arrow, tar shards and Hugging Face dataset folders"
REMOTE = ("json", "parquet", "tar")  # that are read part by part at addresses


def open_reader(path: Path, options: Options = PLAIN) -> Reader:
    """The reader for a path, chosen by what it is.

    Raises: DataError when there is no such file, it is of no known kind, or a split must be named.
    """
    try:
        opened = _of_folder if path.is_dir() else _of_path
        return with_text(opened(path, options), options.text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({first_line(error)}); check the file") from error


def _of_folder(folder: Path, options: Options) -> Reader:
    if is_remote(folder):
        return _of_path(folder, options)
    if is_saved(folder):
        return SavedReader(folder, options)
    one = replace(options, split=None)
    if reader := image_folder(folder, options, lambda file: _of_files(file, [file], one)):
        return reader
    try:
        files = card_files(folder, options.split) or files_of(folder, options.split)
    except NoData:
        if reader := bare_images(folder, options.split):
            return reader
        raise
    return _of_files(folder, files, options)


def _of_path(path: Path, options: Options) -> Reader:
    return _of_files(path, files_of(path, options.split), options)


def _of_files(path: Path, files: Sequence[Path], options: Options) -> Reader:
    kinds = {format_of(file) for file in files}
    if len(kinds) > 1:
        raise DataError(f"{path}: its files are of several formats; give files of one")
    (kind,) = kinds
    if is_remote(path) and (kind not in REMOTE or packing(files[0])):
        raise DataError(
            f"{path}: only Parquet, JSON lines and tar shards are read at addresses; fetch it, and give its path"
        )
    if kind == "tar":
        return WebDatasetReader(files, options, folder_of(path))
    if kind is None and (opener := opener_for(files)):
        return _each(files, options, opener)
    if kind not in OPENERS:
        raise DataError(
            f"{path}: unknown kind of file; {KINDS} are read, and what installed packages add (djsb plugins); pip "
            f"install the package that reads {files[0].suffix or 'such'} files"
        )
    return OPENERS[kind](files, options)


def _json(files: Sequence[Path], options: Options) -> Reader:
    reader = _each(files, options, _json_file)
    if not len(reader):
        raise DataError(f"{files[0]} has no rows; give a file with one JSON object a line")
    return reader


def _json_file(file: Path, options: Options) -> Reader:
    reader = (PackedReader if packing(file) else JsonReader)(file, options)
    head = reader.read(0, 20)
    if head and all(BROKEN in row for row in head):
        raise BrokenFile(f"{file} is not JSONL ({head[0][BROKEN]}); it needs one JSON object a line, or a list of them")
    return reader


def _pool(file: Path, options: Options) -> Reader:
    source, numbers = read_rows_file(file)
    if format_of(source) == "rows":
        raise DataError(f"{file} has rows of {source}, which is a pool itself; make the pool again")
    return PoolReader(file, _of_files(source, [source], replace(options, split=None, head=False)), numbers)


def _each(files: Sequence[Path], options: Options, read: Callable[[Path, Options], Reader]) -> Reader:
    """One reader for all files; those that do not open are left out. Raises: BrokenFile when they are too many."""
    readers, bad = [], []
    for file in files:
        try:
            readers.append(read(file, options))
        except BrokenFile as error:
            bad.append(str(error))
    if bad and (len(bad) > options.max_bad * len(files) or not readers):
        raise BrokenFile(bad[0] if len(files) == 1 else f"{bad[0]}; {len(bad)} of {len(files)} files are so")
    return joined(readers, options.split, bad)


OPENERS: dict[str | None, Callable[[Sequence[Path], Options], Reader]] = {
    "json": _json,
    "parquet": ParquetReader,
    "table": lambda files, options: _each(files, options, TableReader),
    "arrow": lambda files, options: _each(files, options, ArrowReader),
    "rows": lambda files, options: _each(files, options, _pool),
}
