"""A proposal in words: reason, cost, what would be left of the budget, what differs from the best recipe so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from app.text.mappers_and_prompts import told_of
from app.text.printable import one_line, printable
from app.tui.reading.snapshot import Snapshot
from app.tui.widgets.marks import percent
from engine.base.amounts import format_seconds

if TYPE_CHECKING:
    from engine.journal.store import Row

MOST = 8  # pools of a proposal that are compared with the best recipe
OTHERS = 3  # findings of other studies that are shown


def best_pool(s: Snapshot) -> tuple[str, str] | None:
    """(id, why it is the best so far): the confirmed recipe, else the first of the leaderboard."""
    if recipe := s.results.get("recipe"):
        return recipe["pool"], "the confirmed recipe"
    first = next((r for r in s.board or () if r["change"] is not None and not r["dropped"]), None)
    return (first["pool"], f"the best so far, {percent(first['change'])} %") if first else None


def detail(p: Row, s: Snapshot, best: Row | None, elsewhere: Sequence[Row] = ()) -> Text:
    """One proposal in full. best: the best recipe's pool with `content`, `label` and `why`, once it is known.

    elsewhere: what other studies of the same data found.
    """
    content = p["content"]
    text = Text(f"{p['id']} · {p['kind']} by {p['origin']}\n", "bold")
    text = Text.assemble(text, one_line(content["reason"]), "\n")
    if p["status"] in ("queued", "held"):
        text.append_text(left_after([p], s)).append("\n")
    elif p["cost"] is not None:
        text.append(f"its cost was put at about {format_seconds(p['cost'])}\n")
    if content.get("expected") is not None:
        text.append(f"expected: {content['expected']:+.1f} %\n")
    for d in s.decisions:
        if d["proposal"] == p["id"]:
            text.append(f"{d['verdict']} by {printable(d['who'])}: {printable(d['why'])} ({d['at'][:19]})\n")
    text.append_text(_differences(content.get("pools", ()), best))
    for line in _of_others(content.get("pools", ()), elsewhere):
        text.append(f"{one_line(line)}\n", "faint")
    for prompt in ((content.get("suggestion") or {}).get("experiment") or {}).get("prompts", ()):
        text.append(f"  prompt: {one_line(prompt)}\n")
    for line in _before_and_after(content.get("pools", ()), s):
        text.append(f"  {printable(line)}\n")
    if content.get("seeds"):
        more = f"; the control also at {', '.join(map(str, s))}" if (s := content.get("control_seeds")) else ""
        text.append(f"seeds {', '.join(map(str, content['seeds']))}{more}\n", "faint")
    text.append(f"the gate: {printable(content.get('gate', ''))}\n", "faint")
    if content.get("cites"):
        text.append(f"rests on {', '.join(content['cites'])}\n", "faint")
    return text.append(f"if rejected: {one_line(str(content.get('fallback', '')))}\n", "faint")


def _of_others(requests: Sequence[Row], elsewhere: Sequence[Row]) -> list[str]:
    """What other studies found of the statistics that these pools are cut by: shown, and counted nowhere."""
    layers = [layer for r in requests for layer in r["pool"]["layers"]]
    named = {part["statistic"] for layer in layers for part in layer["slices"]}
    return [f["text"] for f in elsewhere if named & set(f["statistics"])][:OTHERS]


def _before_and_after(requests: Sequence[Row], s: Snapshot) -> list[str]:
    """What the proposal's mappers did to rows, once they have run."""
    chains = [[rewriter(m) for m in r["pool"]["mappers"]] for r in requests if r["pool"].get("mappers")]
    found = [told for told in s.results.get("rewritten") or () if told["mappers"] in chains]
    return [f"{t['changed']} of {t['rows']} rows changed" for t in found] + [x for t in found for x in told_of(t)]


def left_after(proposals: Sequence[Row], s: Snapshot) -> Text:
    """What these cost together, and what that leaves of the budget."""
    costs = [p["cost"] for p in proposals]
    known = sum(c for c in costs if c is not None)
    unknown = costs.count(None)
    text = Text(f"costs about {format_seconds(known)}" if unknown < len(costs) else "its cost is not known yet")
    if unknown and unknown < len(costs):
        text.append(f" and {unknown} more whose cost is not known yet")
    left = s.limit - s.spent - known
    if left < 0:
        text.append(f"; {format_seconds(-left)} beyond what is left of the budget", "bad")
    elif unknown < len(costs):
        text.append(f"; {format_seconds(left)} of {format_seconds(s.limit)} would be left")
    return text


def _differences(requests: Sequence[Row], best: Row | None) -> Text:
    """Each pool of a proposal against the best recipe so far."""
    text = Text()
    wanted = [r for r in requests if r["kind"] != "control"]
    if wanted and best:
        text.append(f"against {best['why']}: {printable(best['label'])}\n", "bold")
    for r in wanted[:MOST]:
        text.append(f"  {printable(r['label'])}", "" if best else "bold")
        lines = difference(r["pool"], best["content"]) if best else []
        if best and not lines:
            text.append("  is the same pool", "faint")
        text.append("\n")
        for sign, line in lines:
            text.append(f"    {sign} {printable(line)}\n", {"+": "good", "−": "bad"}.get(sign, "warn"))
    if len(wanted) > MOST:
        text.append(f"  and {len(wanted) - MOST} more pools\n", "faint")
    return text


def difference(mine: Row, best: Row) -> list[tuple[str, str]]:
    """What a pool has (+), lacks (−) or has otherwise (~) than the best one: slices, repetition, layers, mappers."""
    ours, theirs = _slices(mine), _slices(best)
    lines = []
    for name, part in ours.items():
        if name not in theirs:
            lines.append(("+", f"{name} {bounds(part)}"))
        elif bounds(part) != bounds(theirs[name]):
            lines.append(("~", f"{name} {bounds(part)} instead of {bounds(theirs[name])}"))
    lines += [("−", f"{name} {bounds(part)}") for name, part in theirs.items() if name not in ours]
    here, there = _weights(mine), _weights(best)
    lines += [("+", f"{name} {share}") for name, share in here.items() if share != there.get(name)]
    lines += [("−", f"{name} {share}") for name, share in there.items() if name not in here]
    if mine["repetition"] != best["repetition"]:
        lines.append(("~", f"repetition ×{mine['repetition']} instead of ×{best['repetition']}"))
    if len(mine["layers"]) != len(best["layers"]):
        lines.append(("~", f"{len(mine['layers'])} layers of rows instead of {len(best['layers'])}"))
    ours_by, theirs_by = mine.get("mappers", []), best.get("mappers", [])
    lines += [("+", f"rewritten by {rewriter(m)}") for m in ours_by if m not in theirs_by]
    lines += [("−", f"rewritten by {rewriter(m)}") for m in theirs_by if m not in ours_by]
    if mine["size"] != best["size"]:
        lines.append(("~", f"{mine['size']} rows instead of {best['size']}"))
    return lines


def rewriter(mapper: Row) -> str:
    """A mapper of a stored pool with its parameters."""
    told = ", ".join(f"{name}={value}" for name, value in mapper["params"])
    return f"{mapper['op']}({told})" if told else str(mapper["op"])


def _weights(pool: Row) -> dict[str, str]:
    """Source → its share, of a mixture."""
    return {part["source"]: f"{100 * part['weight']:.3g} %" for part in pool["layers"] if part.get("source")}


def _slices(pool: Row) -> dict[str, Row]:
    """Statistic → slice, of a pool's first layer."""
    return {part["statistic"]: part for part in pool["layers"][0]["slices"]}


def bounds(part: Row) -> str:
    """`[10, 140)`, `below 3`, `from 12`, `3`, `not 3`, `not [10, 140)`."""
    low, high, closed = part["low"], part["high"], part.get("low_closed", True) and part.get("high_closed")
    if part.get("outside"):
        return f"not {bounds({**part, 'outside': False})}"
    if low is not None and low == high and closed:
        return _number(low)
    if low is None:
        return "any" if high is None else f"{'up to' if part.get('high_closed') else 'below'} {_number(high)}"
    if high is None:
        return f"{'from' if part.get('low_closed', True) else 'above'} {_number(low)}"
    left = "[" if part.get("low_closed", True) else "("
    return f"{left}{_number(low)}, {_number(high)}{']' if part.get('high_closed') else ')'}"


def _number(value: Any) -> str:
    return f"{value:g}"
