"""Cycles (Appendix E.10): ckpt₀ → recipe₁ → ckpt₁ → recipe₂ → … and what changes from one to the next.

A cycle is the whole loop once more, its trials and their control alike going on from the best checkpoint of the cycle
before. It has a context of its own, so that nothing is compared across cycles but what this module compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.base.errors import TrialError
from engine.evidence.lineage import RESULT, against_first, best_checkpoint, mean_scores, moves, standing
from engine.journal.store import now
from engine.study.opened import OpenStudy
from engine.study.variants import chain_of, in_cycles

if TYPE_CHECKING:
    from engine.runner.scheduler import Scheduler


def each(opened: OpenStudy, at_work: Scheduler, whole: bool) -> Iterator[OpenStudy]:
    """The study in its first cycle and in every further one that is due, each once the one before has ended.

    whole: the cycles run to their last stage; otherwise none follows.
    Raises: TrialError when the checkpoint to go on from is gone and cannot be made again.
    """
    while True:
        yield opened
        if not whole:
            return
        conclude(opened)
        at_work.book.prune()
        found = next_start(opened)
        if found is None and opened.cycle < opened.study.cycles.max:
            opened.store.event("cycle", f"no recipe is confirmed in cycle {opened.cycle}, so it is the last")
        if found is None or at_work.stopping:
            return
        opened = _begin(opened, *found, at_work)
        if not _restored(opened, at_work):
            return
        at_work.enter(opened)


def next_start(opened: OpenStudy) -> tuple[str, str | None] | None:
    """(trial whose checkpoint the next cycle starts from, the proposal that asked for it), or None at the end.

    An approved `cycle` proposal goes before the best checkpoint, and may lead beyond `cycles.max`.
    """
    chain = {r["context"] for r in chain_of(opened)}
    asked = opened.store.query(
        "SELECT id, json_extract(content, '$.init') AS init FROM proposals WHERE context = ? AND kind = 'cycle' "
        "AND status = 'approved' ORDER BY at DESC, id",
        (opened.context,),
    )
    for row in asked:
        if opened.following(row["init"]).context not in chain:
            return row["init"], row["id"]
    best = best_checkpoint(opened) if opened.cycle < opened.study.cycles.max else None
    return (best, None) if best else None


def _begin(opened: OpenStudy, init: str, proposal: str | None, at_work: Scheduler) -> OpenStudy:
    """The next cycle, written down."""
    store, after = opened.store, opened.following(init)
    with store.transaction():
        new = store.execute(
            "INSERT OR IGNORE INTO cycles(context, root, cycle, parent, init, proposal, spent, at) "
            "VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            (after.context, after.root, after.cycle, opened.context, init, proposal, at_work.accounts.spent(), now()),
        )
        if new:
            store.event("cycle", f"cycle {after.cycle} starts from this trial's checkpoint", init)
            # a step takes as long as before
            store.put_result(after.context, "calibration", store.result(opened.context, "calibration"))
    return after


def _restored(after: OpenStudy, at_work: Scheduler) -> bool:
    """True once the checkpoint that a cycle starts from is there. One that was not kept is trained again, to the bit.

    Raises: TrialError.
    """
    assert after.init is not None
    if (after.state / "checkpoints" / after.init).exists():
        return True
    proposals = after.store.query("SELECT proposal FROM proposal_trials WHERE trial = ?", (after.init,))
    at_work.book.wait_again(after.init)
    how = at_work.run("confirm", [r["proposal"] for r in proposals], at_work.limit)
    if how == "done" and not (after.state / "checkpoints" / after.init).exists():
        raise TrialError(
            f"cycle {after.cycle} starts from the checkpoint of trial {after.init}, which is gone and could not be "
            "made again; see djsb log, mend the cause, and the same command goes on"
        )
    return how == "done"


def conclude(opened: OpenStudy) -> None:
    """Store what the cycle came to: its best checkpoint, the scores, the change against the first and the moves."""
    store, chain = opened.store, chain_of(opened)
    order = standing(opened)
    before = store.result(chain[-2]["context"], RESULT) if len(chain) > 1 else None
    moved = moves([s["statistic"] for s in before["standing"]], [s["statistic"] for s in order]) if before else None
    recipe = store.result(opened.context, "recipe")
    best = best_checkpoint(opened)
    content = {
        "checkpoint": best,
        "pinned": best if in_cycles(opened) else None,
        "standing": order,
        "moves": moved.to_json() if moved else None,
        "scores": mean_scores(opened, recipe),
        "against_first": against_first(opened, [r["context"] for r in chain], recipe),
    }
    store.put_result(opened.context, RESULT, content)
