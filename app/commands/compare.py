"""`djsb compare A B`: two studies' leaderboards side by side. Nothing in them changes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from app.text.printable import one_line, say, say_table
from app.text.studies import MATCHES, side_text
from engine.journal.store import Row
from engine.study.view import view_study


def compare(a: Path, b: Path) -> Row:
    """Both leaderboards matched pool by pool, how the settings differ, and whether they may be compared."""
    from engine.evidence.side_by_side import compare as side_by_side

    with (
        closing((left := view_study(a, untouched=True)).store),
        closing((right := view_study(b, untouched=True)).store),
    ):
        return side_by_side(left, right).to_json()


def show_compare(found: Row) -> None:
    """As people read it: warnings first, then a table, then how the settings differ."""
    for line in found["warnings"]:
        say(f"! not comparable: {one_line(line)}")
    for line in found["cautions"]:
        say(f"! {one_line(line)}")
    say_table(
        [[one_line(p["label"]), MATCHES[p["match"]], *side_text(p["a"]), *side_text(p["b"])] for p in found["pairs"]],
        ["pool", "match", "A %", "A bound", "A", "B %", "B bound", "B"],
        ("match",),
    )
    say(f"A: {one_line(found['a'])}; B: {one_line(found['b'])}")
    for p in found["pairs"]:
        if p["bounds"]:
            say(f"{one_line(p['label'])}: A {one_line(p['bounds'][0])}; B {one_line(p['bounds'][1])}")
    for line in found["differs"]:
        say(f"A → B: {one_line(line)}")
