"""What a stage has shown, in sentences that each name the evidence they rest on; written without any model."""

from __future__ import annotations

from collections.abc import Sequence

from engine.evidence.effects import Effect
from engine.evidence.ranking import RECIPES, Ranked, rank
from engine.evidence.recipe import confirmed
from engine.journal import results
from engine.journal.results import Correlation
from engine.records.leaderboard import Change, bound_text, in_percent
from engine.records.sentence import Sentence
from engine.settings.study import STAGES
from engine.study.view import StudyView


def sentences(view: StudyView, stage: str) -> list[Sentence]:
    """The stage's summary from templates; nothing where the stage has no results."""
    return {"probe": _probe, "combine": _combine, "scale": _scale, "screen": _screen, "confirm": _confirm}[stage](view)


def insights(view: StudyView) -> dict[str, list[Sentence]]:
    """Stage → its stored sentences; stages without any are left out."""
    stored = {stage: results.insight(stage).get(view.store, view.setup) for stage in STAGES}
    return {stage: lines for stage, lines in stored.items() if lines}


def effect_text(entry: Ranked) -> str:
    """`+12.3 %, at least +4.0 % over 3 seeds`."""
    e = entry.effect
    return change_text(e) if e.change is None else f"{change_text(e)} over {e.seeds} seed{'s' * (e.seeds != 1)}"


def change_text(e: Effect | Change) -> str:
    """`+12.3 %, at least +4.0 %` where that is claimed; else `+12.3 % [-4.0, +28.6]`."""
    if e.change is not None and e.bound is not None:
        return f"{e.change:+.1f} %, {bound_text(e.verdict, e.bound)}"
    return in_percent(e.change, e.ci_low, e.ci_high)


def _ids(entries: Sequence[Ranked]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(r.pool.id for r in entries))


def _probe(view: StudyView) -> list[Sentence]:
    ranked = [r for r in rank(view, ("single",), ("probe",)) if r.effect.change is not None]
    if not ranked:
        return _mixtures(view)
    lines = [
        *_mixtures(view),
        Sentence(f"{ranked[0].label} leads the single OPs: {effect_text(ranked[0])}.", (ranked[0].pool.id,)),
    ]
    for verdict, what in (("helps", "better"), ("hurts", "worse")):
        some = [r for r in ranked if r.effect.verdict == verdict]
        if some:
            names = ", ".join(r.label for r in some[:5]) + (f" and {len(some) - 5} more" if len(some) > 5 else "")
            are = "is" if len(some) == 1 else "are"
            text = f"{len(some)} of {len(ranked)} pools {are} {what} than the control: {names}."
            lines.append(Sentence(text, _ids(some)))
    if all(r.effect.verdict == "unclear" for r in ranked):
        lines.append(Sentence(f"None of {len(ranked)} pools is told from the control yet.", _ids(ranked[:5])))
    worst = min(ranked, key=lambda r: r.effect.change or 0.0)
    if worst is not ranked[0]:
        lines.append(Sentence(f"{worst.label} does worst: {effect_text(worst)}.", (worst.pool.id,)))
    if table := results.STATISTICS.get(view.store, view.setup):
        lines += _redundant(table, ranked)
    return lines


def _mixtures(view: StudyView) -> list[Sentence]:
    """The mixture that leads, and how far the regression on all of them can be trusted."""
    ranked = [r for r in rank(view, ("mixture",), ("probe",)) if r.effect.change is not None]
    if not ranked:
        return []
    lines = [
        Sentence(f"{ranked[0].label} leads {len(ranked)} mixtures: {effect_text(ranked[0])}.", (ranked[0].pool.id,))
    ]
    found = results.MIXTURES.get(view.store, view.setup)
    if found is not None and found.rank is not None:
        text = f"What the regression expects of each from the others ranks them with a correlation of {found.rank:.2f}."
        lines.append(Sentence(text, _ids(ranked[:5])))
    return lines


def _redundant(table: Correlation, ranked: Sequence[Ranked]) -> list[Sentence]:
    """The two statistics that say most nearly the same."""
    if not (pairs := table.pairs()) or abs(pairs[0][0]) < 0.7:
        return []
    r, a, b = pairs[0]
    pools = [e for e in ranked if e.statistic in (a, b)]
    return [Sentence(f"{a} and {b} say much the same of a row (Pearson's r = {r:.2f}).", _ids(pools))]


def _combine(view: StudyView) -> list[Sentence]:
    ranked = rank(view, RECIPES, ("probe", "combine"))
    several = [r for r in ranked if r.kind == "combination" and r.effect.change is not None]
    if not several:
        return []
    best = several[0]
    leads = f"{best.label} leads {len(several)} combination{'s' * (len(several) != 1)}: {effect_text(best)}."
    alike = [r for r in ranked if r.kind == "single" and (r.pool.size, r.share) == (best.pool.size, best.share)]
    single = next((r for r in alike if r.effect.change is not None), None)
    if single is None:
        return [Sentence(leads, (best.pool.id,))]
    gap = (best.effect.change or 0.0) - (single.effect.change or 0.0)
    text = f"That is {gap:+.1f} points against the best single OP of this size, {single.label}"
    e = best.effect
    if e.ci_low is None or e.ci_high is None or abs(gap) < (e.ci_high - e.ci_low) / 2:
        text += ", less than the intervals can tell"
    return [Sentence(leads, (best.pool.id,)), Sentence(f"{text}.", (best.pool.id, single.pool.id))]


def _scale(view: StudyView) -> list[Sentence]:
    arms = rank(view, ("repetition", "layers"), ("scale",))
    lines = []
    for arm in sorted((a for a in arms if a.kind == "repetition"), key=lambda a: a.samples):
        rival = next((r for r in arms if r.kind == "layers" and r.samples == arm.samples), None)
        text = f"{arm.label} at {arm.samples} trained samples: {effect_text(arm)}"
        if rival is not None:
            text += f"; adding lower-ranked rows instead: {effect_text(rival)}"
        lines.append(Sentence(text + ".", _ids([arm, *([rival] if rival else [])])))
    return lines


def _screen(view: StudyView) -> list[Sentence]:
    whole = [r for r in rank(view, RECIPES) if r.share >= 1 and r.effect.change is not None]
    if not whole:
        return []
    best, n = whole[0], len(whole)
    text = f"At full length {best.label} leads {n} recipe{'s' * (n != 1)}: {effect_text(best)}."
    return [Sentence(text, (best.pool.id,))]


def _confirm(view: StudyView) -> list[Sentence]:
    if results.UNCONFIRMED.get(view.store, view.setup):
        return []  # the fresh seeds are read once, when all of them are there
    ranked = [r for r in confirmed(view) if r.effect.change is not None]
    return [Sentence(f"On fresh seeds {r.label}: {effect_text(r)}, {r.effect.verdict}.", (r.pool.id,)) for r in ranked]
