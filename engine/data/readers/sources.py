"""Several sources as one: the rows of each, one source after the other, under the dataset's own names of fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.base.addresses import address
from engine.base.errors import DataError
from engine.base.paths import folder_of, resolve
from engine.base.remote import is_remote
from engine.data.readers.contract import Options, Reader, Row, Rows
from engine.data.readers.opening import open_reader
from engine.settings.data import DatasetSection, SourceSection

SOURCE = "djsb_source"  # field that each row gets: the name of its source
FIELDS = ("text", "images", "videos", "id")
FIRST = 100  # rows that a field must stand in


@dataclass(frozen=True)
class _Part:
    """A source. names: field of the dataset → of the source. free: a field in the way of one of these → its new name.

    below: the folder that paths of media start from, as the study names it.
    """

    reader: Reader
    names: Mapping[str, str]
    free: Mapping[str, str]
    below: Path

    def wanted(self, fields: Collection[str] | None) -> list[str] | None:
        """The source's names of these fields of the dataset."""
        back = {new: old for old, new in self.free.items()} | dict(self.names)
        return None if fields is None else [back.get(field, field) for field in fields]

    def row(self, row: Row, source: str, media: Collection[str]) -> Row:
        """A row under the dataset's names, its media relative to the folder of the study."""
        moved = set(self.names.values())
        found = {self.free.get(field, field): value for field, value in row.items() if field not in moved}
        found |= {ours: row[theirs] for ours, theirs in self.names.items() if theirs in row}
        found |= {field: _from(found[field], self.below) for field in media if field in found}
        return {**found, SOURCE: source}


class SourcesReader:
    """The sources of a study, in the order of their names.

    spans: name → its row numbers. Raises: DataError that names a source which cannot be read, has no rows, or lacks a
    field.
    """

    schema = None
    unnamed = ()

    def __init__(self, folder: Path, section: DatasetSection, options: Options) -> None:
        """folder: what relative paths start from, those of media in the rows too."""
        self.spans: dict[str, range] = {}
        self._parts: dict[str, _Part] = {}
        self._media = [name for name in (section.images, section.videos) if name]
        end = 0
        for name, source in sorted(section.sources.items()):
            path = resolve(folder, source.path)
            if is_remote(path) and self._media:
                raise DataError(
                    f"dataset.sources.{name}: sources at addresses hold text only; fetch it, and give its path"
                )
            below = path if address(source.path) else Path(source.path).expanduser()
            reader = _opened(
                name, path, source, section, replace(options, split=source.split, text=source.text or section.text)
            )
            for _ in path.relative_to(folder_of(path)).parts:
                below = below.parent
            self._parts[name] = _Part(reader, *_names(source, section), below)
            self.spans[name] = range(end, end + len(reader))
            end += len(reader)
        self.files = [file for part in self._parts.values() for file in part.reader.files]
        self.left_out = tuple(
            (f"{name}: {why}", n) for name, part in self._parts.items() for why, n in part.reader.left_out
        )

    @property
    def note(self) -> str:
        """The rows of each source, and what its reader notes."""
        return ", ".join(
            f"{len(self.spans[name])} rows of {name}" + (f" ({part.reader.note})" if part.reader.note else "")
            for name, part in self._parts.items()
        )

    def __len__(self) -> int:
        return max(span.stop for span in self.spans.values())

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        """Rows start … stop-1, each with its source."""
        rows: Rows = []
        for name, span in self.spans.items():
            first, last = max(start, span.start), min(stop, span.stop)
            if first < last:
                part = self._parts[name]
                read = part.reader.read(first - span.start, last - span.start, part.wanted(fields))
                rows += [part.row(row, name, self._media) for row in read]
        return rows


def _opened(name: str, path: Path, source: SourceSection, section: DatasetSection, options: Options) -> Reader:
    """The reader of a source, which has rows and the study's fields."""
    try:
        reader = open_reader(path, options)
    except DataError as error:
        raise DataError(f"dataset.sources.{name}: {error}") from None
    if not len(reader):
        raise DataError(f"dataset.sources.{name}: {path} has no rows; give a file with rows, or take the source out")
    present = {field for row in reader.read(0, min(FIRST, len(reader))) for field in row}
    for field in FIELDS:
        own = getattr(source, field) or getattr(section, field)
        if getattr(section, field) is not None and own not in present:
            raise DataError(
                f"dataset.sources.{name}: {path} has no field {own!r}; set dataset.sources.{name}.{field} to one of: "
                f"{', '.join(sorted(present)) or 'none'}"
            )
    return reader


def _names(source: SourceSection, section: DatasetSection) -> tuple[dict[str, str], dict[str, str]]:
    """(field of the dataset → of the source; field of the source that is in the way → its new name)."""
    pairs = [(getattr(section, field), getattr(source, field)) for field in FIELDS]
    names = {ours: theirs for ours, theirs in pairs if ours and theirs and ours != theirs}
    free = {}
    for ours in set(names) - set(names.values()):
        end = names[ours]
        while end in names:  # the name that is not needed any more
            end = names[end]
        free[ours] = end
    return names, free


def _from(value: Any, below: Path) -> Any:
    """Media with their paths put below a folder; bytes stay."""
    if isinstance(value, list | tuple):
        return [_from(one, below) for one in value]
    if isinstance(value, dict) and not value.get("bytes") and isinstance(value.get("path"), str):
        return {**value, "path": str(below / value["path"])}
    return str(below / value) if isinstance(value, str) and value else value
