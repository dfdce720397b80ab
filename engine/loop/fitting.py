"""The budget in the loop: a design before the first trial, the confirmation fitted to what is left when it begins.

No result on fresh seeds is read while their number is chosen. A confirmation that the budget cuts short is read at the
seeds that all its pools have: time ended it, not its results. One that is extended after it was read spends what is
left of the error (`engine/evidence/claims.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from engine.base.amounts import budget_text, format_seconds
from engine.base.errors import BudgetError
from engine.evidence.guards import judged, vetoed
from engine.evidence.noise import seed_noise
from engine.evidence.recipe import confirmed
from engine.journal import proposals, results, trials
from engine.proposals.arms import trial_id
from engine.records.design import StudyDesign
from engine.records.proposal import Arm
from engine.records.trial import FRESH
from engine.runner.accounts import Accounts
from engine.search.control import control_seeds, measured_noise
from engine.search.designer import MOST_SEEDS, Designer, effect_at, told
from engine.search.grid import confirm
from engine.settings.study import with_fields
from engine.study.designed import adopt, design_of
from engine.study.opened import OpenStudy
from engine.study.view import StudyView

SPARE = 0.95  # of what is left that a confirmation is fitted to
UNSPENT = 0.15  # of a budget: more than this is spent on further seeds while nothing is confirmed
MORE = 2  # candidates beyond those planned that what is left may pay for
FEWER = 2 / 3  # of the planned seeds: below, there are fewer candidates
WORDS = "confirm.candidates", "confirm.seeds"


class TooLittle(BudgetError):
    """The budget cannot end in a confirmed answer."""


def begin(opened: OpenStudy, accounts: Accounts, anyway: bool) -> list[str]:
    """Give the study the sizes that its budget buys, once in its life; what there is to say of them.

    Raises: TooLittle unless `anyway`.
    """
    if opened.study.design != "auto":
        return []
    store, limit = opened.store, accounts.limit
    design = design_of(opened)
    if design is None:
        if accounts.estimate(1) is None:
            store.event("design", "what a trial takes is not known, so sizes have their defaults", level="warning")
            return []
        _design(opened, accounts, anyway)  # at once
        _ = opened.cuts  # how many pools there are
        design = replace(_design(opened, accounts, anyway), limit=limit)
        for line in told(design, with_fields(opened.study, _open(opened, design.fields)), seed_noise(opened)):
            store.event("design", line)
    elif limit != design.limit:
        store.event("design", f"the budget is {format_seconds(limit)} now; what has run stays, and more is confirmed")
        read = results.LOOKS.get(store, opened.setup)
        design = replace(design, limit=limit, unreserved=False, fitted=design.fitted if read else None)
    results.DESIGN.put(store, opened.setup, design)
    adopt(opened, design)
    return told(design, opened.study, seed_noise(opened))


def _design(opened: OpenStudy, accounts: Accounts, anyway: bool) -> StudyDesign:
    """The design of what is left of the budget. Raises: TooLittle unless `anyway`."""
    designer = Designer(opened, lambda samples: accounts.estimate(int(samples)) or 0.0)
    design = designer.design((accounts.limit - accounts.spent()) / opened.study.cycles.max, anyway)
    if design is None:
        raise TooLittle(_too_little(designer.least()[0], accounts.limit, accounts))
    return design


def look(opened: OpenStudy, accounts: Accounts, anew: bool) -> list[str]:
    """What a budget buys, with nothing written down; the study has those sizes then. anew: not as it was designed."""
    if opened.study.design != "auto" or accounts.estimate(1) is None:
        return []
    design = None if anew else design_of(opened)
    if design is None:
        spent = accounts.spent() if not anew else 0.0
        designer = Designer(opened, lambda samples: accounts.estimate(int(samples)) or 0.0)
        design = designer.design((accounts.limit - spent) / opened.study.cycles.max)
    if design is None:
        return [_too_little(designer.least()[0], accounts.limit, accounts)]
    adopt(opened, design)
    return told(design, opened.study, seed_noise(opened))


def lines(view: StudyView) -> list[str]:
    """The stored design of a study, in sentences; none where it has none."""
    stored = results.DESIGN.get(view.store, view.setup) or results.DESIGN.get(view.store, view.root)
    if stored is None or view.study.design != "auto":
        return []
    said = told(stored, view.study, seed_noise(view))
    if stored.fitted:
        candidates, seeds = stored.fitted
        text = f"{candidates} candidate{'s' * (candidates != 1)} on {seeds} fresh seeds"
        said.append(f"When the confirmation began, what was left paid for {text}; {stored.planned} seeds were planned.")
    return said


def _open(opened: OpenStudy, fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name not in opened.own}


def _too_little(least: float, limit: float, accounts: Accounts) -> str:
    amount = budget_text(least * accounts.opened.study.cycles.max + accounts.spent())
    return (
        f"a budget of {format_seconds(limit)} cannot end in a confirmed answer here; the least that can is {amount}: "
        f"djsb auto --budget {amount}, or --anyway to search without a confirmation"
    )


def enter(opened: OpenStudy) -> None:
    """A later cycle has the first one's sizes, and a confirmation that is fitted anew."""
    if (design := design_of(opened)) and results.DESIGN.get(opened.store, opened.setup) is None:
        results.DESIGN.put(opened.store, opened.setup, replace(design, fitted=None))
        adopt(opened, replace(design, fitted=None))


def fit(opened: OpenStudy, accounts: Accounts) -> None:
    """Before the confirmation: as many candidates and fresh seeds as what is left pays for, once for a budget."""
    design = design_of(opened)
    if design is None or design.fitted or results.LOOKS.get(opened.store, opened.setup):
        return
    chosen = _chosen(opened, accounts, design)
    if chosen is None and _arms(opened, 1):  # by estimates; what has run by then says more
        chosen = (opened.study.confirm.candidates if WORDS[0] in opened.own else 1, _affordable_or(opened, 2))
    if chosen:
        _use(opened, *chosen, why=f"{format_seconds(_left(accounts))} are left")


def fits_now(opened: OpenStudy, accounts: Accounts) -> bool:
    """After a confirmation for which there seemed to be too little left: fit it again; True where it may go on."""
    design = design_of(opened)
    if design is None or results.LOOKS.get(opened.store, opened.setup):
        return False
    chosen = _chosen(opened, accounts, design)
    if chosen is None or not _cost(opened, accounts, _arms(opened, chosen[0]), chosen[1], measured_noise(opened)):
        return False
    proposals.supersede(
        opened.store, opened.setup, "confirm", "paper", []
    )  # those that were refused may be asked again
    _use(opened, *chosen, why=f"{format_seconds(_left(accounts))} are left after what has run")
    return True


def _chosen(opened: OpenStudy, accounts: Accounts, design: StudyDesign) -> tuple[int, int] | None:
    """(candidates, fresh seeds) that what is left pays for; None where it does for no two seeds."""
    planned, chosen = opened.study.confirm.candidates, None
    for candidates in [planned] if WORDS[0] in opened.own else range(planned + MORE, 0, -1):
        arms = _arms(opened, candidates)
        seeds = _affordable(opened, accounts, arms) if arms else 0
        if candidates > planned and seeds < MOST_SEEDS:
            continue  # more candidates only where more seeds of those planned are of no use
        if seeds >= 2:
            chosen = (candidates, seeds)
        if seeds >= max(3, FEWER * design.planned):
            break
    return chosen


def _affordable_or(opened: OpenStudy, seeds: int) -> int:
    return opened.study.confirm.seeds if WORDS[1] in opened.own else seeds


def _arms(opened: OpenStudy, candidates: int) -> Sequence[Arm]:
    """What a confirmation of so many candidates trains on at each seed."""
    other = copy.copy(opened)
    other.study = with_fields(opened.study, {WORDS[0]: candidates})
    asked = confirm(other)
    return asked[0].pools if asked else ()


def _affordable(opened: OpenStudy, accounts: Accounts, arms: Sequence[Arm]) -> int:
    """Fresh seeds that what is left pays for; those that study.yaml names where it does; 0 where two are too many."""
    if WORDS[1] in opened.own:
        return opened.study.confirm.seeds
    found, noise = 0, measured_noise(opened)
    for seeds in range(2, MOST_SEEDS + 1):
        spare = SPARE if seeds > 2 else 1.0  # two seeds are better than none
        if _cost(opened, accounts, arms, seeds, noise) > spare * _left(accounts):
            break
        found = seeds
    return found


def _cost(opened: OpenStudy, accounts: Accounts, arms: Sequence[Arm], seeds: int, noise: float) -> float:
    """Device-seconds of what has not run of a confirmation on so many seeds."""
    controls = [arm for arm in arms if arm.kind == "control"]
    compared = sum(arm.kind not in ("control", "all") for arm in arms)
    most = control_seeds(seeds, compared // len(controls), noise)
    runs = [(arm, seed) for seed in range(seeds) for arm in arms]
    runs += [(arm, seed) for seed in range(seeds, most) for arm in controls]
    each = {trial_id(opened, arm, FRESH + seed): arm.samples for arm, seed in runs}
    done = {t for t, state in trials.states(opened.store, each).items() if state in ("COMPLETE", "CANCELLED")}
    return sum(accounts.estimate(samples) or 0.0 for trial, samples in each.items() if trial not in done)


def _left(accounts: Accounts) -> float:
    return max(0.0, accounts.allowance(1.0) - accounts.spent())


def _use(opened: OpenStudy, candidates: int, seeds: int, why: str) -> None:
    """Confirm with so many from now on; written down where it changes anything."""
    before = opened.study.confirm
    design = design_of(opened)
    assert design is not None
    if (before.candidates, before.seeds) == (candidates, seeds):
        results.DESIGN.put(opened.store, opened.setup, replace(design, fitted=(candidates, seeds)))
        return
    opened.adopt(with_fields(opened.study, dict(zip(WORDS, (candidates, seeds), strict=True))))
    effect = effect_at(opened, design.pools)
    results.DESIGN.put(opened.store, opened.setup, replace(design, fitted=(candidates, seeds), effect=effect))
    opened.record()
    text = f"{candidates} candidate{'s' * (candidates != 1)} on {seeds} fresh seeds"
    opened.store.event("design", f"confirmation: {text} ({before.candidates} on {before.seeds} were planned): {why}")


def read_what_ran(opened: OpenStudy) -> bool:
    """After a confirmation that the budget ended: let the seeds count that all its pools have; True where that is two.

    A study whose own seeds are fixed waits for all of them.
    """
    if design_of(opened) is None or WORDS[1] in opened.own:
        return False
    asked = confirm(opened)
    done = len(asked)
    for place, proposal in enumerate(asked):
        ids = [trial_id(opened, arm, seed) for arm in proposal.pools for seed in proposal.seeds]
        states = trials.states(opened.store, ids)
        if len(states) < len(ids) or {"WAITING", "RUNNING"} & set(states.values()):
            done = place
            break
    had = max(results.LOOKS.get(opened.store, opened.setup) or [], default=0)
    if done < 2 or done < had:
        return False
    _use(opened, opened.study.confirm.candidates, done, "the budget ended there")
    return True


def extend(opened: OpenStudy, accounts: Accounts) -> bool:
    """After a confirmation that names no recipe: more fresh seeds, where more than a share of the budget is left."""
    store, setup = opened.store, opened.setup
    if not has_concluded(opened) or WORDS[1] in opened.own or results.RECIPE.get(store, setup):
        return False
    if vetoed(confirmed(opened), judged(opened)):
        return False  # by a guard, which more seeds do not mend
    section, seeds = opened.study.confirm, opened.study.confirm.seeds
    arms, noise = _arms(opened, section.candidates), measured_noise(opened)
    if not arms or _left(accounts) <= UNSPENT * accounts.limit / opened.study.cycles.max:
        return False
    while _cost(opened, accounts, arms, seeds + 1, noise) <= SPARE * _left(accounts):
        seeds += 1
    if seeds == section.seeds:
        return False
    _use(opened, section.candidates, seeds, f"none was confirmed, and {format_seconds(_left(accounts))} are left")
    return True


def has_concluded(opened: OpenStudy) -> bool:
    """True where a designed study has read its confirmation: that stages before it were cut short is no early end."""
    read = results.RECIPE.at(opened.store, opened.setup)
    return bool(design_of(opened) and read) and results.UNCONFIRMED.get(opened.store, opened.setup) is None
