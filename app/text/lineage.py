"""Cycles and scales in words: recipes and checkpoints, how the ranking moved, and recipes on other models and data."""

from __future__ import annotations

from collections.abc import Sequence

from app.text.printable import say, say_table
from engine.journal.store import Row

HEAD = ["cycle", "starts from", "recipe", "change %", "interval", "to cycle 1 %", "interval", "trial", "checkpoint"]
SCALES = [
    "recipe", "model", "data", "rows", "samples", "FLOPs a sample", "FLOPs", "change %", "interval", "seeds"
]  # fmt: skip


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


def show_scaling(found: Row) -> None:
    """A point a line with what its training costs (as in Table 13), then the lines through them."""
    if not found["points"]:
        say("nothing was scaled yet; propose it with: djsb propose --by person, kind transfer (docs/guides/cycles.md)")
    rows = [
        [
            p["label"], p["checkpoint"] or p["preset"], p["dataset"], f"{p['rows']:,}", f"{p['samples']:,}",
            flops_text(p["flops_per_sample"]), flops_text(p["flops"]), *_change(p), str(p["seeds"]),
        ]
        for p in found["points"]
    ]  # fmt: skip
    if rows:
        say_table(rows, SCALES)
    for pool, line in found["lines"].items():
        say(f"{pool}: {line_text(line)}")
    for text in stability_text(found.get("stability")):
        say(text)


def flops_text(flops: float | None) -> str:
    """`12T`: three figures and a unit."""
    if flops is None:
        return "–"
    units = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))
    size, unit = next((u for u in units if flops >= u[0]), (1.0, ""))
    return f"{flops / size:.3g}{unit}"


def line_text(line: Row) -> str:
    """What the fitted line says, and where it is drawn on beyond what was measured."""
    slope = f"{line['slope']:+.2f} points for ten times the FLOPs"
    if line["slope_low"] is None:
        return f"{slope} between two points, which have no interval: two points are no law, and nothing is drawn on"
    ahead = line["ahead"]
    return (
        f"{slope} [{line['slope_low']:+.2f}, {line['slope_high']:+.2f}] over {line['points']} points; extrapolated to "
        f"{flops_text(ahead['flops'])} FLOPs {ahead['change']:+.1f} % [{ahead['ci_low']:+.1f}, {ahead['ci_high']:+.1f}]"
    )


def stability_text(found: Row | None) -> list[str]:
    """How alike the orders of pools are over sizes, and where effects vanish, a line each."""
    if found is None:
        return []
    if not found["agreements"] and not found["faded"]:
        return ["order over sizes: no three pools ran at two sizes or lengths, so nothing is known of it"]
    lines = [
        f"order of {a['pools']} pools, {scale_text(a['small'])} against {scale_text(a['large'])}: "
        f"Kendall {_coefficient(a['kendall'])}, Spearman {_coefficient(a['spearman'])}"
        for a in found["agreements"]
    ]
    for f in found["faded"]:
        how = "has turned" if f["turned"] else "is no longer shown"
        lines.append(
            f"{f['label']}: {f['seen_change']:+.1f} % at {scale_text(f['seen'])}; at {scale_text(f['lost'])} it {how} "
            f"({f['lost_change']:+.1f} % [{f['ci_low']:+.1f}, {f['ci_high']:+.1f}])"
        )
    return lines


def scale_text(scale: Row) -> str:
    """`448 rows, 900 samples`."""
    part = "" if scale["share"] >= 1 else f", {100 * scale['share']:g} % of the steps"
    return f"{scale['rows']:,} rows, {scale['samples']:,} samples{part}"


def _coefficient(found: Row) -> str:
    """`+0.62 [+0.31, +0.81]`."""
    interval = "no interval" if found["low"] is None else f"[{found['low']:+.2f}, {found['high']:+.2f}]"
    return f"{found['value']:+.2f} {interval}"


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
