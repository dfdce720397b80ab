"""`djsb compare A B`: two studies' leaderboards side by side. Nothing in them changes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from app.text.numbers import VERDICTS
from app.text.printable import one_line, say, say_table
from engine.journal.store import Row
from engine.records.leaderboard import bound_text
from engine.study.view import view_study


def compare(a: Path, b: Path) -> Row:
    """Both leaderboards matched pool by pool, how the settings differ, and whether they may be compared."""
    from engine.evidence.side_by_side import compare as side_by_side

    with (
        closing((left := view_study(a, untouched=True)).store),
        closing((right := view_study(b, untouched=True)).store),
    ):
        return side_by_side(left, right).to_json()


def side_text(side: Row | None) -> list[str]:
    """(change, bound or interval, verdict) of one study."""
    if side is None or side["change"] is None:
        return ["–", "–", "–" if side is None else side["verdict"]]
    if side["bound"] is not None:
        sure = bound_text(side["verdict"], side["bound"])
    else:
        sure = "–" if side["ci_low"] is None else f"[{side['ci_low']:+.1f}, {side['ci_high']:+.1f}]"
    return [f"{side['change']:+.1f}", sure, f"{VERDICTS[side['verdict']]} {side['verdict']}"]


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


MATCHES = {"same": "same bounds", "label": "other bounds", "only a": "A only", "only b": "B only"}
