"""Studies beside each other, in words: for the command line and the UI."""

from __future__ import annotations

from app.text.numbers import VERDICTS
from engine.journal.store import Row
from engine.records.leaderboard import bound_text

WORDS = {"running": "▶ running", "paused": "⏸ paused", "awaits": "◐ awaits you", "ended": "● ended",
         "stopped": "■ stopped", "not started": "□ not started", "broken": "✗ broken"}  # fmt: skip
MATCHES = {"same": "same bounds", "label": "other bounds", "only a": "A only", "only b": "B only"}


def best_text(best: Row | None) -> str:
    """`▲ +12.0 %, at least +3.1 %`."""
    if best is None:
        return "–"
    sure = f", {bound_text(best['verdict'], best['bound'])}" if best["bound"] is not None else (
        f" [{best['ci_low']:+.1f}, {best['ci_high']:+.1f}]" if best["ci_low"] is not None else "")  # fmt: skip
    return f"{VERDICTS[best['verdict']]} {best['change']:+.1f} %{sure}"


def trials_text(counts: dict[str, int]) -> str:
    """`20 of 34, 1 failed`."""
    all_ = sum(n for state, n in counts.items() if state != "CANCELLED")
    failed = counts.get("FAIL", 0)
    return f"{counts.get('COMPLETE', 0)} of {all_}" + (f", {failed} failed" if failed else "")


def time_text(at: str | None) -> str:
    """`2026-11-30 08:08`, UTC, of a stored time."""
    return (at or "–")[:16].replace("T", " ")


def side_text(side: Row | None) -> list[str]:
    """(change, bound or interval, verdict) of one study."""
    if side is None or side["change"] is None:
        return ["–", "–", "–" if side is None else side["verdict"]]
    if side["bound"] is not None:
        sure = bound_text(side["verdict"], side["bound"])
    else:
        sure = "–" if side["ci_low"] is None else f"[{side['ci_low']:+.1f}, {side['ci_high']:+.1f}]"
    return [f"{side['change']:+.1f}", sure, f"{VERDICTS[side['verdict']]} {side['verdict']}"]
