"""The race: who is dropped and why, on rungs that go on from where the last one ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.evidence.comparison import Scores
from engine.evidence.ranking import rank
from engine.loop import run as loop
from engine.records.metric import Metric
from engine.records.pool import Layer, Pool
from engine.records.proposal import Arm
from engine.search.race import CONTROL_SEEDS, Rung, bound, judge
from engine.search.sampler import ask
from engine.study.file import parse_study
from engine.study.opened import open_study
from engine.study.view import view_study
from tests.conftest import Tiny, make_tiny, run_djsb, the_error

ACCURACY = Metric("accuracy", True, 0, 1)
RACE: dict[str, Any] = {
    "train": {"epochs": 4, "learning_rate": 0.002},
    "search": {"strategy": "race", "top": 2, "rungs": [[0.25, 1], [0.5, 1], [0.5, 2]], "drop": 0.0},
    "combine": {"top": 2, "clusters": 2, "max": 4}, "scale": {"rates": [2, 4], "seeds": 1},
    "confirm": {"seeds": 2, "candidates": 1},
}  # fmt: skip


def table(means: Sequence[float], seeds: int, noise: float = 0.002, control: int = CONTROL_SEEDS) -> Scores:
    """Arms a0, a1 … and the control `c` at 0.5."""
    rng = np.random.default_rng(0)

    def runs(mean: float, n: int) -> dict[int, dict[str, float | None]]:
        return {s: {"accuracy": mean + float(rng.normal(0, noise))} for s in range(n)}

    return {"c": runs(0.5, control)} | {f"a{i}": runs(m, seeds) for i, m in enumerate(means)}


def dropped(
    scores: Scores, top: int = 2, keep: float = 0.9, least: float = 0.05, rung: Rung | None = None
) -> list[str]:
    arms = [a for a in scores if a != "c"]
    found = judge(scores, arms, "c", [ACCURACY], rung=rung or Rung(1, 2), top=top, keep=keep, least=least)
    assert all(d.reason for d in found)
    return sorted(d.arm for d in found)


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_arms_that_are_clearly_worse_are_dropped_and_close_ones_stay(seeds: int) -> None:
    scores = table([0.60, 0.5995, 0.6005, 0.30, 0.31], seeds)
    assert dropped(scores) == ["a3", "a4"]


def test_at_least_the_top_stay_and_at_most_the_share_goes_on() -> None:
    scores = table([0.5 + 0.001 * i for i in range(10)], 2, noise=0.05)
    assert len(dropped(scores, keep=0.5, least=0.0)) == 5
    assert len(dropped(scores, top=3, keep=0.01, least=0.49)) <= 7


def test_what_the_rest_of_the_steps_may_change_keeps_more_arms() -> None:
    scores = table([0.60, 0.58, 0.56, 0.54, 0.52, 0.50, 0.48, 0.46], 2, noise=0.02)
    late, early = dropped(scores, rung=Rung(1, 2)), dropped(scores, rung=Rung(0.1, 2))
    assert set(early) < set(late)


def test_an_arm_without_results_is_dropped_by_name() -> None:
    scores = {**table([0.6, 0.59, 0.58, 0.57], 2), "a9": {}}
    (found,) = judge(
        scores, [a for a in scores if a != "c"], "c", [ACCURACY], rung=Rung(1, 2), top=2, keep=0.9, least=0.0
    )
    assert (found.arm, found.chance) == ("a9", None)
    assert "no result" in found.reason


def test_the_bound_counts_trials_and_their_length() -> None:
    # 10 arms and 4 seeds of the control at a quarter; 5 arms from there to a half; a second seed of 3 arms
    trials, length = bound([(0.25, 1), (0.5, 1), (0.5, 2)], [0.5] * 3, 10, 2)
    assert trials == (10 + 4) + (5 + 4) + 3
    assert length == pytest.approx((10 + 4) * 0.25 + (5 + 4) * 0.25 + 3 * 0.5)


@pytest.mark.parametrize("rungs", [[[0.5, 1], [0.25, 1]], [[0.5, 2], [1.0, 1]], [[0.5, 1], [0.5, 1]]])
def test_rungs_must_rise(rungs: list[list[float]]) -> None:
    text = f"name: x\ndataset: {{path: x.jsonl}}\nops: {{text_length_filter: {{}}}}\nsearch: {{rungs: {rungs}}}\n"
    with pytest.raises(Exception, match=r"search.rungs"):
        parse_study(text)


def test_a_part_keeps_the_schedule_of_the_whole() -> None:
    whole = Arm.model_validate(
        {"pool": {"layers": [{"slices": [], "weight": None}], "size": 10, "repetition": 1, "seed": 0},
         "label": "x", "kind": "control", "samples": 40}
    )  # fmt: skip
    part = whole.part(0.25)
    assert part.key == (Pool((Layer(),), 10).id, 10, 40)
    assert whole.part(1.0) is whole


def test_the_sampler_asks_for_what_is_new_and_possible_and_the_same_again() -> None:
    space = dict.fromkeys("abc", (False, True))
    told: list[tuple[dict[str, Any], float | None]] = [({"a": True, "b": False, "c": False}, 1.0)]
    for _ in range(6):
        choice = ask(space, told, lambda c: any(c.values()), 0)
        assert choice is not None
        assert choice == ask(space, told, lambda c: any(c.values()), 0)
        assert any(choice.values())
        assert choice not in [c for c, _ in told]
        told.append((choice, float(choice["b"])))
    assert ask(space, told, lambda c: any(c.values()), 0) is None  # all seven are told


# -- with real workers -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A study that raced through all stages."""
    tiny = make_tiny(tmp_path_factory.mktemp("race"))
    tiny.set(RACE)
    with (opened := open_study(tiny.study)).store:
        assert loop.run_loop(opened).how == "done"
    return tiny


def rows(tiny: Tiny, sql: str) -> list[dict[str, Any]]:
    return view_study(tiny.study).store.query(sql)


def test_what_is_compared_ran_with_the_same_seeds_to_the_same_step(raced: Tiny) -> None:
    found = rows(
        raced,
        "SELECT p.kind, t.samples, t.horizon, t.pool, count(*) AS seeds FROM trials t JOIN pools p ON p.id = t.pool "
        "WHERE t.stage = 'probe' GROUP BY t.pool, t.samples ORDER BY t.samples",
    )
    assert {r["horizon"] for r in found} == {240}
    arms = {n: [r["seeds"] for r in found if r["samples"] == n and r["kind"] != "control"] for n in (60, 120)}
    assert arms[60] == [1] * 6
    assert sorted(arms[120]) == [1, 2, 2]  # half of six went on, then half of those, and the two best
    assert {r["seeds"] for r in found if r["kind"] == "control"} == {CONTROL_SEEDS}


def test_drops_are_recorded_with_their_reason(raced: Tiny) -> None:
    found = rows(raced, "SELECT * FROM drops WHERE stage = 'probe'")
    assert len(found) == 4
    assert all("go on" in r["reason"] or "chance" in r["reason"] for r in found)
    told = {r["subject"] for r in rows(raced, "SELECT subject FROM events WHERE kind = 'dropped'")}
    assert {r["pool"] for r in found} <= told
    ranked = rank(view_study(raced.study), ("single",), ("probe",))
    assert {r.pool.id for r in ranked if r.dropped} == {r["pool"] for r in found}
    assert [r.share for r in ranked] == sorted((r.share for r in ranked), reverse=True)


def test_every_trial_was_asked_for_and_allowed(raced: Tiny) -> None:
    assert {r["origin"] for r in rows(raced, "SELECT origin FROM proposals WHERE stage != 'confirm'")} == {"race"}
    assert not rows(
        raced,
        "SELECT t.id FROM trials t WHERE NOT EXISTS (SELECT 1 FROM proposal_trials x "
        "JOIN proposals p ON p.id = x.proposal JOIN decisions d ON d.proposal = p.id "
        "WHERE x.trial = t.id AND d.verdict = 'approve')",
    )


def test_recipes_are_searched_and_repetition_ends_when_it_no_longer_helps(raced: Tiny) -> None:
    combos = rows(raced, "SELECT label FROM pools WHERE kind = 'combination'")
    assert 1 <= len(combos) <= 4
    assert len({r["label"] for r in combos}) == len(combos)
    assert rows(raced, "SELECT id FROM pools WHERE kind = 'repetition'")


def test_going_on_from_a_pause_is_the_same_as_starting_anew(raced: Tiny, tmp_path: Path) -> None:
    assert rows(raced, "SELECT id FROM trials WHERE resumed > 0")
    anew = make_tiny(tmp_path)
    anew.set({**RACE, "search": {**RACE["search"], "pause_gb": 0}})
    with (opened := open_study(anew.study)).store:
        loop.run_loop(opened, until="probe")
    assert not rows(anew, "SELECT id FROM trials WHERE resumed > 0")
    sql = (
        "SELECT t.pool, t.seed, t.samples, m.name, m.value FROM trials t JOIN metrics m ON m.trial = t.id "
        "WHERE t.stage = 'probe' ORDER BY 1, 2, 3, 4"
    )
    assert rows(anew, sql) == rows(raced, sql)


@pytest.mark.long
def test_a_person_may_undo_a_drop(tiny: Tiny) -> None:
    tiny.set(RACE)
    with (opened := open_study(tiny.study)).store:
        loop.run_loop(opened, until="probe")
    first = rows(tiny, "SELECT pool FROM drops ORDER BY share, seeds, pool")[0]["pool"]
    sql = f"SELECT samples, count(*) AS n FROM trials WHERE pool = '{first}' AND stage = 'probe' GROUP BY 1"
    assert rows(tiny, sql) == [{"samples": 60, "n": 1}]
    done = run_djsb("readmit", first, "--dir", tiny.study, "--why", "its captions look fine")
    assert done.returncode == 0, done.stderr
    (decision,) = rows(tiny, "SELECT * FROM decisions WHERE verdict = 'readmit'")
    assert (decision["proposal"], decision["why"]) == (first, "its captions look fine")
    with (opened := open_study(tiny.study)).store:
        loop.run_loop(opened, until="probe")
    assert rows(tiny, sql) == [{"samples": 60, "n": 1}, {"samples": 120, "n": 2}]
    again = run_djsb("readmit", first, "--dir", tiny.study)
    assert "has dropped no pool" in the_error(again)


def test_the_plan_bounds_what_a_race_takes(raced: Tiny) -> None:
    import json

    plan = json.loads(run_djsb("plan", raced.study, "--json").stdout)
    for stage in plan["stages"]:
        if stage["stage"] in ("probe", "combine"):
            (found,) = rows(raced, f"SELECT count(*) AS n FROM trials WHERE stage = '{stage['stage']}'")
            assert found["n"] <= stage["trials"]
