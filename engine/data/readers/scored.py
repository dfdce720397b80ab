"""Files of scores beside the data: rows of one key each, which are joined to the data's rows of that key.

A file is read once: its columns are kept as they lie in it, its keys sorted, 16 bytes a row. All is mapped into memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import DataError
from engine.base.ids import content_id, json_text
from engine.data.proposed import counts_up, proposed
from engine.data.readers.contract import BROKEN, HEAD, Numbers, Options, Reader, Row, Rows, Tables, first_line
from engine.data.readers.kept import kept
from engine.data.readers.opening import open_reader
from engine.data.readers.parquet import Floats, as_floats, is_number
from engine.settings.data import Columns, ColumnSection, ScoreFileSection

BLOCK = 50_000  # rows that are kept together
FIRST = 100  # rows of the data that are looked at for fields of the same name
EXAMPLES = 3  # keys that a message names
Hashes = NDArray[np.uint64]


class ScoreTable:
    """An opened file of scores. key: field of the data's rows; keys: sorted hashes of the file's; columns: what joins.

    without: its rows that have no key. path: as a person has named it, in messages.
    """

    def __init__(self, file: Path, section: ScoreFileSection, options: Options) -> None:
        """Raises: DataError that names the file where it cannot be read or two of its rows have one key."""
        self.path, self.key = section.path, section.key
        try:
            self.reader = open_reader(file, options)
        except DataError as error:
            raise DataError(f"dataset.scores: {error}") from None
        self.files = self.reader.files
        self._their = section.file_key or section.key
        self.columns = self._chosen(section)
        names = sorted({self._their, *self.columns})
        kind = "scores" + content_id([options.split, names])
        self._folder = kept(self.files, kind, options, lambda folder: self._make(folder, names))

    def _chosen(self, section: ScoreFileSection) -> Columns:
        """Which columns are joined. Raises: DataError."""
        head = [row for row in self.reader.read(0, min(HEAD, len(self.reader))) if BROKEN not in row]
        typed = {field.name for field in self.reader.schema or () if is_number(field.type)}
        there = dict.fromkeys(name for row in head for name in row)
        told = f"it has: {', '.join(name[:40] for name in there) or 'no rows'}"
        if self._their not in there:
            raise DataError(f"dataset.scores: {self.path} has no field {self._their!r}; set key or file_key: {told}")
        if lacking := [name for name in section.columns if name not in there]:
            raise DataError(f"dataset.scores: {self.path} has no field {lacking[0]!r}; {told}")
        columns: Columns = dict(section.columns)
        if not columns:
            found, _ = proposed(head, {self._their}, {})
            columns = {name: "number" for name in there if _is_score(name, name in typed, head, self._their)}
            columns |= {n: ColumnSection(**c) for n, c in found.items() if isinstance(c, dict)}
        if not columns:
            raise DataError(
                f"dataset.scores: no column of {self.path} holds numbers or few words; name some in columns: {told}"
            )
        if dotted := [name for name in columns if "." in name]:
            raise DataError(f"dataset.scores: {dotted[0]} in {self.path} has a dot in its name; rename it there")
        return columns

    def _make(self, folder: Path, names: Sequence[str]) -> None:
        """Keep the columns, and where each key stands. Raises: DataError."""
        import pyarrow as pa

        schema = self._schema(names)
        hashes, without = [np.empty(0, np.uint64)], 0
        with pa.OSFile(str(folder / "columns.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for table in self._tables(schema):
                found, there = hashed(table[self._their].to_pylist())
                without += int((~there).sum())
                hashes.append(np.where(there, found, 0).astype(np.uint64))
                writer.write_table(table, max_chunksize=BLOCK)
        every = np.concatenate(hashes)
        hashes.clear()
        order = np.argsort(every)
        keys = np.lib.format.open_memmap(folder / "keys.npy", "w+", np.uint64, every.shape)
        for at in range(0, len(order), 1 << 20):
            keys[at : at + (1 << 20)] = every[order[at : at + (1 << 20)]]
        np.save(folder / "order.npy", order)
        (folder / "told.json").write_text(json_text({"without": without}), encoding="utf-8")
        self._folder = folder
        twice = np.flatnonzero((keys[1:] == keys[:-1]) & (keys[1:] != 0))
        if len(twice):
            rows = sorted(int(order[twice[0] + i]) for i in (0, 1))
            key = self.reader.read(rows[0], rows[0] + 1, [self._their])[0].get(self._their)
            more = f", and {len(twice) - 1} more are so" if len(twice) > 1 else ""
            raise DataError(
                f"dataset.scores: {str(key)[:80]!r} stands in rows {rows[0]} and {rows[1]} of {self.path} as "
                f"{self._their}{more}; leave one row a key there"
            )

    def _schema(self, names: Sequence[str]) -> Any:
        """The types of the columns; of a file without any, such that all its rows fit. Raises: DataError."""
        import pyarrow as pa

        if self.reader.schema is not None and isinstance(self.reader, Tables):
            return pa.schema([self.reader.schema.field(name) for name in names])
        schema = pa.schema([])
        for rows in self._rows(names):
            for name in names:
                try:
                    kind = pa.array([row.get(name) for row in rows]).type
                    schema = pa.unify_schemas([schema, pa.schema({name: kind})], promote_options="permissive")
                except (pa.ArrowException, OverflowError) as error:
                    raise DataError(
                        f"dataset.scores: {name} in {self.path} holds values of several kinds ({first_line(error)}); "
                        "mend the file, or leave the column out of columns"
                    ) from None
        return schema

    def _tables(self, schema: Any) -> Iterator[Any]:
        import pyarrow as pa

        if self.reader.schema is not None and isinstance(self.reader, Tables):
            for at in range(0, len(self.reader), BLOCK * 20):
                numbers = np.arange(at, min(at + BLOCK * 20, len(self.reader)))
                yield from (table.select(schema.names) for table in self.reader.tables(numbers))
            return
        for rows in self._rows(schema.names):
            yield pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema)

    def _rows(self, names: Sequence[str]) -> Iterator[Rows]:
        """All rows; one that cannot be read is empty."""
        for at in range(0, len(self.reader), BLOCK):
            yield self.reader.read(at, min(at + BLOCK, len(self.reader)), names)

    @cached_property
    def keys(self) -> Hashes:
        """Of all rows, sorted; 0 for those without a key."""
        return np.asarray(np.load(self._folder / "keys.npy", mmap_mode="r"))

    @cached_property
    def without(self) -> int:
        """Rows without a key."""
        return int(json.loads((self._folder / "told.json").read_text(encoding="utf-8"))["without"])

    @cached_property
    def _order(self) -> Numbers:
        return np.asarray(np.load(self._folder / "order.npy", mmap_mode="r"))

    @cached_property
    def _batches(self) -> tuple[Any, Numbers]:
        """(the file of columns, the ends of its batches)."""
        import pyarrow as pa

        file = pa.ipc.open_file(pa.memory_map(str(self._folder / "columns.arrow")))
        sizes = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        return file, np.cumsum(np.asarray(sizes, np.int64))

    @property
    def schema(self) -> Any:
        """Of the columns that are joined."""
        import pyarrow as pa

        return pa.schema([self._batches[0].schema.field(name) for name in self.columns])

    def __len__(self) -> int:
        return len(self.keys)

    def places(self, rows: Sequence[Row]) -> Numbers:
        """The row of this file that belongs to each row of the data; -1 where there is none."""
        asked, there = hashed([row.get(self.key) for row in rows])
        if not len(self.keys):
            return np.full(len(rows), -1)
        at = np.searchsorted(self.keys, asked)
        at[at == len(self.keys)] = 0
        hit = there & (self.keys[at] == asked)
        return np.where(hit, self._order[at], -1)

    def _parts(self, name: str, places: Numbers) -> Iterator[tuple[NDArray[np.intp], Any]]:
        """(which of the places, their values of a column), batch by batch."""
        import pyarrow as pa

        file, ends = self._batches
        asked = np.flatnonzero(places >= 0)
        batches = np.searchsorted(ends, places[asked], side="right")
        for number in np.unique(batches).tolist():
            own = asked[batches == number]
            begin = int(ends[number - 1]) if number else 0
            column = file.get_batch(number).column(file.schema.get_field_index(name))
            yield own, column.take(pa.array((places[own] - begin).tolist(), pa.int64()))

    def floats(self, name: str, places: Numbers) -> Floats | None:
        """A column's numbers at these places, NaN where there is none; None for a column that is not of numbers."""
        if not is_number(self.schema.field(name).type):
            return None
        found = np.full(len(places), np.nan)
        for own, values in self._parts(name, places):
            found[own] = as_floats(values)
        return found

    def cells(self, name: str, places: Numbers) -> list[Any]:
        """A column's values at these places, None where there is none."""
        found: list[Any] = [None] * len(places)
        for own, values in self._parts(name, places):
            for at, value in zip(own.tolist(), values.to_pylist(), strict=True):
                found[at] = value
        return found

    def examples(self) -> list[Any]:
        """Some of its keys."""
        return [row.get(self._their) for row in self.reader.read(0, min(EXAMPLES, len(self.reader)), [self._their])]


class ScoredReader:
    """Rows of another reader with the columns of files of scores as fields, None where a row has no score."""

    def __init__(self, reader: Reader, tables: Sequence[ScoreTable]) -> None:
        self._reader, self._tables = reader, tables
        self.files, self.left_out, self.unnamed = reader.files, reader.left_out, reader.unnamed
        self.note = reader.note

    @cached_property
    def schema(self) -> Any:
        """That of the data with the columns that are joined."""
        import pyarrow as pa

        own = self._reader.schema
        return None if own is None else pa.unify_schemas([own, *(table.schema for table in self._tables)])

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        """Rows start … stop-1."""
        joined = [t for t in self._tables if fields is None or not t.columns.keys().isdisjoint(fields)]
        asked = None if fields is None else {*fields, *(table.key for table in joined)}
        rows = self._reader.read(start, stop, asked)
        sound = [row for row in rows if BROKEN not in row]
        for table in joined:
            places = table.places(sound)
            for name in table.columns:
                if fields is None or name in fields:
                    for row, value in zip(sound, table.cells(name, places), strict=True):
                        row[name] = value
        return rows


def refuse_clashes(reader: Reader, tables: Sequence[ScoreTable]) -> None:
    """Raises: DataError for a score that is called like a field of the data or of another file, or an absent key."""
    head = [row for row in reader.read(0, min(FIRST, len(reader))) if BROKEN not in row]
    there = dict.fromkeys((name for row in head for name in row), "the data")
    for table in tables:
        if head and table.key not in there:
            raise DataError(
                f"dataset.scores: the data have no field {table.key!r}; set key to one of: "
                f"{', '.join(name[:40] for name in there)}"
            )
    for table in tables:
        for name in table.columns:
            if name in there:
                raise DataError(
                    f"dataset.scores: {name} stands in {table.path} and in {there[name]}; rename it there, or name the "
                    "columns that are to be joined in columns"
                )
            there[name] = table.path


def hashed(keys: Sequence[Any]) -> tuple[Hashes, NDArray[np.bool_]]:
    """(a hash of each key, which are keys); 5 and "5" are one, and so is a list of one."""
    texts = [_text(key) for key in keys]
    digests = b"".join(
        hashlib.blake2b((text or "").encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts
    )
    found = np.frombuffer(digests, np.uint64)
    return np.maximum(found, 1), np.fromiter((text is not None for text in texts), bool, len(texts))


def _text(key: Any) -> str | None:
    if isinstance(key, list | tuple) and len(key) == 1:
        (key,) = key
    if isinstance(key, str):
        return key or None
    if isinstance(key, float) and key.is_integer():
        key = int(key)  # as pandas writes whole numbers of a column with gaps
    return str(key) if isinstance(key, int) and not isinstance(key, bool) else None


def _is_score(name: str, typed: bool, head: Rows, key: str) -> bool:
    """True for a column of numbers that do not merely count its rows."""
    cells = [row[name] for row in head if row.get(name) is not None]
    numbers = all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells)
    return name != key and (typed or bool(cells)) and numbers and not counts_up(cells)
