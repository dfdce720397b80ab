"""Cycles (Appendix E.10): checkpoint₀ → recipe₁ → checkpoint₁ → recipe₂ → …

A cycle is the whole loop once more, its trials and their control alike going on from the best checkpoint of the cycle
before. It has a setup of its own, so that nothing is compared across cycles but what `evidence/lineage.py` compares.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.evidence.lineage import best_checkpoint, conclusion
from engine.journal import cycles, proposals, results
from engine.loop.checkpoints import there_again
from engine.records.cycle import CycleStart
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy
from engine.study.variants import in_cycles


def each(opened: OpenStudy, scheduler: Scheduler, whole: bool) -> Iterator[OpenStudy]:
    """The study in its first cycle and in every further one that is due, each once the one before has ended.

    whole: the cycles run to their last stage; otherwise none follows.
    Raises: TrialError when the checkpoint to go on from is gone and cannot be made again.
    """
    while True:
        yield opened
        if not whole:
            return
        results.CYCLE.put(opened.store, opened.setup, conclusion(opened, pinned=in_cycles(opened)))
        scheduler.book.prune()
        start = next_start(opened)
        if start is None and opened.cycle < opened.study.cycles.max:
            opened.store.event("cycle", f"no recipe is confirmed in cycle {opened.cycle}, so it is the last")
        if start is None or scheduler.stopping:
            return
        opened = _begin(opened, *start, scheduler)
        if not there_again(opened, scheduler, start[0], "confirm", f"cycle {opened.cycle} starts from"):
            return
        scheduler.enter(opened)


def next_start(opened: OpenStudy) -> tuple[str, str | None] | None:
    """(trial whose checkpoint the next cycle starts from, the proposal that asked for it), or None at the end.

    An approved `cycle` proposal goes before the best checkpoint, and may lead beyond `cycles.max`.
    """
    chain = {c.setup for c in cycles.chain(opened.store, opened.setup)}
    asked = [p for p in proposals.of_setup(opened.store, opened.setup, ["approved"]) if p.kind == "cycle"]
    for row in sorted(asked, key=lambda p: p.at, reverse=True):  # the latest first
        init = row.proposal.init
        if init is not None and opened.following(init).setup not in chain:
            return init, row.id
    best = best_checkpoint(opened) if opened.cycle < opened.study.cycles.max else None
    return (best, None) if best else None


def _begin(opened: OpenStudy, init: str, proposal: str | None, scheduler: Scheduler) -> OpenStudy:
    """The next cycle, written down."""
    store, after = opened.store, opened.following(init)
    start = CycleStart(
        after.setup, after.root, after.cycle, opened.setup, init, proposal, scheduler.accounts.spent()
    )  # fmt: skip
    with store.transaction():
        if cycles.add(store, start):
            store.event("cycle", f"cycle {after.cycle} starts from this trial's checkpoint", init)
            # a step takes as long as before
            results.CALIBRATION.put(store, after.setup, results.CALIBRATION.get(store, opened.setup))
    return after
