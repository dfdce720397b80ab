"""The reader for a path, chosen by what it is."""

from __future__ import annotations

from pathlib import Path

from engine.base.errors import DataError
from engine.data.readers.contract import BROKEN, PLAIN, Options, Reader, first_line
from engine.data.readers.json_rows import JsonReader
from engine.data.readers.parquet import ParquetReader
from engine.data.readers.saved import SavedReader, is_saved
from engine.data.readers.splits import files_of
from engine.data.readers.tar_members import PACKED
from engine.data.readers.webdataset import WebDatasetReader


def open_reader(path: Path, options: Options = PLAIN) -> Reader:
    """The reader for a path, chosen by what it is.

    Raises: DataError when there is no such file, it is of no known kind, or a split must be named.
    """
    try:
        if path.is_dir() and is_saved(path):
            return SavedReader(path, options)
        files = files_of(path, options.split)
        kinds = {file.suffix for file in files}
        if kinds == {".tar"} or files[0].name.endswith(PACKED):
            return WebDatasetReader(files, options, path if path.is_dir() else path.parent)
        if kinds == {".parquet"}:
            return ParquetReader(files, options)
        if len(files) > 1:
            raise DataError(f"{path}: several files are read where all are Parquet, or tar shards; give one file")
        if kinds <= {".jsonl", ".json", ".ndjson"}:
            reader = JsonReader(files[0], options)
            _first_row(reader, files[0])
            return reader
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({first_line(error)}); check the file") from error
    raise DataError(
        f"{path}: unknown kind of file; JSONL, Parquet, tar shards and Hugging Face dataset folders are read"
    )


def _first_row(reader: Reader, path: Path) -> None:
    head = reader.read(0, 20)
    if not head:
        raise DataError(f"{path} has no rows; give a file with one JSON object a line")
    if all(BROKEN in row for row in head):
        raise DataError(f"{path} is not JSONL ({head[0][BROKEN]}); it needs one JSON object a line, or a list of them")
