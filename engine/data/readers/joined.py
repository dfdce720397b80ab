"""Several files of one format and of one schema, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from engine.base.errors import DataError
from engine.data.readers.contract import BROKEN, Lines, Numbers, Reader, Rows, Tables, as_schema, first_line

SAMPLE = 100  # rows that tell the fields of a file without a schema


class JoinedReader:
    """Rows of all files in their order."""

    unnamed = ()

    def __init__(self, readers: Sequence[Reader], split: str | None = None, bad: Sequence[str] = ()) -> None:
        """bad: why other files are left out. Raises: DataError where the files are not of one schema."""
        self._readers, self._split, self._bad = readers, split, bad
        self._ends = np.cumsum([len(reader) for reader in readers])
        self.files = [file for reader in readers for file in reader.files]
        self._fields = [_fields(reader) for reader in readers]
        self._refuse_others()
        self.schema = self._unified()

    def _refuse_others(self) -> None:
        """Fields may be missing in some files; two files that lack fields of each other are no one dataset."""
        most = max(self._fields, key=len)
        for file, fields in zip(self.files, self._fields, strict=True):
            if other := sorted(fields - most):
                lacks = ", ".join(sorted(most - fields))
                raise DataError(
                    f"{file} has fields that other files lack ({', '.join(other)}), and lacks some of theirs "
                    f"({lacks}); give files of one schema"
                )

    def _unified(self) -> Any:
        schemas = [reader.schema for reader in self._readers]
        if any(schema is None for schema in schemas):
            return None
        import pyarrow as pa

        try:
            return pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise DataError(
                f"{self.files[0].parent}: its files have columns of different types ({first_line(error)}); give files "
                "of one schema"
            ) from None

    @cached_property
    def left_out(self) -> tuple[tuple[str, int], ...]:
        total: Counter[str] = Counter()
        for reader in self._readers:
            total.update(dict(reader.left_out))
        return tuple(total.items())

    @cached_property
    def note(self) -> str:
        """The split, the number of files, and fields that only some of them have."""
        every = set().union(*self._fields)
        sizes = [len(reader) for reader in self._readers]
        lacking = Counter(name for fields, n in zip(self._fields, sizes, strict=True) if n for name in every - fields)
        told = [f"split {self._split}"] if self._split else []
        told += [f"{len(self.files)} files", *([f"{sizes.count(0)} of them empty"] if 0 in sizes else [])]
        told += [*(f"{n} of them without {name}" for name, n in sorted(lacking.items()))]
        told += [f"{len(self._bad)} files left out: {self._bad[0]}"] if self._bad else []
        return ", ".join([*told, *dict.fromkeys(reader.note for reader in self._readers if reader.note)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        """Rows start … stop-1."""
        rows: Rows = []
        for reader, begin, a, b in self._parts(start, min(stop, len(self))):
            rows += reader.read(a - begin, b - begin, fields)
        return rows

    def _parts(self, start: int, stop: int) -> Iterator[tuple[Reader, int, int, int]]:
        """(reader, number of its first row, first and last of the rows that are asked for)."""
        first = int(np.searchsorted(self._ends, start, side="right"))
        edges = [0, *self._ends.tolist()][first:]
        for reader, (begin, end) in zip(self._readers[first:], pairwise(edges), strict=False):
            if begin >= stop:
                return
            yield reader, begin, max(start, begin), min(stop, end)

    def _numbers(self, numbers: Numbers) -> Iterator[tuple[Reader, Numbers]]:
        """Each reader with those of the rows that are its own."""
        begin = 0
        for reader, end in zip(self._readers, self._ends.tolist(), strict=True):
            a, b = np.searchsorted(numbers, (begin, end))
            if b > a:
                yield reader, numbers[a:b] - begin
            begin = end

    def lines(self, numbers: Numbers) -> Iterator[bytes] | None:
        """The bytes of these rows, which ascend, a line each; None where rows are no lines here."""
        parts = [r.lines(own) if isinstance(r, Lines) else None for r, own in self._numbers(numbers)]
        return None if None in parts else (block for part in parts for block in part or ())


class JoinedTables(JoinedReader):
    """The same of files that have columns."""

    def lines(self, numbers: Numbers) -> None:
        """Rows are no lines here."""

    def tables(self, numbers: Numbers) -> Iterator[Any]:
        """These rows, which ascend, as tables of the reader's schema."""
        for reader, own in self._numbers(numbers):
            assert isinstance(reader, Tables)
            yield from (as_schema(table, self.schema) for table in reader.tables(own))


def joined(readers: Sequence[Reader], split: str | None, bad: Sequence[str] = ()) -> Reader:
    """One reader for all. bad: why other files are left out. Raises: DataError where they are not of one schema."""
    if len(readers) == 1 and not bad:
        return readers[0]
    kind = JoinedTables if all(isinstance(reader, Tables) for reader in readers) else JoinedReader
    return kind(readers, split, bad)


def _fields(reader: Reader) -> set[str]:
    if reader.schema is not None:
        return set(reader.schema.names)
    return {name for row in reader.read(0, min(SAMPLE, len(reader))) for name in row} - {BROKEN}
