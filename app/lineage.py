"""The lineage in words: cycles with their recipes and checkpoints, and how the ranking moved between them."""

from __future__ import annotations

from collections.abc import Sequence

from app.printable import say, say_table
from engine.store import Row

HEAD = ["cycle", "starts from", "recipe", "change %", "interval", "to cycle 1 %", "interval", "trial", "checkpoint"]


def show_lineage(lineage: Sequence[Row]) -> None:
    """A cycle a line, then the moves."""
    rows = []
    for c in lineage:
        recipe, gain = c["recipe"], c["against_first"]
        rows.append([
            str(c["cycle"]), c["init"] or "the study's model", recipe["label"] if recipe else c["unconfirmed"] or "–",
            *_change(recipe), *_change(gain), c["checkpoint"] or "–", c["path"] or "–",
        ])  # fmt: skip
    say_table(rows, HEAD)
    for c in lineage:
        if c["moves"]:
            say(f"cycle {c['cycle']}: {moves_text(c['moves'])}")


def moves_text(moves: Row) -> str:
    """How the ranking changed since the cycle before, in a sentence (Table 14)."""
    up, down = (
        f"{len(moves[way])} {verb}" + (f" by {moves['mean_' + way]:.2f} places on average" if moves[way] else "")
        for way, verb in (("up", "rose"), ("down", "fell"))
    )
    return f"{len(moves['both'])} of the top {moves['top']} statistics were there before; {up}, {down}"


def _change(found: Row | None) -> list[str]:
    """A change and its interval."""
    if found is None or found["change"] is None:
        return ["–", "–"]
    interval = "–" if found["ci_low"] is None else f"[{found['ci_low']:+.1f}, {found['ci_high']:+.1f}]"
    return [f"{found['change']:+.1f}", interval]
