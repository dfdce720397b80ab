"""What a stage has shown, in sentences that each name the evidence they rest on; written without any model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.evidence.ranking import Ranked, rank
from engine.records.sentence import Sentence
from engine.settings.study import STAGES
from engine.study.opened import OpenStudy


def sentences(opened: OpenStudy, stage: str) -> list[Sentence]:
    """The stage's summary from templates; nothing where the stage has no results."""
    return {"probe": _probe, "combine": _combine, "scale": _scale, "confirm": _confirm}[stage](opened)


def effect_text(entry: Ranked) -> str:
    """`+12.3 % [+4.0, +20.6] over 3 seeds`."""
    e = entry.effect
    if e.change is None:
        return "no result"
    interval = f" [{e.ci_low:+.1f}, {e.ci_high:+.1f}]" if e.ci_low is not None else " (no interval)"
    return f"{e.change:+.1f} %{interval} over {e.seeds} seed{'s' * (e.seeds != 1)}"


def _probe(opened: OpenStudy) -> list[Sentence]:
    ranked = [r for r in rank(opened, ("single",), ("probe",)) if r.effect.change is not None]
    if not ranked:
        return []
    found = [Sentence(f"{ranked[0].label} leads the single OPs: {effect_text(ranked[0])}.", (ranked[0].pool.id,))]
    for verdict, what in (("helps", "better"), ("hurts", "worse")):
        some = [r for r in ranked if r.effect.verdict == verdict]
        if some:
            names = ", ".join(r.label for r in some[:5]) + (f" and {len(some) - 5} more" if len(some) > 5 else "")
            are = "is" if len(some) == 1 else "are"
            text = f"{len(some)} of {len(ranked)} pools {are} {what} than the control: {names}."
            found.append(Sentence(text, _ids(some)))
    if all(r.effect.verdict == "unclear" for r in ranked):
        found.append(Sentence(f"None of {len(ranked)} pools is told from the control yet.", _ids(ranked[:5])))
    worst = min(ranked, key=lambda r: r.effect.change or 0.0)
    if worst is not ranked[0]:
        found.append(Sentence(f"{worst.label} does worst: {effect_text(worst)}.", (worst.pool.id,)))
    if clusters := opened.store.result(opened.context, "statistics"):
        found += _redundant(clusters, ranked)
    return found


def _redundant(found: dict[str, list[object]], ranked: Sequence[Ranked]) -> list[Sentence]:
    """The two statistics that say most nearly the same."""
    names, table = found["names"], found["r"]
    pairs = [
        (abs(row[j]), row[j], names[i], names[j])
        for i, row in enumerate(table)
        for j in range(i)
        if isinstance(row, list) and row[j] is not None
    ]
    if not pairs:
        return []
    strength, r, a, b = max(pairs, key=lambda p: p[0])
    if strength < 0.7:
        return []
    pools = [e for e in ranked if e.statistic in (a, b)]
    return [Sentence(f"{a} and {b} say much the same of a row (Pearson's r = {r:.2f}).", _ids(pools))]


def _combine(opened: OpenStudy) -> list[Sentence]:
    ranked = rank(opened, ("single", "combination"), ("probe", "combine"))
    several = [r for r in ranked if r.kind == "combination" and r.effect.change is not None]
    single = next((r for r in ranked if r.kind == "single" and r.effect.change is not None), None)
    if not several or single is None:
        return []
    best = several[0]
    gap = (best.effect.change or 0.0) - (single.effect.change or 0.0)
    told = f"That is {gap:+.1f} points against the best single OP, {single.label}"
    e = best.effect
    if e.ci_low is None or e.ci_high is None or abs(gap) < (e.ci_high - e.ci_low) / 2:
        told += ", less than the intervals can tell"
    return [
        Sentence(
            f"{best.label} leads {len(several)} combination{'s' * (len(several) != 1)}: {effect_text(best)}.",
            (best.pool.id,),
        ),
        Sentence(f"{told}.", (best.pool.id, single.pool.id)),
    ]


def _scale(opened: OpenStudy) -> list[Sentence]:
    arms = rank(opened, ("repetition", "layers"), ("scale",))
    found = []
    for arm in sorted((a for a in arms if a.kind == "repetition"), key=lambda a: a.samples):
        rival = next((r for r in arms if r.kind == "layers" and r.samples == arm.samples), None)
        text = f"{arm.label} at {arm.samples} trained samples: {effect_text(arm)}"
        if rival is not None:
            text += f"; adding lower-ranked rows instead: {effect_text(rival)}"
        found.append(Sentence(text + ".", _ids([arm, *([rival] if rival else [])])))
    return found


def _confirm(opened: OpenStudy) -> list[Sentence]:
    found = rank(opened, ("single", "combination", "mapper"), fresh=True, against_control=True)
    ranked = [r for r in found if r.effect.change is not None]
    return [Sentence(f"On fresh seeds {r.label}: {effect_text(r)}, {r.effect.verdict}.", (r.pool.id,)) for r in ranked]


def _ids(entries: Sequence[Ranked]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(r.pool.id for r in entries))


def insights(opened: OpenStudy) -> dict[str, list[dict[str, Any]]]:
    """Stage → its sentences with their evidence."""
    found = {stage: opened.store.result(opened.context, f"insight:{stage}") for stage in STAGES}
    return {stage: told for stage, told in found.items() if told}
