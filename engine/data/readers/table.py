"""CSV and TSV: read once, typed by all of their values, and kept as Parquet, where every row can be read by itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.base.errors import DataError
from engine.base.text import refuse_wide
from engine.data.readers.contract import BrokenFile, Options, first_line, refuse_twins
from engine.data.readers.formats import packing
from engine.data.readers.kept import kept
from engine.data.readers.packed import opened
from engine.data.readers.parquet import ParquetReader

BLOCK = 1 << 24  # bytes that are parsed together; a line is no longer
EMPTY = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None")  # no value, in a column of numbers
FLAGS = ("true", "false", "True", "False", "TRUE", "FALSE")
WHOLE = r"^-?(0|[1-9][0-9]{0,17})$"
NUMBER = r"^[+-]?((0|[1-9][0-9]{0,17})(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"  # no 007, and no id of 20 digits
MIXED = 0.1  # share of numbers from which on a column of text is told to have some
DELIMITERS = ",;\t"


@dataclass
class _Column:
    """How many values of a column are of which kind. other: the first that is no number."""

    values: int = 0
    whole: int = 0
    number: int = 0
    flag: int = 0
    other: str | None = None

    @property
    def kind(self) -> str:
        if not self.values:
            return "string"
        counts = (("bool", self.flag), ("int64", self.whole), ("double", self.number))
        return next((kind for kind, count in counts if count == self.values), "string")


@dataclass
class _Form:
    """How a file is read. lines: rows. bad: lines of another number of columns. joined: breaks within values."""

    delimiter: str
    quoted: bool
    names: list[str] = field(default_factory=list)
    columns: list[_Column] = field(default_factory=list)
    lines: int = 0
    bad: int = 0
    joined: int = 0


class TableReader(ParquetReader):
    """Rows of one CSV or TSV file."""

    def __init__(self, file: Path, options: Options) -> None:
        """Raises: DataError where it is no table, or more of its lines are of other columns than may be."""
        folder = kept([file], "beginning" if options.head else "table", options, lambda f: _make(file, f, options.head))
        super().__init__([folder / "rows.parquet"], Options(options.split, options.max_bad, options.index))
        self.files = [file]
        self._told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
        bad = self._told["bad"]
        if bad > options.max_bad * (bad + len(self)) and not options.head:
            raise BrokenFile(
                f"{file}: {bad} of {bad + len(self)} lines have another number of columns than its first line; mend "
                "them, or raise dataset.max_bad"
            )
        self.left_out = (("lines of other columns", bad),) if bad else ()

    @property
    def note(self) -> str:
        """The columns that are not all numbers, and how quotes are read."""
        return "; ".join(self._told["notes"])


def _make(file: Path, folder: Path, head: bool) -> None:
    """Write the rows as Parquet, and what is odd about them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _unprinted():
        form = _form(file, head)
    types = [pa.type_for_alias(column.kind) for column in form.columns]
    schema = pa.schema(list(zip(form.names, types, strict=True)))
    with pq.ParquetWriter(folder / "rows.parquet", schema, compression="zstd") as writer:
        for batch in _batches(file, form, head):
            columns = [_typed(column, kind) for column, kind in zip(batch.columns, types, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    notes = [] if form.quoted else ["quotes are letters, as they would join lines"]
    for name, column in zip(form.names, form.columns, strict=True):
        if column.kind == "string" and column.number > MIXED * column.values:
            notes.append(
                f"{name} is text, as {column.values - column.number} of {column.values} values are no numbers "
                f"({str(column.other)[:40]!r})"
            )
    (folder / "told.json").write_text(json.dumps({"bad": form.bad, "notes": notes}, allow_nan=False), encoding="utf-8")


@contextmanager
def _unprinted() -> Iterator[None]:
    """pyarrow prints, and cannot raise, that a line which it is to skip is no UTF-8; it fails on that file anyway."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda said: None if isinstance(said.exc_value, UnicodeDecodeError) else hook(said)
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _form(file: Path, head: bool) -> _Form:
    """How the file is read: quotes enclose values, unless they would join lines that are whole by themselves."""
    with opened(file) as stream:
        start = stream.read(1 << 16)
    refuse_wide(start[:4], str(file))
    first = start.split(b"\n", 1)[0]
    tabs = Path(file.name.removesuffix(file.suffix)).suffix if packing(file) else file.suffix
    delimiter = "\t" if tabs.lower() == ".tsv" else max(DELIMITERS, key=lambda d: first.count(d.encode()))
    quoted = _measured(file, _Form(delimiter, True), head)
    if isinstance(quoted, _Form) and not quoted.bad and not quoted.joined:
        return quoted
    plain = _measured(file, _Form(delimiter, False), head)
    if isinstance(plain, _Form) and len(plain.names) > 1 and (isinstance(quoted, DataError) or plain.bad < quoted.bad):
        return plain
    if isinstance(plain, _Form) and isinstance(quoted, _Form) and len(plain.names) > 1 and not plain.bad:
        return plain
    if isinstance(quoted, DataError):
        raise quoted
    return quoted


def _measured(file: Path, form: _Form, head: bool) -> _Form | DataError:
    """The form with what is in the columns, or why the file cannot be read so."""
    import pyarrow.compute as pc

    try:
        for batch in _batches(file, form, head):
            form.lines += batch.num_rows
            for values, column in zip(batch.columns, form.columns, strict=True):
                _count(values, column)
                form.joined += pc.sum(pc.count_substring(values, "\n")).as_py() or 0
    except DataError as error:
        return error
    return form


def _batches(file: Path, form: _Form, head: bool) -> Iterator[Any]:
    """The rows as texts; the form is told the columns and counts the lines that do not fit them. Raises: DataError."""
    import pyarrow as pa
    from pyarrow import csv

    form.bad = 0

    def skip(_: Any) -> str:
        form.bad += 1
        return "skip"

    parse = csv.ParseOptions(
        delimiter=form.delimiter, quote_char='"' if form.quoted else False, newlines_in_values=form.quoted,
        invalid_row_handler=skip,
    )  # fmt: skip
    read = csv.ReadOptions(block_size=BLOCK)
    try:
        if not form.names:
            with opened(file) as stream:
                form.names = csv.open_csv(stream, read, parse).schema.names
            form.columns, form.bad = [_Column() for _ in form.names], 0
            refuse_twins(file, form.names)
        texts = csv.ConvertOptions(column_types=dict.fromkeys(form.names, pa.string()))
        with opened(file) as stream:
            for batch in csv.open_csv(stream, read, parse, texts):
                yield batch
                if head:
                    return
    except pa.ArrowException as error:
        raise BrokenFile(
            f"{file} is no table ({first_line(error)}); it needs a first line of names, a row a line of less than "
            f"{BLOCK >> 20} MB, and UTF-8"
        ) from error


def _count(values: Any, column: _Column) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = values.filter(pc.invert(pc.is_in(values, pa.array(EMPTY))))
    number = pc.match_substring_regex(values, NUMBER)
    column.values += len(values)
    column.whole += pc.sum(pc.match_substring_regex(values, WHOLE)).as_py() or 0
    column.number += pc.sum(number).as_py() or 0
    column.flag += pc.sum(pc.is_in(values, pa.array(FLAGS))).as_py() or 0
    if column.other is None and len(others := values.filter(pc.invert(number))):
        column.other = others[0].as_py()


def _typed(values: Any, kind: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(kind):
        return values
    values = pc.if_else(pc.is_in(values, pa.array(EMPTY)), None, values)
    return pc.equal(pc.utf8_lower(values), "true") if pa.types.is_boolean(kind) else values.cast(kind)
