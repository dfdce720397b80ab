"""Beyond filters, in words: what mappers made of rows and what that did, and prompts on each cycle's checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from app.text.printable import say, say_table
from engine.journal.store import Row

SHOWN = 3  # examples of a mapper
WIDTH = 160  # characters of a text


def show_mappers(found: Sequence[Row]) -> None:
    """A mapped pool a line against the same rows as they are (Table 15), then rows before and after."""
    if not found:
        say("no mapped pool has results yet; propose one with: djsb propose --by person, kind mapper")
        return
    rows = []
    for r in found:
        told, fresh = r["rewritten"], r["fresh"]
        rows.append([
            r["verdict"], r["label"], r["against"], str(r["size"]), *_change(r), str(r["seeds"]), *_change(fresh),
            "–" if told is None else f"{told['changed']:,} of {told['rows']:,}", r["pool"],
        ])  # fmt: skip
    head = [
        "verdict",
        "pool",
        "against",
        "rows",
        "change %",
        "interval",
        "seeds",
        "fresh %",
        "interval",
        "changed",
        "id",
    ]
    say_table(rows, head)
    for r in found:
        for line in told_of(r["rewritten"]) if r["rewritten"] else ():
            say(f"{r['label']}: {line}")


def told_of(told: Row) -> list[str]:
    """What mappers did, a line each: what stayed as it was, then examples."""
    lines = [f"{n} row(s) stay as they were: {reason}" for reason, n in told["kept"].items()]
    for e in told["examples"][:SHOWN]:
        lines.append(f"row {e['row']} before: {_side(e['before'])}")
        lines.append(f"row {e['row']} after:  {_side(e['after'])}")
    return lines


def _side(side: Row) -> str:
    text = " ".join((side["text"] or "").split())
    images = " ".join(i or "(in the row)" for i in side["images"])
    return " | ".join(filter(None, (text if len(text) <= WIDTH else text[: WIDTH - 1] + "…", images)))


def show_prompts(found: Row | None) -> None:
    """A prompt a line, a cycle's checkpoint a column (Table 16)."""
    if found is None:
        say("no prompt was asked yet; propose some with: djsb propose --by person, kind prompt")
        return
    columns = [f"cycle {c['cycle']} %" for c in found["columns"]]
    rows = [
        ["study's own" if r["own"] else "", *(_percent(c["change"]) for c in r["cells"]), *compared(r), r["prompt"]]
        for r in found["rows"]
    ]
    say_table(rows, ["", *columns, *(["first vs last"] if len(columns) > 1 else []), "prompt"])
    say(
        f"change of {', '.join(found['metrics'])} against the control of the same seed; one checkpoint a cycle, so no "
        "interval: " + ", ".join(f"cycle {c['cycle']} {c['trial']}" for c in found["columns"])
    )


def compared(row: Row) -> list[str]:
    """Whether a prompt did better in the first cycle or in the last; nothing with one cycle."""
    changes = [c["change"] for c in row["cells"]]
    if len(changes) < 2:
        return []
    first, last = changes[0], changes[-1]
    return ["–" if first is None or last is None else ">" if first > last else "<" if first < last else "="]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _change(found: Row | None) -> list[str]:
    """A change and its interval."""
    if found is None or found["change"] is None:
        return ["–", "–"]
    interval = "–" if found["ci_low"] is None else f"[{found['ci_low']:+.1f}, {found['ci_high']:+.1f}]"
    return [f"{found['change']:+.1f}", interval]
