"""Repetition rates by search: from the lowest rate of the best recipe up, while it helps (Section 3.2.3)."""

from __future__ import annotations

from engine.evidence.ranking import rank
from engine.proposals.arms import has_run
from engine.proposals.best import recipes
from engine.proposals.kinds.repeat import repeat
from engine.records.proposal import Proposal
from engine.search.sampler import Choice, ask
from engine.study.opened import OpenStudy


def propose(opened: OpenStudy) -> list[Proposal]:
    """The next repetition to try; none when the last one was not better than the best before it."""
    ranked, section = recipes(opened), opened.study.scale
    best = ranked[: section.recipes]
    if not best or not section.rates:
        return []
    tried: list[tuple[Choice, float | None]] = []
    choice: Choice | None = {"recipe": 0, "rate": min(section.rates)}
    while choice is not None:
        proposal = repeat(opened, ranked, best[choice["recipe"]], choice["rate"])
        if not has_run(opened, proposal):
            return [proposal.model_copy(update={"origin": "race"})]
        earlier = [v for _, v in tried if v is not None]
        value = _gain(opened, proposal)
        tried.append((choice, value))
        if value is None or (earlier and value <= max(earlier)):
            return []
        choice = ask({"recipe": range(len(best)), "rate": section.rates}, tried, lambda _: True, opened.study.seed)
    return []


def _gain(opened: OpenStudy, proposal: Proposal) -> float | None:
    """What repeating did, in percent of the control that trained on as many samples."""
    repeated = proposal.pools[1]
    return next(
        (
            r.effect.change
            for r in rank(opened, ("repetition",), ("scale",))
            if (r.pool.id, r.samples) == (repeated.to_pool().id, repeated.samples)
        ),
        None,
    )
