"""Nobody is asked to approve a control alone: its further seeds belong to the pools that are compared with it."""

from __future__ import annotations

import pytest

from engine.base.errors import Awaited
from engine.journal import proposals, trials
from engine.loop.run import run_loop
from engine.review.decisions import decide, waiting_proposals
from engine.search.control import control_seeds
from engine.search.grid import probe
from engine.search.race import Race
from engine.study.opened import open_study
from tests.conftest import Tiny


def test_every_round_has_its_part_of_the_controls_seeds(tiny: Tiny) -> None:
    tiny.set({"search": {"seeds": 3}})
    with (opened := open_study(tiny.study, 1)).store:
        rounds = probe(opened)
        assert [p.seeds for p in rounds] == [(0,), (1,), (2,)]
        most = control_seeds(3, sum(arm.kind != "control" for arm in rounds[0].pools))
        assert sorted(s for p in rounds for s in p.control_seeds) == list(range(3, most))
        assert max(len(p.control_seeds) for p in rounds) <= 1 + min(len(p.control_seeds) for p in rounds)
        assert {arm.kind for arm, seed in rounds[0].runs if seed} == {"control"}
        assert len({p.id for p in rounds}) == 3


def test_a_race_asks_for_pools_and_control_together_and_what_is_rejected_runs_neither(tiny: Tiny) -> None:
    tiny.set({"search": {"strategy": "race", "rungs": [[0.5, 1], [1.0, 1]]}})
    with (opened := open_study(tiny.study, 1)).store:
        asked = Race("probe").propose(opened)
        assert [p.is_control for p in asked] == [False]
        assert asked[0].control_seeds
        with pytest.raises(Awaited):
            run_loop(opened, until="probe", approve="hold", workers=1)
        waiting = waiting_proposals(opened)
        stored = proposals.by_ids(opened.store, waiting)
        assert stored and not any(p.proposal.is_control for p in stored)
        for one in waiting:
            decide(opened, one, "reject", "a person", "no")
        assert run_loop(opened, until="probe", approve="hold", workers=1).how == "done"
        assert not trials.of_setup(opened.store, opened.setup)
