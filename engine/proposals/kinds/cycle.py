"""Kind `cycle`: the probe again, from the checkpoint of a trial."""

from __future__ import annotations

from typing import Literal

from engine.journal import checkpoints, cycles, trials
from engine.proposals.arms import control, request
from engine.proposals.kinds.contract import Drafted, FormField, Kind, Refused
from engine.records.experiment import Experiment, Id
from engine.study.opened import OpenStudy


class Cycle(Experiment):
    """Probes that go on from a trial's checkpoint (Appendix E.10)."""

    place = 80
    kind: Literal["cycle"]
    checkpoint: Id


class CycleKind(Kind[Cycle]):
    """A next cycle from a checkpoint."""

    schema = Cycle
    form = (FormField("checkpoint", hint="a trial's id"),)
    fields = "`checkpoint`: a trial's id"
    asks = "a next cycle that goes on from this checkpoint ([cycles.md](cycles.md))"
    brief = "a next cycle, which probes again from the kept checkpoint of a trial."

    def draft(self, opened: OpenStudy, experiment: Cycle) -> Drafted:
        """The first round of a next cycle: all buckets and the control, going on from a trial's checkpoint."""
        trial = trials.get(opened.store, experiment.checkpoint)
        if (
            trial is None
            or cycles.get(opened.store, trial.setup).root != opened.root
            or checkpoints.kept(opened.store, trial.id) is None
        ):
            raise Refused(f"no checkpoint of trial {experiment.checkpoint} is kept here; djsb show lineage names some")
        if opened.following(experiment.checkpoint).setup in {c.setup for c in cycles.chain(opened.store, opened.setup)}:
            raise Refused(f"a repetition: a cycle started from the checkpoint of trial {experiment.checkpoint} before")
        share = opened.rungs[0][0] if opened.study.search.strategy == "race" else 1.0
        wholes = [request(opened, control(opened, opened.pool_size), "control", "control")]
        wholes += [request(opened, c.pool, c.label, "single") for c in opened.cuts if c.reason is None]
        return Drafted("probe", [r.part(share) for r in wholes], (0,), experiment.checkpoint)

    def where(self, opened: OpenStudy, experiment: Cycle) -> OpenStudy:
        """In the cycle that goes on from the checkpoint."""
        return opened.following(experiment.checkpoint)


KINDS = (CycleKind(),)
