"""Decisions and guard-rails: what may run without a person, and that nothing is decided twice."""

from __future__ import annotations

from typing import Any

import pytest

from engine.base.errors import StudyError
from engine.evidence.ranking import rank
from engine.journal import proposals
from engine.loop.run import run_loop
from engine.proposals.kinds.registry import KINDS
from engine.proposals.suggest import suggest
from engine.records.experiment import Suggestion
from engine.records.proposal import Origin
from engine.review import decisions
from engine.review.guard import apply_guard, check_guard
from engine.runner.accounts import Accounts
from engine.settings.running import GuardSection
from engine.study.opened import OpenStudy


def queue(opened: OpenStudy, origin: Origin = "model", **experiment: Any) -> str:
    """Queue a suggestion; its id."""
    content = {"experiment": experiment, "reason": "a test", "cites": [rank(opened)[0].pool.id]}
    key, status, reason = suggest(opened, Suggestion.model_validate(content), origin, Accounts(opened, 3600.0))
    assert status == "queued", reason
    return key


def seeds(opened: OpenStudy, place: int = 0) -> str:
    return queue(opened, kind="seeds", pool=rank(opened)[place].pool.id, seeds=1)


def guard(opened: OpenStudy, **change: Any) -> None:
    section = GuardSection.model_validate({"approve": "auto", "paper_agrees": False, **change})
    opened.study = opened.study.model_copy(update={"guard": section})


def test_a_models_proposals_wait_unless_the_study_or_the_command_says_otherwise(opened: OpenStudy) -> None:
    key = seeds(opened)
    assert apply_guard(opened, False) == []
    assert decisions.waiting_proposals(opened) == [key]
    assert apply_guard(opened, True) == [key]
    (decision,) = opened.store.query("SELECT verdict, who FROM decisions WHERE proposal = ?", (key,))
    assert decision == {"verdict": "approve", "who": "policy auto"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kinds": ["combine"]}, "guard.kinds"),
        ({"kinds": []}, "guard.kinds"),
        ({"cost": "0.001s"}, "guard.cost"),
        ({"cost_per_day": "0.001s"}, "guard.cost_per_day"),
    ],
)
def test_what_is_beyond_a_guard_rail_waits_and_the_log_says_which(
    opened: OpenStudy, change: dict[str, Any], said: str
) -> None:
    guard(opened, **change)
    key = seeds(opened)
    for _ in range(2):
        assert apply_guard(opened, False) == []
    (event,) = opened.store.query("SELECT text FROM events WHERE kind = 'guard'")
    assert said in event["text"]
    assert decisions.waiting_proposals(opened) == [key]


def test_a_days_cost_counts_what_the_policy_approved(opened: OpenStudy) -> None:
    first = seeds(opened)
    cost = opened.store.query("SELECT cost FROM proposals WHERE id = ?", (first,))[0]["cost"]
    guard(opened, cost_per_day=f"{1.5 * cost:.4f}s")
    assert apply_guard(opened, False) == [first]
    second = seeds(opened, 1)
    assert apply_guard(opened, False) == []
    opened.store.execute("UPDATE decisions SET at = '2020-01-01T00:00:00.000+00:00' WHERE proposal = ?", (first,))
    assert apply_guard(opened, False) == [second]


def test_an_unknown_cost_waits(opened: OpenStudy) -> None:
    guard(opened)
    key = seeds(opened)
    opened.store.execute("UPDATE proposals SET cost = NULL WHERE id = ?", (key,))
    assert apply_guard(opened, False) == []


def test_the_papers_procedure_may_have_to_agree(opened: OpenStudy) -> None:
    guard(opened, paper_agrees=True, kinds=["seeds", "bucket", "repeat", "combine"])
    opened.study = opened.study.model_copy(update={"search": opened.study.search.model_copy(update={"top": 1})})
    ranked = rank(opened)
    assert ranked[-1].effect.change is not None
    assert ranked[-1].effect.change < 0
    good, bad = seeds(opened), seeds(opened, len(ranked) - 1)
    repeated = queue(opened, kind="repeat", pool=ranked[-1].pool.id, rate=2)
    assert apply_guard(opened, False) == [good]
    assert set(decisions.waiting_proposals(opened)) == {bad, repeated}
    told = {
        e["subject"]: e["text"] for e in opened.store.query("SELECT subject, text FROM events WHERE kind = 'guard'")
    }
    assert "not among the best" in told[bad]
    assert "not one of the best recipes" in told[repeated]


def test_the_guard_may_name_kinds_that_there_are_only(opened: OpenStudy) -> None:
    guard(opened, kinds=["combine", "scale"])
    assert opened.study.guard.kinds == ("combine", "transfer")  # as the kind is called now
    check_guard(opened.study)
    guard(opened, kinds=["combine", "run"])
    with pytest.raises(StudyError, match=r"guard\.kinds: there is no kind run; there are .*combine"):
        run_loop(opened, until="probe", workers=1)


def test_bounds_agree_with_the_buckets_they_lie_in(opened: OpenStudy) -> None:
    by_label = {r.label: r.effect.change for r in rank(opened)}
    low = next(c for c in opened.cuts if c.label == "text_len low").slice.high
    assert low is not None
    for bounds, sign in (({"high": low + 4}, by_label["text_len low"]), ({"low": low + 10}, by_label["text_len high"])):
        key = queue(opened, kind="bucket", slice={"statistic": "text_len", **bounds})
        stored = proposals.get(opened.store, key)
        assert stored is not None
        found = KINDS["bucket"].objection(opened, stored.proposal)
        assert sign is not None
        assert (found is None) == (sign > 0)


@pytest.mark.parametrize("cites", [[], ["0123456789ab"]])
def test_a_model_that_asks_for_what_a_person_has_queued_changes_nothing(opened: OpenStudy, cites: list[str]) -> None:
    pool = rank(opened)[0].pool.id
    key = queue(opened, "person", kind="seeds", pool=pool, seeds=1)
    before = opened.store.one("SELECT * FROM proposals WHERE id = ?", (key,))
    again = {"experiment": {"kind": "seeds", "pool": pool, "seeds": 1}, "reason": "mine", "cites": cites}
    found = suggest(opened, Suggestion.model_validate(again), "model", Accounts(opened, 3600.0))
    assert found == (key, "queued", "the same was asked for by person and waits")
    assert opened.store.one("SELECT * FROM proposals WHERE id = ?", (key,)) == before
    assert apply_guard(opened, True) == []


def test_no_policy_decides_on_what_a_person_took_back(opened: OpenStudy) -> None:
    key = seeds(opened)
    assert apply_guard(opened, True) == [key]
    decisions.undo(opened, key, "person a")
    assert apply_guard(opened, True) == []
    assert decisions.waiting_proposals(opened) == [key]


def test_nothing_is_decided_twice(opened: OpenStudy) -> None:
    key = seeds(opened)
    decisions.decide(opened, key, "hold", "person a", "later")
    decisions.decide(opened, key, "reject", "person b", "no")
    with pytest.raises(StudyError, match="is rejected"):
        decisions.decide(opened, key, "approve", "person a", "yes")
    with pytest.raises(StudyError, match="is gone"):
        decisions.decide(opened, "0" * 12, "approve", "person a", "yes")
    verdicts = opened.store.query("SELECT verdict FROM decisions WHERE proposal = ? ORDER BY id", (key,))
    assert [v["verdict"] for v in verdicts] == ["hold", "reject"]


def test_an_approved_suggestion_runs_beside_what_the_loop_asks_and_is_ranked(opened: OpenStudy) -> None:
    wanted = queue(opened, kind="bucket", slice={"statistic": "text_len", "low": 10, "high": 140})
    more = seeds(opened)
    rejected = queue(opened, kind="bucket", slice={"statistic": "num_words", "low": 3, "high": 25})
    before = {t["id"] for t in opened.store.query("SELECT id FROM trials")}
    decisions.decide(opened, wanted, "approve", "person a", "try")
    decisions.decide(opened, more, "approve", "person a", "wide interval")
    decisions.decide(opened, rejected, "reject", "person a", "no")
    assert run_loop(opened, until="probe", workers=1).how == "done"
    new = opened.store.query("SELECT id, proposal, state FROM trials")
    assert {t["proposal"] for t in new if t["id"] not in before} == {wanted, more}
    assert {t["state"] for t in new} == {"COMPLETE"}
    board = {r.label: r for r in rank(opened, ("single",), ("probe",))}
    assert board["text_len 10…140"].effect.seeds == 2
    assert board["text_len 10…140"].effect.ci_low is not None
    assert "num_words 3…25" not in board
    again = opened.store.query("SELECT id FROM trials")
    assert run_loop(opened, until="probe", workers=1).how == "done"
    assert opened.store.query("SELECT id FROM trials") == again
