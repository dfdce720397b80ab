"""What a pool keeps and drops, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator

from app.text.printable import one_line, say, say_table
from engine.journal.store import Row

SHOWN = 100  # characters of a row
SEEN = 0.05  # deviations from which on a difference is told


def contents_lines(found: Row) -> Iterator[str]:
    """Shares, warnings and what has changed most, a line each; without the rows."""
    share = 100 * found["kept"] / max(1, found["rows"])
    yield f"keeps {found['kept']:,} of {found['rows']:,} rows ({share:.1f} %)"
    for s in found["sources"]:
        yield f"source {s['name']}: {s['kept']:,} of {s['rows']:,} rows ({100 * s['kept'] / max(1, s['rows']):.1f} %)"
    yield from (f"! {line}" for line in found["warnings"])


def changed(found: Row) -> list[list[str]]:
    """What has changed most: kind, name, mean or share of the kept rows and of all, difference in deviations.

    What is almost the same is left out.
    """
    statistics = [
        ["statistic", s["name"], f"{s['kept']:.4g}", f"{s['all']:.4g}", f"{s['shift']:+.2f}"]
        for s in found["statistics"] if abs(s["shift"]) >= SEEN
    ]  # fmt: skip
    shares = [
        [kind, s["name"], f"{100 * s['kept']:.1f} %", f"{100 * s['all']:.1f} %", f"{s['shift']:+.2f}"]
        for kind, shifts in (("word", found["words"]), ("beginning", found["templates"]))
        for s in shifts if abs(s["shift"]) >= SEEN
    ]  # fmt: skip
    return statistics + shares


def show_contents(found: Row) -> None:
    """As people read it."""
    for line in contents_lines(found):
        say(one_line(line))
    say(f"\nwhat differs most, over {found['looked']:,} rows (difference in standard deviations of all rows):")
    say_table([[one_line(cell) for cell in row] for row in changed(found)], ["of", "name", "kept", "all", "difference"])
    for what, rows in (("kept", found["stays"]), ("dropped", found["goes"])):
        say(f"\nsome rows that are {what}:")
        for r in rows:
            say(f"  {r['row']:>8}  {one_line(r['text'])[:SHOWN]}")
