"""The confirmed recipe in one line."""

from __future__ import annotations

from engine.journal.store import Row


def recipe_line(best: Row) -> str:
    return (
        f"{best['label']}: {best['change']:+.1f} % [{best['ci_low']:+.1f}, {best['ci_high']:+.1f}] against the control "
        f"on {best['seeds']} fresh seeds; keeps {best['kept']} of {best['rows']} rows"
        + (f"; repeated ×{best['repetition']} it did as well as with more rows" if best["repetition"] > 1 else "")
    )
