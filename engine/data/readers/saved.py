"""A folder written by `datasets.save_to_disk`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from engine.base.errors import DataError
from engine.data.readers.contract import Numbers, Options, Rows, as_schema, rows_of

TABLE = 4_096  # rows that are copied at once


class SavedReader:
    """A folder written by `datasets.save_to_disk`; of several splits the named one, or train where none is named."""

    left_out = ()

    def __init__(self, folder: Path, options: Options) -> None:
        import datasets

        split = options.split

        datasets.disable_progress_bars()
        loaded = datasets.load_from_disk(str(folder))
        self.note, self.unnamed = "", tuple[str, ...]()
        self.files = sorted(p for p in (folder / split if split else folder).rglob("*") if p.is_file())
        if isinstance(loaded, datasets.DatasetDict):
            chosen = split or "train"
            if chosen not in loaded:
                raise DataError(f"{folder} has the splits {', '.join(loaded)}; name one of them as dataset.split")
            self.unnamed = tuple(loaded) if len(loaded) > 1 and split is None else ()
            others = ", ".join(sorted(set(loaded) - {chosen}))
            self.note = f"split {chosen}" + (f", not {others}" if others else "")
            loaded = loaded[chosen]
        elif split is not None:
            raise DataError(f"{folder} holds one split; leave dataset.split out")
        self._data = loaded.with_format("arrow")  # nothing is decoded: media as {bytes, path}

    @property
    def schema(self) -> Any:
        """Of the rows, as Arrow has it."""
        return self._data.features.arrow_schema

    def __len__(self) -> int:
        return len(self._data)

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        table = self._data[start:stop]
        table = table if fields is None else table.select([n for n in table.column_names if n in fields])
        return rows_of(table, 0, len(table), "an Arrow file")

    def tables(self, numbers: Numbers) -> Iterator[Any]:
        """These rows, which ascend."""
        for at in range(0, len(numbers), TABLE):
            yield as_schema(self._data[numbers[at : at + TABLE]], self.schema)


def is_saved(folder: Path) -> bool:
    """True for a folder written by `datasets.save_to_disk`."""
    return (folder / "state.json").exists() or (folder / "dataset_dict.json").exists()
