"""What the fields of the rows hold: numbers, texts that are numbers, other texts, and how many rows have nothing there.

It is counted while rows are scanned, and kept beside the scan.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.base.durable import is_whole, write_text
from engine.base.ids import json_text
from engine.base.parallel import run_chunks
from engine.data.dataset import Dataset
from engine.data.readers.contract import BROKEN, Row
from engine.records.accounting import Accounting

CHUNK = 5_000
NAMES = 200  # fields that are told apart
DEPTH = 3  # of mappings
LONGEST = 32  # characters of a number
MIXED = 0.1  # share of numbers from which on a field of texts is told of
EXAMPLE = 40


@dataclass
class Held:
    """Values of a field by kind. digits: texts that are numbers. example: the first text that is none."""

    number: int = 0
    digits: int = 0
    text: int = 0
    other: int = 0
    example: str = ""

    @property
    def all(self) -> int:
        """How many rows have a value."""
        return self.number + self.digits + self.text + self.other

    @property
    def is_mixed(self) -> bool:
        """True where some values are numbers and others are texts."""
        return self.text > 0 and self.number + self.digits > MIXED * self.all


@dataclass
class Kinds:
    """rows: those that were read. fields: by name; dots lead into mappings."""

    rows: int = 0
    fields: dict[str, Held] = field(default_factory=dict)

    def count(self, rows: Iterable[Row]) -> None:
        """Add rows; broken ones do not count."""
        for row in rows:
            if BROKEN not in row:
                self.rows += 1
                self._count(row, "", DEPTH)

    def _count(self, row: dict[str, Any], prefix: str, depth: int) -> None:
        for key, value in row.items():
            if value is None:
                continue
            if isinstance(value, dict):
                if depth and not value.keys() & {"bytes", "offset"}:  # no media
                    self._count(value, f"{prefix}{key}.", depth - 1)
                continue
            name = f"{prefix}{key}"
            held = self.fields.get(name)
            if held is None:
                if len(self.fields) >= NAMES:
                    continue
                held = self.fields[name] = Held()
            if isinstance(value, str):
                if _is_number(value):
                    held.digits += 1
                else:
                    held.text += 1
                    held.example = held.example or value[:EXAMPLE]
            elif isinstance(value, int | float):
                held.number += value == value
            else:
                held.other += 1

    def add(self, other: Kinds) -> None:
        """Those of a later chunk."""
        self.rows += other.rows
        for name, more in other.fields.items():
            if name not in self.fields and len(self.fields) >= NAMES:
                continue
            held = self.fields.setdefault(name, Held())
            held.number, held.digits = held.number + more.number, held.digits + more.digits
            held.text, held.other = held.text + more.text, held.other + more.other
            held.example = held.example or more.example


def keep(kinds: Kinds, file: Path) -> None:
    """Write them beside a scan."""
    write_text(file, json_text({"rows": kinds.rows, "fields": {n: vars(held) for n, held in kinds.fields.items()}}))


def kinds_of(data: Dataset, file: Path, workers: int) -> Kinds:
    """What a scan has counted; of a scan by an older djsb it is counted now."""
    if not is_whole(file, sums=True):
        total = Kinds()
        for kinds in run_chunks(_count, [(data, *chunk) for chunk in data.chunks(CHUNK)], workers):
            total.add(kinds)
        keep(total, file)
    told = json.loads(file.read_text(encoding="utf-8"))
    return Kinds(int(told["rows"]), {name: Held(**held) for name, held in told["fields"].items()})


def _count(job: tuple[Dataset, int, int]) -> Kinds:
    data, start, stop = job
    kinds = Kinds()
    kinds.count(data.reader.read(start, stop))
    return kinds


def columns_told(data: Dataset, kinds: Kinds) -> Iterator[Accounting]:
    """A line for each field that is a statistic."""
    for name, column in data.fields.columns.items():
        if name not in kinds.fields and len(kinds.fields) >= NAMES:
            continue
        held = kinds.fields.get(name, Held())
        wrong = 0
        if column == "number":
            wrong = held.text + held.other
            note = "numbers" + (f", {held.digits} of them written as text" if held.digits else "")
        else:
            note = f"pools of {', '.join(map(str, column.values or column.tags or ()))}; all others are one"
        no_number = f"no number ({held.example!r})" if held.example else "no number"
        left = [("without a value", kinds.rows - held.all), (no_number, wrong)]
        yield Accounting(f"field {name}", kinds.rows, held.all - wrong, tuple((why, n) for why, n in left if n), note)


def mixtures_told(data: Dataset, kinds: Kinds) -> list[str]:
    """Other fields that hold numbers in some rows and texts in others."""
    fields = data.fields
    leave = {fields.text, fields.images, fields.videos, fields.id, *fields.columns}
    return [
        f"{name} holds numbers and texts: {held.text} of {held.all} values are no numbers ({held.example!r})"
        for name, held in kinds.fields.items()
        if held.is_mixed and name not in leave and f"{name} is text, as" not in data.reader.note
    ]


def _is_number(text: str) -> bool:
    if len(text) > LONGEST or not any(c.isdigit() for c in text[:3]):
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True
