"""What a running command tells: JSON lines in {out}/metrics.jsonl and on standard output.

However much it prints, little is held: a piece of a file at a time, one line of at most LONGEST bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.base.errors import TrialError
from engine.base.lines import LONGEST, Lines, read_object
from engine.base.secrets import redact
from engine.settings.study import Study
from engine.tasks.contract import Report

PIECE = 2**20  # bytes of a file that are read at once
PIECES = 8  # at one look; what a quick command has written besides is read at the next
SEEN = 100  # names that are noted for an error message
SHOWN = 80  # characters of what is wrong in an error message


class _Tail:
    """What is added to a file. name: as errors call it."""

    def __init__(self, file: Path, name: str) -> None:
        self._file, self._name = file, name
        self._lines, self._at, self._number = Lines(), 0, 0

    def read(self, last: bool) -> Iterator[tuple[bytes | None, str]]:
        """New lines and where they stand; None for one that is too long. last: read to the end, be it half a line."""
        if not self._file.is_file():
            return
        with self._file.open("rb") as file:
            file.seek(self._at)
            pieces = 0
            while (last or pieces < PIECES) and (data := file.read(PIECE)):
                pieces += 1
                self._at += len(data)
                for line in self._lines.feed(data):
                    yield line, self._where()
        if last and (rest := self._lines.rest()) != b"":
            yield rest, self._where()

    def _where(self) -> str:
        self._number += 1
        return f"{self._name} line {self._number}"


class Numbers:
    """Reads the JSON lines of a running command: curve points where there is a step, and the metrics' last values.

    On standard output other lines are left aside.
    """

    def __init__(self, study: Study, trial: str, report: Report, file: Path, output: Path) -> None:
        """file: metrics.jsonl. output: where standard output goes."""
        self._names = [m.name for m in study.command.metrics]
        self._trial, self._report, self._file = trial, report, file
        self._output, self._lines = _Tail(output, "standard output"), _Tail(file, str(file))
        self._last: dict[str, tuple[Any, str]] = {}  # metric → its last value, and where it stood
        self._wrong: str | None = None
        self._seen: set[str] = set()

    def read(self, last: bool = False) -> None:
        """Read what is new. last: lines without an end count too."""
        for line, where in self._output.read(last):
            if line is not None and line.lstrip().startswith(b"{"):
                self._take(read_object(line), where)
        for line, where in self._lines.read(last):
            row = None if line is None else read_object(line)
            self._take(row, where)
            if row is None and line != b"" and self._wrong is None:
                self._wrong = f"{where} {_what_is(line)}; write one object a line"

    def _take(self, row: dict[str, Any] | None, where: str) -> None:
        if row is None:
            return
        if len(self._seen) < SEEN:
            self._seen.update(name[:SHOWN] for name in row)
        self._last |= {name: (row[name], where) for name in self._names if name in row}
        step = row.get("step")
        if isinstance(step, int) and not isinstance(step, bool):
            if isinstance(row.get("total"), int):
                self._report.total = row["total"]
            values = {n: float(v) for n, v in row.items() if n not in ("step", "total") and _is_number(v)}
            self._report.curve(self._trial, step, **values)

    def final(self) -> dict[str, float]:
        """The metrics.

        Raises: TrialError that names file and line when one is missing, no number or not finite.
        """
        if self._wrong:
            raise TrialError(self._wrong)
        metrics = {}
        for name in self._names:
            if name not in self._last:
                there = " ".join(", ".join(sorted(self._seen)[:10]).split()) or "nothing"
                raise TrialError(
                    f"the command gave no {name}: neither {self._file.name} in {{out}} nor its standard output has a "
                    f'JSON line with it ({there} found); print {{"{name}": …}} on a line of its own'
                )
            value, where = self._last[name]
            if not _is_number(value) or not math.isfinite(value):
                shown = "a list or an object" if isinstance(value, list | dict) else json.dumps(value)[:SHOWN]
                raise TrialError(f"{where}: {name} is {redact(shown)}, not a finite number; see what the training did")
            metrics[name] = float(value)
        return metrics


def _what_is(line: bytes | None) -> str:
    if line is None:
        return f"has more than {LONGEST:,} bytes"
    return f"is no JSON object: {redact(line.decode('utf-8', 'replace')[:SHOWN])!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
