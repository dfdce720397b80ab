"""The pools that a pipeline ranked, as they read on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from app.text.numbers import VERDICTS, percent
from app.text.printable import say, say_table
from engine.journal.store import Row


def lines_of(board: Row) -> tuple[list[list[str]], list[str]]:
    """(rows of the table, its columns)."""
    from engine.pipeline.board import short  # SciPy: the UI starts without it
    from engine.pools.control import is_control

    metrics = list(board["rows"][0]["means"])
    rows = [
        ["–" if is_control(row["pool"]) else str(place), _verdict(row["verdict"]), short(row["pool"]),
         percent(row["change"]),
         "–" if row["ci_low"] is None else f"[{row['ci_low']:+.1f}, {row['ci_high']:+.1f}]", str(row["seeds"]),
         *(_spread(row, name) for name in metrics)]
        for place, row in enumerate(board["rows"], 1)
    ]  # fmt: skip
    return rows, ["rank", "verdict", "pool", "change %", "interval", "seeds", *metrics]


def show_boards(found: Sequence[Row]) -> None:
    """The pools of each ranking job, best first; below them what is not known."""
    for board in found:
        say("")
        if board.get("title"):
            say(f"{board['title']}:")
        say_table(*lines_of(board))
        for note in board["notes"]:
            say(note)


def _verdict(verdict: str | None) -> str:
    return f"{VERDICTS[verdict]} {verdict}" if verdict else "–"


def _spread(row: Row, name: str) -> str:
    mean, spread = row["means"][name], row["deviations"][name]
    if mean is None:
        return "–"
    return f"{mean:.4g}" if spread is None else f"{mean:.4g} ± {spread:.2g}"
