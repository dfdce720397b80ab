"""Images that lie in a row, or in a larger file: they are read when they are decoded."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from engine.base.paths import folder_of
from engine.data.dataset import Dataset, as_list
from engine.data.media import locate
from engine.tasks.shared.media import ROW, VALUE


@dataclass(frozen=True)
class Inner:
    """An image that is no file of its own. Two are equal where they lie at the same place.

    place: {path, offset, size} as JSON; empty where row `row` of the data has its bytes in `name`, at place `at`.
    """

    place: str
    row: int
    name: str
    data: Dataset = field(compare=False, repr=False)
    at: int = 0

    @property
    def entry(self) -> bytes:
        """What stands for it in a list of sources."""
        return (
            VALUE + self.place.encode()
            if self.place
            else ROW + json.dumps([self.row, self.name, self.at], allow_nan=False).encode()
        )

    def read(self) -> bytes | Path:
        """Its bytes. Raises: OSError, ValueError."""
        if self.place:
            value = json.loads(self.place)
        else:
            value = as_list(self.data.reader.read(self.row, self.row + 1, [self.name])[0][self.name])[self.at]
        folder = folder_of(self.data.path)
        return locate(value, folder, folder)
