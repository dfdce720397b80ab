"""The paper's fixed procedure: probe, combine, scale, screen, confirm (Sections 3.2.1 to 3.2.3, Appendix D.1).

Each function returns the proposals of one stage from the evidence so far. Nothing here runs a trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.evidence.ranking import Ranked
from engine.journal import trials
from engine.proposals.arms import combined, control, every_row, fewest_rows, label, request
from engine.proposals.best import chosen_slices, lattice, recipes
from engine.proposals.kinds.repeat import repeat
from engine.records.proposal import Arm, Origin, Proposal
from engine.records.trial import FRESH
from engine.search.control import control_seeds, measured_noise, with_control
from engine.search.screening import arms_of, candidates, screen
from engine.study.opened import OpenStudy


@dataclass(frozen=True)
class Paper:
    """The paper's procedure on one study; `stage` names what `propose` asks for."""

    stage: str
    origin: Origin = "paper"

    def propose(self, study: OpenStudy, n: int | None = None) -> Sequence[Proposal]:
        """The stage's proposals, in the order in which they matter; at most n."""
        stages = {"probe": probe, "combine": combine, "scale": scale, "screen": screen, "confirm": confirm}
        return stages[self.stage](study)[:n]


def probe(opened: OpenStudy) -> list[Proposal]:
    """3N + 1 equal pools (Section 3.2.1), one proposal a seed, so that a budget that ends leaves whole rounds."""
    cuts = [c for c in opened.cuts if c.reason is None]
    pools = [request(opened, control(opened, opened.pool_size), "control", "control")]
    pools += [request(opened, c.pool, c.label, "single") for c in cuts]
    seeds = opened.study.search.seeds
    rounds = [
        Proposal(
            origin="paper", kind="probe", stage="probe", pools=tuple(pools), seeds=(seed,),
            reason=f"{len(cuts)} single-OP pools and the control, seed {seed + 1} of {seeds}",
            fallback="fewer seeds, wider intervals",
        )
        for seed in range(seeds)
    ]  # fmt: skip
    return with_control(opened, rounds, range(seeds, control_seeds(seeds, len(cuts))))


def _candidates(opened: OpenStudy) -> tuple[list[tuple[Ranked, ...]], str]:
    """Singles, then at most `combine.max` combinations; and how they came about."""
    top, diverse = chosen_slices(opened)
    combos = lattice(top, diverse)
    named = [", ".join(r.label for r in chosen) or "none" for chosen in (top, diverse)]
    how = f"top: {named[0]}; one per cluster: {named[1]}"
    singles = [chosen for chosen in combos if len(chosen) == 1]
    return [*singles, *[chosen for chosen in combos if len(chosen) > 1][: opened.study.combine.max]], how


def combine(opened: OpenStudy) -> list[Proposal]:
    """The lattices of top slices, of one slice per cluster, and their cross (Section 3.2.2), at one size."""
    candidates, how = _candidates(opened)
    floor = fewest_rows(opened)
    rows = [(chosen, opened.kept(combined(opened, chosen, opened.pool_size).to_pool())) for chosen in candidates]
    kept = [(chosen, n) for chosen, n in rows if n >= floor]
    dropped = [f"{label(chosen)} ({n} rows)" for chosen, n in rows if n < floor]
    if not any(len(chosen) > 1 for chosen, _ in kept):
        return []
    size = opened.pool_size if opened.probe.matched else min(opened.pool_size, *(n for _, n in kept))
    pools = [request(opened, control(opened, size), "control", "control")]
    pools += [combined(opened, chosen, size) for chosen, _ in kept]
    reason = f"{len(kept)} combinations of {size} rows each ({how})"
    if dropped:
        reason += f"; left out, under {floor} rows: {', '.join(dropped)}"
    evidence = tuple(dict.fromkeys(r.pool.id for chosen, _ in kept for r in chosen))
    seeds = opened.study.search.seeds
    rounds = [
        Proposal(
            origin="paper", kind="combine", stage="combine", pools=tuple(pools), seeds=(seed,), cites=evidence,
            reason=f"seed {seed + 1} of {seeds}: {reason}",
            expected=max((r.effect.change or 0) for chosen, _ in kept for r in chosen),
            fallback="the best single OP is the recipe",
        )
        for seed in range(seeds)
    ]  # fmt: skip
    return with_control(opened, rounds, range(seeds, control_seeds(seeds, len(kept))))


def scale(opened: OpenStudy) -> list[Proposal]:
    """Repetition of the best recipes against adding lower layers, at equal trained samples (Section 3.2.3)."""
    section, ranked = opened.study.scale, recipes(opened)
    return [repeat(opened, ranked, best, rate) for best in ranked[: section.recipes] for rate in section.rates]


def confirm(opened: OpenStudy) -> list[Proposal]:
    """The best recipes and the control on fresh seeds, unused so far; one proposal a seed."""
    section = opened.study.confirm
    chosen = candidates(opened)
    if not chosen:
        return []
    controls, compared = arms_of(opened, chosen)
    pools = [*controls, *compared]
    pools += _every_row(opened, pools)
    rounds = [
        Proposal(
            origin="paper", kind="seeds", stage="confirm", pools=tuple(pools), seeds=(FRESH + seed,),
            cites=tuple(r.pool.id for r in chosen), expected=chosen[0].effect.change,
            reason=f"fresh seed {seed + 1} of {section.seeds} for {', '.join(r.label for r in chosen)} and the control"
            + (", against all rows, too" if pools[-1].kind == "all" else ""),
            fallback="fewer fresh seeds; below two, no recipe is called best",
        )
        for seed in range(section.seeds)
    ]  # fmt: skip
    most = control_seeds(section.seeds, len(compared) // len(controls), measured_noise(opened))
    return with_control(opened, rounds, range(FRESH + section.seeds, FRESH + most))


def _every_row(opened: OpenStudy, pools: Sequence[Arm]) -> list[Arm]:
    """All rows at as many trained samples as the candidates; none in a confirmation that began without."""
    began = {t.kind for t in trials.of_setup(opened.store, opened.setup) if t.stage == "confirm"}
    if not opened.study.confirm.all_data or (began and "all" not in began):
        return []
    return [every_row(opened, samples) for samples in sorted({p.samples for p in pools if p.kind != "control"})]
