"""Media of rows that are written elsewhere: named from where the output lies, or copied beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.base.confine import inside
from engine.base.durable import PART, checksum
from engine.base.errors import DataError
from engine.base.paths import folder_of
from engine.base.remote import is_remote
from engine.data.dataset import Dataset, as_list
from engine.data.media import as_file, file_at, is_part, locate
from engine.data.output import Gone
from engine.data.rows_file import Numbers, Row
from engine.data.samples import Media, suffix_of


@dataclass(frozen=True)
class Placement:
    """How the media fields of a dataset's rows are written.

    root: folder of what was unpacked of tars beside the data, or the data file's own. folder: where the rows will lie.
    media: folder, below that one, into which all media are copied; None: they stay where they are. bytes_stay: media
    that lie in the rows themselves are left there. fields: those of media that are written.
    """

    data: Dataset
    root: Path
    folder: Path
    media: Path | None
    bytes_stay: bool
    fields: tuple[str, ...]

    @cached_property
    def base(self) -> Path:
        """The data file's folder."""
        return folder_of(self.data.path)

    @property
    def changes(self) -> bool:
        """False where rows can stay as they are."""
        return bool(self.fields) and (self.media is not None or self.folder.resolve() != self.base.resolve())

    def refuse_tars(self) -> None:
        """Raises: DataError where media lie in a tar beside the data and the rows will lie elsewhere."""
        if self.fields and self.media is None and is_remote(self.base):
            raise DataError(f"media of {self.data.path} lie at its address: give --with-media to copy them")
        if (
            self.fields
            and self.media is None
            and self.root != self.base
            and self.folder.resolve() != self.base.resolve()
        ):
            raise DataError(
                f"media of {self.data.path} lie in a tar beside it, which {self.folder} has not: give --with-media to "
                "copy them, or write beside the data"
            )

    def change(self, numbers: Numbers, rows: list[Row]) -> list[Row]:
        """The rows with their media as they are named from the folder."""
        return [self._row(number, row) for number, row in zip(numbers.tolist(), rows, strict=True)]

    def _row(self, number: int, row: Row) -> Row:
        placed = dict(row)
        try:
            for name in self.fields:
                if (before := row.get(name)) is not None:
                    put = [self._value(value) for value in as_list(before)]
                    placed[name] = put if isinstance(before, list | tuple) else put[0] if put else before
        except ValueError as error:
            raise gone(self.data, number, error) from error
        return placed

    def _value(self, value: Any) -> Any:
        if is_part(value) and self.media is None:
            return {**value, "path": self._named(value["path"], file_at(value["path"], self.root, self.base))}
        source = locate(value, self.root, self.base)
        if isinstance(source, bytes):
            if self.media is None or (self.bytes_stay and not _is_name(value)):
                return value
            return as_file(value, self._copy(checksum(source), source), len(source))
        if self.media is not None:
            file = source.resolve()
            stat = file.stat()
            path = self._copy(checksum(repr((str(file), stat.st_size, stat.st_mtime_ns)).encode()), file)
        else:
            path = self._named(value["path"] if isinstance(value, dict) else value, source)
        return as_file(value, path, source.stat().st_size)

    def _named(self, name: str, file: Path) -> str:
        """What a file that stays where it is, and that the rows call so, is called from the folder."""
        return name if Path(name).is_absolute() else os.path.relpath(file.absolute(), self.folder.resolve())

    def _copy(self, name: str, source: Media) -> str:
        """Copy one file, whole or not at all; what the rows call it. Those of one name are the same."""
        assert self.media is not None
        target = inside(self.folder, f"{self.media.name}/{name[:2]}/{name}{suffix_of(source)}")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(PART + target.name)
            if isinstance(source, bytes):
                part.write_bytes(source)
            else:
                shutil.copyfile(source, part)
            part.replace(target)
        return target.relative_to(self.folder).as_posix()


def _is_name(value: Any) -> bool:
    """True where a row names a file, and does not hold its bytes."""
    return isinstance(value, str) or (isinstance(value, dict) and not value.get("bytes"))


def gone(data: Dataset, number: int, why: object) -> Gone:
    """What is said of a row whose media were there when it was read, and are not when it is written."""
    return Gone(f"{data.path}, row {number}: {why}; put it back, and run the same command again")


def sources(data: Dataset, root: Path, fields: Sequence[str]) -> Callable[[int, Row], dict[str, list[Media]]]:
    """A function that gives what a row's media fields hold. Raises there: DataError."""
    base = folder_of(data.path)

    def of_row(number: int, row: Row) -> dict[str, list[Media]]:
        try:
            return {name: [locate(value, root, base) for value in as_list(row.get(name))] for name in fields}
        except ValueError as error:
            raise gone(data, number, error) from error

    return of_row
