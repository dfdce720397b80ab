"""Rows that are conversations, as LLaVA and ShareGPT have them: their text is written from their turns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from engine.data.conversations import read_conversation
from engine.data.readers.contract import BROKEN, Reader, Row, Rows
from engine.data.sift import Unusable

FORMS = ("conversations", "messages")
LOOK = 20  # rows that tell whether a file is of conversations


class TurnsReader:
    """Rows of another reader, with a text: of one question the answer, as a caption; of several all that is said."""

    schema = None

    def __init__(self, reader: Reader, form: str, text: str) -> None:
        self._reader, self._form, self._text = reader, form, text
        self.files: Sequence[Path] = reader.files
        self.left_out, self.unnamed = reader.left_out, reader.unnamed
        self.fingerprint: str | None = getattr(reader, "fingerprint", None)
        self.note = ", ".join(filter(None, (reader.note, f"{text} written from {form}")))

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, start: int, stop: int, fields: Collection[str] | None = None) -> Rows:
        """Rows start … stop-1. A conversation that cannot be read has no text."""
        if fields is not None and self._text in fields:
            fields = {*fields, self._form}
        return [self._told(row) for row in self._reader.read(start, stop, fields)]

    def _told(self, row: Row) -> Row:
        if BROKEN in row or row.get(self._form) is None:
            return row
        try:
            pairs = read_conversation({self._form: row[self._form]}).pairs
        except Unusable as error:
            return {BROKEN: f"{error.kind}: {error}"}
        text = pairs[0][1] if len(pairs) == 1 else "\n".join(said for pair in pairs for said in pair)
        return {**row, self._text: text}


def with_text(reader: Reader, text: str | None) -> Reader:
    """The reader, or where no row has a text and they are conversations, one that writes the text of these."""
    if text is None or (reader.schema is not None and text in reader.schema.names):
        return reader
    head = reader.read(0, min(LOOK, len(reader)))
    if any(text in row for row in head):
        return reader
    form = next((form for form in FORMS if any(_is_talk(row.get(form)) for row in head)), None)
    return TurnsReader(reader, form, text) if form else reader


def _is_talk(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) for turn in value)
