"""A dataset on disk: JSON, Parquet or a Hugging Face folder, read by row number.

Rows are never held in memory together; workers read their own ranges.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.ids import content_id, json_text
from engine.base.parallel import workers_elsewhere
from engine.base.paths import folder_of, resolve
from engine.base.remote import is_remote
from engine.data.fingerprints import content_hash, hash_of
from engine.data.readers.contract import Options, Reader
from engine.data.readers.contract import as_list as as_list  # others take it from here
from engine.data.readers.kept import own_place
from engine.data.readers.opening import open_reader
from engine.data.readers.plugged import reader_identity
from engine.data.readers.saved import is_saved
from engine.data.readers.scored import ScoredReader, ScoreTable, refuse_clashes
from engine.data.readers.sources import SourcesReader
from engine.data.readers.splits import files_of
from engine.settings.data import DatasetSection, ScoreFileSection

SURROGATE = re.compile("[\ud800-\udfff]")


@lru_cache(maxsize=8)
def _shared_reader(path: Path, options: Options, _changed: int) -> Reader:
    return open_reader(path, options)


@lru_cache(maxsize=8)
def _shared_sources(folder: Path, fields: str, options: Options, _changed: tuple[int, ...]) -> SourcesReader:
    return SourcesReader(folder, DatasetSection.model_validate_json(fields), options)


@lru_cache(maxsize=8)
def _shared_scores(path: Path, section: str, options: Options, _changed: int) -> ScoreTable:
    return ScoreTable(path, ScoreFileSection.model_validate_json(section), options)


def _stamp(path: Path) -> int:
    """When what a path means has changed last."""
    if is_remote(path) and not path.exists():
        return 0  # a pattern
    return (path if path.exists() else folder_of(path)).stat().st_mtime_ns


@dataclass(frozen=True)
class Dataset:
    """One dataset file and the names of its fields.

    path: of several sources the folder that theirs start from. index: see `Options`. home: folder that paths of files
    of scores start from. joins: the rows have those scores as fields.
    """

    path: Path
    fields: DatasetSection
    index: Path | None = field(default=None, compare=False)
    home: Path | None = field(default=None, compare=False)
    joins: bool = False

    @cached_property
    def reader(self) -> Reader:
        """The rows; their scores as fields where the dataset joins them."""
        return ScoredReader(self._plain, self.scores) if self.joins and self.fields.scores else self._plain

    @property
    def joined(self) -> Dataset:
        """The same with the scores of each row as fields."""
        return replace(self, joins=True) if self.fields.scores else self

    @cached_property
    def scores(self) -> tuple[ScoreTable, ...]:
        """Files of scores beside the data, opened once in a process. Raises: DataError."""
        tables = []
        for section in self.fields.scores:
            path = resolve(self.home or Path(), section.path)
            options = Options(section.split, index=self.index)
            tables.append(_shared_scores(path, section.model_dump_json(), options, _stamp(path)))
        refuse_clashes(self._plain, tables)
        return tuple(tables)

    @cached_property
    def _plain(self) -> Reader:
        """Opened when first used, once in a process, so that a Dataset can be sent to a worker with every chunk."""
        options = Options(self.fields.split, self.fields.max_bad, self.index, text=self.fields.text)
        if self.fields.sources:
            stamps = tuple(_stamp(part.path) for part in self.parts.values())
            return _shared_sources(self.path, self.fields.model_dump_json(), options, stamps)
        return _shared_reader(self.path, options, _stamp(self.path))

    @cached_property
    def parts(self) -> dict[str, Dataset]:
        """Source → its own data, under its own names of fields; nothing where there is one source."""
        return {
            name: Dataset(
                resolve(self.path, source.path), self.fields.model_copy(update={"sources": {}, **given}), self.index
            )
            for name, source in self.fields.sources.items()
            for given in [source.model_dump(exclude_none=True)]
        }

    @property
    def spans(self) -> Mapping[str, range]:
        """Source → its row numbers; nothing where there is one source."""
        return self._plain.spans if isinstance(self._plain, SourcesReader) else {}

    def __getstate__(self) -> dict[str, Any]:
        # on other machines this process's own place is another folder
        place = None if workers_elsewhere() else own_place()
        return {"path": self.path, "fields": self.fields, "index": self.index or place, "home": self.home,
                "joins": self.joins}  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __len__(self) -> int:
        return len(self.reader)

    def chunks(self, size: int) -> Iterator[tuple[int, int]]:
        """Ranges that cover all rows."""
        for start in range(0, len(self), size):
            yield start, min(start + size, len(self))

    def take(self, rows: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """The rows of these numbers, which must ascend; read block by block."""
        block = 4096
        for first in np.unique(rows // block).tolist():
            start = first * block
            read = self.reader.read(start, min(start + block, len(self)))
            a, b = np.searchsorted(rows, (start, start + block))
            yield from (read[row - start] for row in rows[a:b].tolist())

    @property
    def key(self) -> dict[str, Any]:
        """What caches of the rows hang on beside their content."""
        own = self.fields.model_dump(exclude=self.fields.unkeyed)
        joined = self.scores if self.joins else ()
        return own | ({"scores": [hash_of(table.files) for table in joined]} if joined else {})

    @property
    def modalities(self) -> frozenset[str]:
        """Which of text, image and video the rows have."""
        named = {"text": self.fields.text, "image": self.fields.images, "video": self.fields.videos}
        return frozenset(kind for kind, name in named.items() if name)

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of the data file(s), all their bytes; media files count by their paths in the rows.

        In shards the media count by their names and sizes. What a plug-in reads hangs on its version, too.
        """
        identity = reader_identity(self.path)
        return content_id([self._content, identity]) if identity else self._content

    @property
    def _content(self) -> str:
        split = self.fields.split
        if self.fields.sources:
            return content_id(sorted((name, part.fingerprint) for name, part in self.parts.items()))
        if own := getattr(self._plain, "fingerprint", None):
            return str(own)
        if is_remote(self.path):
            return hash_of(self._plain.files)
        if self.path.is_dir() and is_saved(self.path):
            return content_hash(self.path / split if split else self.path)
        if self.path.is_dir() and not any(self.path.glob("*.parquet")):
            return hash_of(self._plain.files)
        if self.path.exists() and split is None:
            return content_hash(self.path)
        return hash_of(files_of(self.path, split))


def utf8(text: str) -> str:
    """Half of a surrogate pair, which JSON can hold and UTF-8 cannot, counts as one unknown character."""
    return SURROGATE.sub("\ufffd", text)


def json_line(row: dict[str, Any], default: Callable[[Any], Any] | None = None) -> str:
    """A row as JSON, letters as they are but for half surrogate pairs. Raises: TypeError, as json.dumps does."""
    text = json_text(row, ensure_ascii=False, default=default)
    return json_text(row, default=default) if not text.isascii() and SURROGATE.search(text) else text
