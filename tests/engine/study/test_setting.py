"""What a change of study.yaml leaves standing: what all trials have in common decides, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.evidence.ranking import leaderboard
from engine.journal import trials
from engine.proposals.arms import control, request, trial_id
from engine.settings.study import Study
from engine.study.opened import OpenStudy, open_study
from engine.study.setting import APART, SECTIONS, differences
from engine.study.view import view_study
from tests.conftest import Tiny, run_until

# nothing of this touches a trial
STANDS: dict[str, dict[str, Any]] = {
    "name": {"name": "another name"},
    "budget": {"budget": "7h"},
    "confidence": {"search": {"confidence": 0.8}},
    "looks": {"search": {"looks": "any"}},
    "strategy": {"search": {"strategy": "race"}},
    "weights of the metrics": {"evaluation": {"aggregate": "change-of-means"}},
    "metrics": {"evaluation": {"metrics": ["likelihood"]}},
    "combine": {"combine": {"top": 2, "clusters": 2, "max": 3}},
    "scale": {"scale": {"rates": [2], "seeds": 3}},
    "confirm": {"confirm": {"candidates": 1, "seeds": 7, "all_data": False}},
    "cycles": {"cycles": {"max": 3}},
    "agent": {"agent": {"model": None}},
    "guard": {"guard": {"cost": "5min"}},
    "approval": {"approve": "hold"},
    "notices": {"notify": {"command": ["true"]}},
    "trackers": {"track": ["tensorboard"]},
    "bad rows": {"dataset": {"max_bad": 0.5}},
    "checkpoints": {"train": {"keep_checkpoints": 2}},
}
TOUCHES: dict[str, dict[str, Any]] = {
    "epochs": {"train": {"epochs": 0.25}}, "learning rate": {"train": {"learning_rate": 0.1}}, "seed": {"seed": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def standing(probed_template: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """A copy of the probed study for all tests of this file; each writes study.yaml anew."""
    from tests.conftest import copied

    yield copied(probed_template, tmp_path_factory.mktemp("standing") / "copy")


def _ids(opened: OpenStudy) -> list[str]:
    arms = [request(opened, control(opened, opened.pool_size), "control", "control")]
    arms += [request(opened, c.pool, c.label, "single") for c in opened.cuts if c.reason is None]
    return [trial_id(opened, arm, seed) for arm in arms for seed in range(2)]


@pytest.mark.parametrize("what", [*STANDS, *TOUCHES])
def test_a_change_strands_results_only_where_it_touches_trials(standing: Tiny, what: str) -> None:
    change = {"search": {"seeds": 2}} | (STANDS | TOUCHES)[what]
    standing.set({"search": {"seeds": 2}})
    with (before := open_study(standing.study, 1)).store:
        setup, ids = before.setup, _ids(before)
    standing.set(change)
    with (after := open_study(standing.study, 1)).store:
        assert (after.setup == setup) == (what in STANDS)
        assert bool(set(ids) & set(_ids(after))) == (what in STANDS)
        done = {t.id for t in trials.of_setup(after.store, after.setup) if t.state == "COMPLETE"}
        assert (set(ids) <= done) == (what in STANDS)
        told = differences(before.study, after.study)
        assert told == "other data, model or files" if what in STANDS else "→" in told


def test_every_field_is_known_to_touch_trials_or_not() -> None:
    """A new section of study.yaml has to be sorted here, too."""
    apart = {"name", "ops", "scores", "dedup", "pools", "search", "mixtures", "combine", "scale", "confirm", "cycles",
             "cache", "executor", "devices_per_trial", "budget", "design", "approve", "agent", "guard",
             "notify", "track"}  # fmt: skip
    assert set(Study.model_fields) - apart <= {*SECTIONS, "target"}
    assert set(APART) <= set(SECTIONS)


def test_a_change_that_touches_no_trial_trains_nothing_again(probed: Tiny) -> None:
    before = probed.trials()
    ranked = [(e.pool, e.change, e.seeds) for e in leaderboard(view_study(probed.study))]
    probed.set({"name": "renamed", "budget": "7h", "search": {"seeds": 2, "confidence": 0.8}, "confirm": {"seeds": 7}})
    run_until(probed, 99)
    assert probed.trials() == before
    view = view_study(probed.study)
    assert view.study.search.confidence == 0.8
    assert [(e.pool, e.change, e.seeds) for e in leaderboard(view)] == ranked


def test_results_come_back_with_the_setting(standing: Tiny, tmp_path: Path) -> None:
    """Changed and changed back: what ran before counts again."""
    standing.set({"search": {"seeds": 2}})
    with (opened := open_study(standing.study, 1)).store:
        opened.record()
        first = [e.pool for e in leaderboard(opened) if e.change is not None]
    standing.set({"search": {"seeds": 2}, "train": {"epochs": 0.25}})
    with (other := open_study(standing.study, 1)).store:
        other.record()
        assert not [e for e in leaderboard(other) if e.change is not None]
    standing.set({"search": {"seeds": 2}})
    with (again := open_study(standing.study, 1)).store:
        again.record()
        assert [e.pool for e in leaderboard(view_study(standing.study)) if e.change is not None] == first != []
