"""Which fields of the data may be statistics, by a look at its first rows: what `djsb init` proposes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from engine.settings.data import PLAIN

MOST = 20  # words of a field that are proposed
FEWEST = 3  # distinct numbers that make a statistic
Row = Mapping[str, Any]


def proposed(rows: Sequence[Row], leave: Collection[str], taken: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """(`dataset.columns` for rows, which fields could not be named and why).

    leave: fields that are text, media or ids. taken: statistic → the OP that gives it.
    """
    columns: dict[str, Any] = {}
    told: list[str] = []
    for name in dict.fromkeys(key for row in rows for key in row):
        found = None if name in leave else _column([row[name] for row in rows if row.get(name) is not None])
        if found is None:
            continue
        if not PLAIN.fullmatch(name) or "." in name:
            told.append(f"{name[:40]!r}: its name cannot be a statistic's; rename it in the data")
        elif name in taken:
            told.append(f"{name}: it is called like the statistic of {taken[name]}; rename it in the data")
        else:
            columns[name] = found
    return columns, told


def _column(cells: Sequence[Any]) -> Any:
    """What a field is by its values, or None where it gives no pools."""
    if not cells:
        return None
    if all(isinstance(cell, bool) for cell in cells):
        return {"values": [False, True]} if len(set(cells)) == 2 else None
    if all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells):
        return "number" if len(set(cells)) >= FEWEST and not counts_up(cells) else None
    if all(isinstance(cell, str) for cell in cells):
        words = Counter(cells)
        few = 2 <= len(words) <= min(MOST, len(cells) // 2)
        return {"values": named} if few and (named := _named(words)) else None
    if all(isinstance(cell, list) and all(isinstance(tag, str) for tag in cell) for cell in cells):
        words = Counter(tag for cell in cells for tag in set(cell))
        often = Counter({tag: n for tag, n in words.items() if 0.02 * len(cells) <= n < len(cells)})
        return {"tags": named} if often and (named := _named(often)) else None
    return None


def counts_up(cells: Sequence[Any]) -> bool:
    """True for whole numbers that count rows."""
    return len(cells) > 1 and all(
        isinstance(cell, int) and after - cell == 1 for cell, after in itertools.pairwise(cells)
    )


def _named(words: Counter[str]) -> list[str]:
    """The most frequent words that can name a pool."""
    return [word for word, _ in words.most_common() if PLAIN.fullmatch(word)][:MOST]
