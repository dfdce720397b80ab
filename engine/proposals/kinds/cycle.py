"""Kind `cycle`: the probe again, from the checkpoint of a trial."""

from __future__ import annotations

from engine.journal import checkpoints, cycles, trials
from engine.proposals.arms import control, request
from engine.proposals.kinds.contract import Drafted, Refused
from engine.records.experiment import Cycle
from engine.study.opened import OpenStudy


def draft_cycle(opened: OpenStudy, wanted: Cycle) -> Drafted:
    """The first round of a next cycle: all buckets and the control, going on from a trial's checkpoint."""
    trial = trials.get(opened.store, wanted.checkpoint)
    if (
        trial is None
        or cycles.get(opened.store, trial.setup).root != opened.root
        or checkpoints.kept(opened.store, trial.id) is None
    ):
        raise Refused(f"no checkpoint of trial {wanted.checkpoint} is kept here; djsb show lineage names some")
    if opened.following(wanted.checkpoint).setup in {c.setup for c in cycles.chain(opened.store, opened.setup)}:
        raise Refused(f"a repetition: a cycle started from the checkpoint of trial {wanted.checkpoint} before")
    share = opened.rungs[0][0] if opened.study.search.strategy == "race" else 1.0
    wholes = [request(opened, control(opened, opened.pool_size), "control", "control")]
    wholes += [request(opened, c.pool, c.label, "single") for c in opened.cuts if c.reason is None]
    return "probe", [r.part(share) for r in wholes], (0,)
