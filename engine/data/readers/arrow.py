"""Arrow files (.arrow, .feather): their batches lie in the file as in memory, so it is mapped, not read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.errors import DataError
from engine.data.readers.contract import Numbers, Options, Rows, first_line, picked


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
            raise DataError(
                f"{file} is no Arrow file, or cut short ({first_line(error)}); fetch or write it again"
            ) from error
        self.schema = opened.schema
        self._table = pa.Table.from_batches(batches, opened.schema)
        self._ends = np.cumsum([batch.num_rows for batch in batches])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        """Rows start … stop-1."""
        names = self.schema.names if fields is None else [n for n in self.schema.names if n in fields]
        rows: Rows = self._table.select(names).slice(start, max(0, stop - start)).to_pylist()
        return rows

    def tables(self, numbers: Numbers) -> Iterator[Any]:
        """These rows, which ascend."""
        for begin, end in zip([0, *self._ends[:-1].tolist()], self._ends.tolist(), strict=True):
            a, b = np.searchsorted(numbers, (begin, end))
            if b > a:
                yield picked(self._table.slice(begin, end - begin), numbers[a:b] - begin)
