"""The loop with real workers: stages, decisions, budget, failures."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import Awaited
from engine.evidence.ranking import leaderboard
from engine.loop import run as loop
from engine.records.proposal import Arm, Proposal
from engine.review import decisions
from engine.runner.local import LocalSlot
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy, open_study
from engine.study.view import view_study
from tests.conftest import Tiny, make_tiny, run_djsb

WHOLE = {
    "train": {"epochs": 1, "keep_checkpoints": 2, "learning_rate": 0.002},
    "search": {"seeds": 2, "screen": {"top": 2, "seeds": 2}}, "scale": {"rates": [2], "seeds": 2},
    "combine": {"top": 2, "clusters": 2, "max": 4}, "confirm": {"seeds": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A study that ran through all stages."""
    tiny = make_tiny(tmp_path_factory.mktemp("whole"))
    tiny.set(WHOLE)
    with (opened := open_study(tiny.study)).store:
        assert loop.run_loop(opened).how == "done"
    return tiny


def rows(tiny: Tiny, sql: str) -> list[dict[str, Any]]:
    return view_study(tiny.study).store.query(sql)


def test_every_trial_was_asked_for_by_a_proposal_and_allowed_by_a_decision(whole: Tiny) -> None:
    assert rows(whole, "SELECT id FROM trials")
    assert not rows(
        whole,
        "SELECT t.id FROM trials t WHERE NOT EXISTS (SELECT 1 FROM proposal_trials x "
        "JOIN proposals p ON p.id = x.proposal JOIN decisions d ON d.proposal = p.id "
        "WHERE x.trial = t.id AND d.verdict = 'approve')",
    )


def test_all_pools_of_a_stage_have_equal_samples(whole: Tiny) -> None:
    for stage in ("probe", "combine"):
        found = rows(whole, f"SELECT DISTINCT samples FROM trials WHERE stage = '{stage}'")
        assert len(found) <= 1


def test_scaling_compares_at_equal_trained_samples(whole: Tiny) -> None:
    found = rows(
        whole, "SELECT DISTINCT t.samples, p.kind FROM trials t JOIN pools p ON p.id = t.pool WHERE t.stage = 'scale'"
    )
    by_samples: dict[int, set[str]] = {}
    for r in found:
        by_samples.setdefault(r["samples"], set()).add(r["kind"])
    assert all({"repetition", "layers", "control"} == kinds for kinds in by_samples.values())


def test_confirming_seeds_are_fresh(whole: Tiny) -> None:
    probing = {r["seed"] for r in rows(whole, "SELECT seed FROM trials WHERE stage != 'confirm'")}
    confirming = {r["seed"] for r in rows(whole, "SELECT seed FROM trials WHERE stage = 'confirm'")}
    assert not probing & confirming


def test_the_ranking_does_not_read_the_confirming_seeds(whole: Tiny) -> None:
    assert {e.seeds for e in leaderboard(view_study(whole.study)) if e.verdict != "degenerate"} == {2}


def test_the_costs_are_the_sum_of_the_trials(whole: Tiny) -> None:
    (spent,) = rows(whole, "SELECT SUM(seconds) AS s FROM costs WHERE kind = 'trial'")
    (own,) = rows(whole, "SELECT SUM(seconds) AS s FROM trials")
    assert spent["s"] == pytest.approx(own["s"])


def test_the_best_checkpoints_are_kept_as_safetensors(whole: Tiny) -> None:
    kept = rows(whole, "SELECT path FROM checkpoints WHERE kept = 1")
    assert len(kept) == 2
    assert all((whole.study / r["path"] / "model.safetensors").exists() for r in kept)
    assert len(list((whole.study / ".djsb" / "checkpoints").iterdir())) == 2


def test_running_again_runs_nothing(whole: Tiny) -> None:
    before = rows(whole, "SELECT id, attempts, finished FROM trials ORDER BY id")
    with (opened := open_study(whole.study)).store:
        assert loop.run_loop(opened).how == "done"
    assert rows(whole, "SELECT id, attempts, finished FROM trials ORDER BY id") == before


def test_held_proposals_wait_until_a_person_decides(tiny: Tiny) -> None:
    tiny.set({"ops": {"text_length_filter": {}}})
    held = run_djsb("auto", tiny.study, "--approve", "hold", "--until", "probe")
    assert held.returncode == 3
    assert "djsb review" in held.stderr
    assert rows(tiny, "SELECT id FROM trials") == []
    listed = run_djsb("review", "--dir", tiny.study, "--json")
    assert listed.returncode == 3
    (waiting,) = json.loads(listed.stdout)["waiting"]
    assert waiting["status"] == "queued"
    assert run_djsb("review", waiting["id"], "--dir", tiny.study, "--approve", "--why", "looks right").returncode == 0
    done = run_djsb("auto", tiny.study, "--approve", "hold", "--until", "probe")
    assert done.returncode == 0, done.stderr
    (decision,) = rows(tiny, "SELECT * FROM decisions")
    assert (decision["verdict"], decision["why"]) == ("approve", "looks right")
    assert decision["who"].startswith("person ")


def test_what_a_person_took_back_is_not_approved_again(tiny: Tiny) -> None:
    with (opened := open_study(tiny.study, 1)).store:
        with pytest.raises(Awaited):
            loop.run_loop(opened, until="probe", approve="hold", workers=1)
        waiting = decisions.waiting_proposals(opened)
        for one in waiting:
            decisions.decide(opened, one, "approve", decisions.AUTO, "it passed the gate")
            decisions.undo(opened, one, "person test")
        with pytest.raises(Awaited):
            loop.run_loop(opened, until="probe", approve="auto", workers=1)
        assert decisions.waiting_proposals(opened) == waiting
        assert opened.store.query("SELECT id FROM trials") == []


def test_a_rejected_proposal_runs_nothing(tiny: Tiny) -> None:
    with (opened := open_study(tiny.study, 1)).store:
        with pytest.raises(Awaited):
            loop.run_loop(opened, until="probe", approve="hold", workers=1)
        for one in decisions.waiting_proposals(opened):
            decisions.decide(opened, one, "reject", "test", "no")
        assert loop.run_loop(opened, until="probe", approve="hold", workers=1).how == "done"
        assert opened.store.query("SELECT id FROM trials") == []


def test_a_budget_too_small_for_one_trial_says_so_and_keeps_the_reason(tiny: Tiny) -> None:
    done = run_djsb("auto", tiny.study, "--budget", "0.1s", "--until", "probe")
    assert done.returncode == 4, done.stderr
    assert any("budget" in r["text"] for r in rows(tiny, "SELECT text FROM events"))
    assert rows(tiny, "SELECT id FROM trials WHERE state = 'COMPLETE'") == []
    whole = run_djsb("auto", tiny.study, "--budget", "0.1s")
    told = whole.stdout + "".join(r["text"] for r in rows(tiny, "SELECT text FROM events"))
    assert whole.returncode == 4 and "no trial has finished, so nothing can be said" in whole.stdout
    assert "ended in stage probe: it would take" in whole.stdout
    assert "beat the control" not in told and "called best" not in told


def attach_crash(scheduler: Scheduler, times: int, killed: list[set[str]]) -> None:
    """Kill the first worker that trains, and, with times = 2, the next that tries one of its trials again.

    killed: gets what each of them trained.
    """
    pids = set()

    def watch(s: Scheduler) -> None:
        for slot in s.slots:
            assert isinstance(slot, LocalSlot)
            again = not killed or set(slot.trials) <= killed[0]
            if slot.trials and slot._process and len(killed) < times and again and slot._process.pid not in pids:
                pids.add(slot._process.pid)
                killed.append(set(slot.trials))
                os.kill(slot._process.pid, signal.SIGKILL)

    scheduler.watch = watch


@pytest.mark.parametrize("crashes", [1, 2])
def test_what_a_crashed_worker_trained_is_recorded_and_tried_once_more_alone(tiny: Tiny, crashes: int) -> None:
    tiny.set({"ops": {"text_length_filter": {}}, "train": {"micro_batch": None}})
    killed: list[set[str]] = []
    with (opened := open_study(tiny.study, 1)).store:
        loop.run_loop(opened, until="probe", workers=1, started=lambda s: attach_crash(s, crashes, killed))
        states = {r["id"]: r["state"] for r in opened.store.query("SELECT id, state FROM trials")}
        crashed = opened.store.query("SELECT subject, text FROM events WHERE kind = 'crash'")
    first, *second = killed
    assert {r["subject"] for r in crashed} >= first
    assert all("died" in r["text"] for r in crashed)
    assert {t for t, s in states.items() if s == "FAIL"} == (second[0] if second else set())
    assert all(len(pack) == 1 and pack <= first for pack in second)
    assert set(states.values()) <= {"COMPLETE", "FAIL"}


def proposal_of(opened: OpenStudy, **change: Any) -> Proposal:
    cut = next(c for c in opened.cuts if c.reason is None)
    pool = asdict(cut.pool) | change
    request = Arm.model_validate({"pool": pool, "label": "x", "kind": "single", "samples": 16})
    return Proposal(origin="person", kind="probe", stage="probe", pools=(request,), seeds=(0,), reason="test")


def layers(op: str, statistic: str) -> list[dict[str, Any]]:
    return [{"slices": [{"op": op, "statistic": statistic, "params": []}], "weight": None}]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": 100_000}, "keep"),
        ({"repetition": 1000}, "repetition"),
        ({"layers": layers("text_length_filter", "nothing")}, "not computed"),
        ({"layers": layers("python_lambda_mapper", "text_len")}, "other parameters"),
    ],
)
def test_the_gate_refuses(tiny: Tiny, change: dict[str, Any], reason: str) -> None:
    from engine.proposals import gate

    with (opened := open_study(tiny.study, 1)).store:
        assert gate.check(proposal_of(opened), opened, 1.0, 10.0, 1).ok
        refused = gate.check(proposal_of(opened, **change), opened, 1.0, 10.0, 1)
        assert not refused.ok
        assert reason in refused.reason
        assert not gate.check(proposal_of(opened), opened, 11.0, 10.0, 1).ok
        assert not gate.check(proposal_of(opened), opened, 1.0, 10.0, 0).ok


def test_a_second_engine_is_refused_and_a_dead_one_is_not(tiny: Tiny) -> None:
    from engine.base.errors import LockedError
    from engine.study.lock import EngineLock, engine_pid

    state = tiny.study / ".djsb"
    state.mkdir()
    with EngineLock(state):
        assert engine_pid(state) == os.getpid()
        with pytest.raises(LockedError, match=str(os.getpid())):
            EngineLock(state)
    assert engine_pid(state) is None


def test_checkpoint_folder_is_empty_when_none_are_kept(stopped: Tiny) -> None:
    folder: Path = stopped.study / ".djsb" / "checkpoints"
    assert not folder.exists() or not list(folder.iterdir())


def test_an_op_taken_out_of_the_study_no_longer_decides(stopped: Tiny) -> None:
    """Results of an OP that the study no longer names stay, and nothing is proposed from them."""
    from engine.search.grid import combine, confirm

    with (opened := open_study(stopped.study, 1)).store:
        loop.run_loop(opened, until="probe", workers=1)
    stopped.set({"ops": {"text_length_filter": {}}})
    with (opened := open_study(stopped.study, 1)).store:
        for proposal in [*combine(opened), *confirm(opened)]:
            for request in proposal.pools:
                assert {s.statistic for s in request.to_pool().slices} <= {"text_len"}
        assert loop.run_loop(opened, workers=1, until="combine").how == "done"


def test_changed_prompts_are_another_context(tiny: Tiny) -> None:
    with (opened := open_study(tiny.study, 1)).store:
        first, prepared = opened.setup, opened.prepared
    tiny.set({"evaluation": {"prompts": ["a photo of a {}", "{}"]}})
    with (opened := open_study(tiny.study, 1)).store:
        assert opened.setup != first
        assert opened.prepared != prepared
