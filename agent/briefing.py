"""The briefing: a text about a study that fits a small model's context window.

All of it is our own: names of statistics, numbers, ids. Rows of the dataset are shown by a tool only, and the results
on fresh seeds are shown nowhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.base.amounts import format_seconds
from engine.base.ids import json_text
from engine.data.columns import ColumnRun
from engine.data.cuts import keeps, overlap
from engine.evidence.answer import answer
from engine.evidence.elsewhere import blind, elsewhere
from engine.evidence.ranking import Ranked, rank
from engine.evidence.sentences import effect_text
from engine.journal import decisions, proposals, results, trials
from engine.proposals.kinds import prompt as prompting
from engine.proposals.kinds.registry import runnable
from engine.records.pool import BUCKETS
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy, last_rung

MAX = 14_000  # characters, about 5,000 tokens
SHOWN = 12  # pools of the leaderboard, best first
LAST = 4  # and the worst


def write_briefing(opened: OpenStudy, limit: float, prior: bool = True) -> str:
    """The study as it stands. limit: device-seconds of its whole budget. prior: with what other studies found."""
    ranked = [r for r in rank(opened) if r.effect.change is not None]
    parts = [
        "\n".join(["## Answer so far", *answer(opened).blind]),
        _study(opened), _budget(opened, limit), _leaderboard(ranked), _statistics(opened), _clusters(opened),
        _overlaps(opened, ranked[:8]), _mappers(opened), _prompts(opened),
        _elsewhere(opened) if prior else "", _asked(opened),
    ]  # fmt: skip
    text = "\n\n".join(p for p in parts if p)
    return text if len(text) <= MAX else text[:MAX] + "\n[cut here: use the tools to look closer]"


def _study(opened: OpenStudy) -> str:
    study = opened.study
    share, seeds = last_rung(opened)
    stages = Counter(
        t.stage for t in trials.of_setup(opened.store, opened.setup) if t.state == "COMPLETE" and not t.fresh
    )
    finished = ", ".join(f"{stage} {n}" for stage, n in sorted(stages.items())) or "none"
    return "\n".join(
        [
            "## Study",
            f"task {study.task}, model {study.model.preset}; {int(opened.scan.good.sum())} good rows, pools of "
            f"{opened.pool_size} rows; search {study.search.strategy}",
            f"metrics that count: {', '.join(m.name for m in opened.main_metrics)}; changes are percent of the control",
            f"a proposed pool and its control run with {seeds} seed(s) at {100 * share:g} % of a whole training",
            f"finished trials: {finished}",
            f"kinds that can run here: {', '.join(runnable(opened.task))}",
        ]
    )


def _budget(opened: OpenStudy, limit: float) -> str:
    accounts = Accounts(opened, limit)
    share, _ = last_rung(opened)
    spent = accounts.spent()
    cost = accounts.estimate(max(1, int(opened.pool_size * opened.epochs * share)))
    return (
        f"## Budget\n{format_seconds(spent)} of {format_seconds(limit)} of device time spent, "
        f"{format_seconds(max(0.0, limit - spent))} left; one trial of a proposed pool takes "
        f"{'an unknown time' if cost is None else format_seconds(cost)}"
    )


def _leaderboard(ranked: Sequence[Ranked]) -> str:
    if not ranked:
        return "## Leaderboard\nno results yet"
    shown = [*ranked[:SHOWN], *[r for r in ranked[-LAST:] if r not in ranked[:SHOWN]]]
    lines = ["## Leaderboard (best first; id, pool, change against the control, verdict)"]
    for place, r in enumerate(ranked, 1):
        if r in shown:
            dropped = "; dropped by the race" if r.dropped else ""
            lines.append(
                f"{place}. {r.pool.id} {r.label} ({r.kind}, {r.pool.size} rows, {100 * r.share:g} % of the steps): "
                f"{effect_text(r)}, {r.effect.verdict}{dropped}"
            )
    return "\n".join(lines)


def _statistics(opened: OpenStudy) -> str:
    lines = ["## Statistics (smallest, bounds between the buckets, largest; also: pools beside the buckets)"]
    good = opened.scan.good
    words = {run.field: run.options for run in opened.op_plan[0] if isinstance(run, ColumnRun) and run.kind == "values"}
    for source in opened.statistic_columns:
        values = source.column.value[good]
        values = values[~np.isnan(values)]
        if len(values):
            codes = words.get(source.statistic)
            own = [c for c in opened.cuts if c.slice.statistic == source.statistic]
            ends = {c.slice.high for c in own if c.bucket in BUCKETS[opened.study.pools.buckets]} - {None}
            cuts = ", ".join(f"{e:.6g}" for e in sorted(e for e in ends if e is not None))
            beside = [c.bucket for c in own if c.reason is None and c.bucket not in BUCKETS[opened.study.pools.buckets]]
            lines.append(
                f"{source.statistic} ({source.op}): {values.min():.6g} | {cuts or '–'} | {values.max():.6g}"
                + (f"; also {', '.join(beside)}" if beside else "")
                + (f"; its numbers stand for words: {_codes(codes)}" if codes else "")
            )
    return "\n".join(lines)


def _codes(words: Sequence[Any]) -> str:
    """`0 en, 1 de, 2 all others`."""
    return ", ".join(f"{number} {word}" for number, word in enumerate([*words, "all others"]))


def _clusters(opened: OpenStudy) -> str:
    table = results.STATISTICS.get(opened.store, opened.setup)
    if table is None:
        return ""
    groups: dict[int, list[str]] = {}
    for name, number in table.clusters.items():
        groups.setdefault(number, []).append(name)
    return "\n".join(
        [
            "## Correlations",
            "Ward clusters of statistics: " + " | ".join(", ".join(g) for g in groups.values()),
            "strongest (Pearson's r): " + "; ".join(f"{a} and {b} {r:+.2f}" for r, a, b in table.pairs()[:6]),
        ]
    )


def _overlaps(opened: OpenStudy, ranked: Sequence[Ranked]) -> str:
    known = {c.statistic for c in opened.statistic_columns}
    pools = [r for r in ranked if r.pool.slices and all(s.statistic in known for s in r.pool.slices)]
    masks = []
    for r in pools:
        kept = opened.scan.good.copy()
        for s in r.pool.slices:
            kept &= keeps(s, opened.columns[s.statistic])
        masks.append(kept)
    table = overlap(masks)
    pairs = sorted(
        ((table[i][j], pools[i].label, pools[j].label) for i in range(len(pools)) for j in range(i)), reverse=True
    )[:8]
    if not pairs:
        return ""
    return "## Overlaps of the rows that pools keep (intersection over union)\n" + "; ".join(
        f"{a} and {b} {x:.2f}" for x, a, b in pairs
    )


def _mappers(opened: OpenStudy) -> str:
    """Mapped pools against the same rows as they are."""
    lines = [
        f"{r.pool.id} {r.label}: {effect_text(r)}, {r.effect.verdict}"
        for r in rank(opened, ("mapper",)) if r.effect.change is not None
    ]  # fmt: skip
    return "\n".join(["## Rewritten pools (change against the same rows as they are)", *lines]) if lines else ""


def _prompts(opened: OpenStudy) -> str:
    """Caption prompts against the study's own. Holds no result of the recipe on fresh seeds."""
    table = prompting.table(opened)
    if table is None:
        return ""
    own, *others = table.rows
    lines = [f"## Prompts asked of each cycle's checkpoint (points of percent against the study's own: {own.prompt})"]
    for row in others:
        pairs = [(c.change, o.change) for c, o in zip(row.cells, own.cells, strict=True)]
        points = ", ".join("–" if c is None or o is None else f"{c - o:+.2f}" for c, o in pairs)
        lines.append(f"{points}: {row.prompt}")
    return "\n".join(lines)


def _elsewhere(opened: OpenStudy) -> str:
    """What other studies of the same data found, in words of this study alone; nothing of their fresh seeds."""
    lines = blind(elsewhere(opened), opened.columns)
    head = "## Other studies of this data found (a prior to try here: no evidence of this study, not to be cited)"
    return "\n".join([head, *lines]) if lines else ""


def _asked(opened: OpenStudy) -> str:
    """What was proposed and refused, rejected or decided on, by anyone but the loop itself."""
    earlier = [
        p for p in proposals.of_setup(opened.store, opened.setup)
        if p.stage != "confirm"
        and (p.origin in ("person", "model") or p.status in ("refused", "rejected", "edited"))
    ]  # fmt: skip
    if not earlier:
        return ""
    lines = ["## Proposed before (do not ask for these again)"]
    for p in sorted(earlier, key=lambda p: p.at, reverse=True)[:12]:
        experiment = json_text((p.content.get("suggestion") or {}).get("experiment") or p.reason)[:300]
        last = decisions.of_proposal(opened.store, p.id)[-1:]
        why = last[0].why if last else p.gate if p.status == "refused" else ""
        lines.append(
            f"{p.id} by {p.origin}: {p.kind} {experiment}: {p.status}{f' ({why[:200]})' if why or last else ''}"
        )
    return "\n".join(lines)
