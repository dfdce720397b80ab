"""Arrow files (.arrow, .feather): their batches lie in the file as in memory, so it is mapped, not read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.base import machine
from engine.base.errors import DataError
from engine.data.readers.contract import BrokenFile, Numbers, Options, Rows, first_line, picked, refuse_twins, rows_of


class ArrowReader:
    """Rows of one Arrow file: the format with an index at its end, or the stream, as `datasets` keeps it."""

    left_out, unnamed, note = (), (), ""

    def __init__(self, file: Path, _: Options) -> None:
        """Raises: DataError where it is cut short, or no Arrow file."""
        import pyarrow as pa

        self.files = [file]
        try:
            with pa.memory_map(str(file)) as content:
                indexed = content.read(6) == b"ARROW1"
                content.seek(0)
                opened = pa.ipc.open_file(content) if indexed else pa.ipc.open_stream(content)
                batches = [opened.get_batch(n) for n in range(opened.num_record_batches)] if indexed else list(opened)
        except (pa.ArrowException, OSError) as error:
            machine.refuse(error, str(file))
            raise BrokenFile(
                f"{file} is no Arrow file, or cut short ({first_line(error)}); fetch or write it again"
            ) from error
        self.schema = opened.schema
        refuse_twins(file, self.schema.names)
        self._table = pa.Table.from_batches(batches, opened.schema)
        self._ends = np.cumsum([batch.num_rows for batch in batches])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        """Rows start … stop-1."""
        names = self.schema.names if fields is None else [n for n in self.schema.names if n in fields]
        return rows_of(self._table.select(names), start, max(start, stop), "an Arrow file")

    def tables(self, numbers: Numbers) -> Iterator[Any]:
        """These rows, which ascend."""
        for begin, end in zip([0, *self._ends[:-1].tolist()], self._ends.tolist(), strict=True):
            a, b = np.searchsorted(numbers, (begin, end))
            if b > a:
                taken = picked(self._table.slice(begin, end - begin), numbers[a:b] - begin)
                try:
                    taken.validate(full=True)
                except ValueError as error:
                    raise DataError(f"{self.files[0]} is broken ({first_line(error)}); write it again") from None
                yield taken
