"""A study whose trials wait, for tests of the scheduler with devices that are played."""

from __future__ import annotations

import pytest

from engine.journal.results import CALIBRATION, Calibration
from engine.proposals import queue
from engine.runner.device import Slots, new_events
from engine.runner.scheduler import Scheduler
from engine.search.grid import Paper
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Tiny


@pytest.fixture
def queued(tiny: Tiny) -> OpenStudy:
    """A study with seven waiting trials and a calibration that prefers packs of four."""
    tiny.set({"train": {"micro_batch": None}})
    found = open_study(tiny.study, 1)
    found.record()
    CALIBRATION.put(found.store, found.setup, Calibration(0.01, 0.7, {}, 4, "cpu"))
    for proposal in Paper("probe").propose(found):
        queue.submit(found, proposal, Scheduler(found, 1e6, Slots(), new_events()).accounts)
        queue.ensure_trials(found, proposal)
    return found
