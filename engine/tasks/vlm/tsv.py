"""Tables of tab-separated columns, with quotes as pandas writes them or with quotes that are only letters."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from engine.base.errors import DataError
from engine.base.text import read_text

WIDTH = "__width__"  # in a row that has more or fewer columns than the head: what is to be said of it
Table = list[tuple[int, list[str]]]  # number of the line, columns


def read_tsv(file: Path, needed: Sequence[str]) -> tuple[list[tuple[str, dict[str, str]]], str]:
    """((place, row) of every row, how quotes were read or an empty text).

    A quoted column may go over lines, so quotes decide what a row is. A file whose lines all have the columns of the
    head is read line by line where quotes would join lines; else quotes are read where more rows are whole with them.
    Raises: DataError when a needed column is missing.
    """
    text = read_text(file)
    lines = _by_line(text)
    quoted = _by_quotes(text) if '"' in text else lines
    if not lines:
        raise DataError(f"{file} is empty; give a table with the columns {', '.join(needed)}")
    bad, bad_quoted = _uneven(lines), 1.0 if quoted is None else _uneven(quoted)
    joined = quoted is not None and len(quoted) != len(lines)
    use_lines = quoted is None or bad < bad_quoted or (bad == 0 and joined)
    rows = lines if use_lines or quoted is None else quoted
    head = [name.strip() for name in rows[0][1]]
    if lacking := [name for name in needed if name not in head]:
        raise DataError(f"{file}, line 1: no column {', '.join(lacking)}; MMBench's TSV has them")
    found = []
    for number, columns in rows[1:]:
        row = dict(zip(head, columns, strict=False))
        if len(columns) != len(head):
            row = {WIDTH: f"it has {len(columns)} columns, the head has {len(head)}"}
        found.append((f"{file}, line {number}", row))
    note = "" if '"' not in text else "quotes are letters" if use_lines else "quotes enclose columns"
    return found, note


def _by_line(text: str) -> Table:
    lines = enumerate(text.split("\n"), 1)
    return [(number, line.rstrip("\r").split("\t")) for number, line in lines if line.strip()]


def _by_quotes(text: str) -> Table | None:
    """The rows where quotes enclose columns; None where they cannot."""
    csv.field_size_limit(1 << 30)
    lines = text.splitlines(keepends=True) if "\r" in text and "\n" not in text else text.split("\n")
    reader = csv.reader((f"{line}\n" for line in lines), delimiter="\t", strict=True)
    rows: Table = []
    try:
        number = 1
        for columns in reader:
            if any(column.strip() for column in columns):
                rows.append((number, columns))
            number = reader.line_num + 1
    except csv.Error:
        return None
    return rows


def _uneven(rows: Table) -> float:
    """Share of the rows that have another number of columns than the first."""
    return sum(len(columns) != len(rows[0][1]) for _, columns in rows) / max(1, len(rows))
