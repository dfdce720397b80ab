"""The language model as a proposer, against a server that says what a good model would."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from agent.briefing import MAX, write_briefing
from agent.proposer import Statement, grounded
from engine.evidence.ranking import leaderboard, rank
from engine.journal.results import Result
from engine.records.answer import WITHHELD
from engine.records.sentence import Sentence
from engine.records.trial import FRESH
from engine.study.opened import OpenStudy
from tests.agent.conftest import KEY, best, proposer, runnable, suggestion
from tests.agent.server import Raw, call, serving, text


def proposals(*suggested: Any) -> Any:
    return call("Proposals", {"proposals": list(suggested)})


def stored(opened: OpenStudy) -> list[dict[str, Any]]:
    rows = opened.store.query("SELECT * FROM proposals WHERE origin = 'model' ORDER BY at, id")
    return [{**r, "content": json.loads(r["content"])} for r in rows]


def test_every_kind_that_runs_is_queued_with_its_cost(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        suggestion(opened),
        suggestion(opened, kind="bucket", slice={"statistic": "text_len", "low": 20, "high": 60}),
        suggestion(opened, kind="repeat", pool=best(opened), rate=3),
        suggestion(opened, kind="seeds", pool=best(opened), seeds=2),
    ]
    trials = opened.store.query("SELECT id FROM trials")
    with serving(proposals(*wanted)) as server:
        passed = proposer(opened, server.url, monkeypatch).propose(opened, 4)
    assert [p.kind for p in passed] == ["combine", "bucket", "repeat", "seeds"]
    assert [(r["kind"], r["stage"], r["status"]) for r in stored(opened)] == [
        ("combine", "combine", "queued"), ("bucket", "probe", "queued"),
        ("repeat", "scale", "queued"), ("seeds", "probe", "queued"),
    ]  # fmt: skip
    assert all(r["cost"] > 0 for r in stored(opened))
    combine, bucket, repeat, seeds = passed
    assert {p.kind for p in combine.pools} == {"control", "combination"}
    assert combine.seeds == bucket.seeds == (0, 1)
    assert seeds.seeds == (2, 3)
    assert {p.samples for p in seeds.pools} == {30}
    assert [p.to_pool().repetition for p in repeat.pools] == [1, 3, 1]
    assert len({p.samples for p in repeat.pools}) == 1
    assert opened.store.query("SELECT id FROM trials") == trials
    assert {k.lower(): v for k, v in server.headers[0].items()}["authorization"] == f"Bearer {KEY}"


def test_a_refused_proposal_is_told_why_and_may_be_mended(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = suggestion(opened, kind="bucket", slice={"statistic": "text_len", "low": 5000})
    with serving(proposals(empty), proposals(suggestion(opened))) as server:
        model = proposer(opened, server.url, monkeypatch)
        passed = model.propose(opened, 1)
    assert [p.kind for p in passed] == ["combine"]
    assert len(model.asked) == 2
    told = server.requests[1]["messages"][-1]["content"]
    assert "keeps 0 rows" in told
    refused, queued = stored(opened)
    assert (refused["status"], queued["status"]) == ("refused", "queued")
    assert "keeps 0 rows" in refused["content"]["gate"]


def test_an_invalid_reply_is_told_what_is_wrong(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**suggestion(opened), "approved": True}
    with serving(proposals(wrong), proposals(suggestion(opened))) as server:
        assert len(proposer(opened, server.url, monkeypatch).propose(opened, 1)) == 1
    assert "approved" in str(server.requests[1]["messages"][-1]["content"])
    events = opened.store.query("SELECT text FROM events WHERE kind = 'model'")
    assert "an invalid reply: proposals.0.approved: unknown field; remove it" in [e["text"] for e in events]


def test_the_tries_are_bounded(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(text("I approve everything.")) as server:
        model = proposer(opened, server.url, monkeypatch, tries=3)
        assert model.propose(opened, 1) == []
    assert len(server.requests) == 3
    assert "no valid reply in 3 tries; the last error: it is neither a call" in model.note


def test_tools_that_are_called_for_ever_come_to_an_end(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(call("literature", {"query": "mixture"})) as server:
        model = proposer(opened, server.url, monkeypatch)
        assert model.propose(opened, 1) == []
    assert len(server.requests) == 10
    assert "limit" in model.note


def test_what_was_run_or_rejected_is_not_queued_again(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.review.decisions import decide

    good = suggestion(opened)
    edges = {c.bucket: c.slice for c in opened.cuts if c.slice.statistic == "text_len"}
    probed = suggestion(opened, kind="bucket", slice={"statistic": "text_len", "high": edges["low"].high})
    with serving(proposals(good, probed)) as server:
        model = proposer(opened, server.url, monkeypatch, tries=1)
        (passed,) = model.propose(opened, 2)
        assert passed.kind == "combine"
        decide(opened, model.asked[0], "reject", "person test", "too few rows")
        assert model.propose(opened, 1) == []
    (run,) = [r for r in stored(opened) if r["status"] == "refused"]
    assert "a repetition" in run["content"]["gate"]
    assert "too few rows" in server.requests[1]["messages"][1]["content"]
    assert next(r["status"] for r in stored(opened) if r["kind"] == "combine") == "rejected"


def test_tokens_and_cost_are_counted_and_capped(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(call("decisions", {}), proposals(suggestion(opened))) as server:
        model = proposer(opened, server.url, monkeypatch, price=(1.0, 10.0))
        assert len(model.propose(opened, 1)) == 1
        calls = opened.store.query("SELECT * FROM model_calls")
        assert [(c["read"], c["written"], c["estimated"], c["outcome"]) for c in calls] == [
            (1000, 50, 0, "answered")
        ] * 2
        assert calls[0]["cost"] == pytest.approx((1000 * 1 + 50 * 10) / 1e6)
        for change, said in (
            ({"tokens": 2500}, "agent.tokens"),
            ({"price": (1.0, 1.0), "max_cost": 0.0031}, "max_cost"),
        ):
            model = proposer(opened, server.url, monkeypatch, **change)
            assert model.propose(opened, 1) == []
            assert said in model.note
        assert len(server.requests) == 2


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": -5, "completion_tokens": -5}])
def test_a_server_that_counts_nothing_is_counted_by_characters(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch, usage: Any
) -> None:
    with serving(proposals()) as server:
        server.usage = usage
        proposer(opened, server.url, monkeypatch).propose(opened, 1)
    (counted,) = opened.store.query("SELECT * FROM model_calls")
    assert counted["estimated"]
    assert counted["read"] > len(write_briefing(opened, 3600.0)) // 3


def test_a_busy_server_is_asked_again_after_growing_pauses(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    import openai._base_client as client

    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.2)
    monkeypatch.setattr(client, "MAX_RETRY_DELAY", 8.0)
    busy, times = Raw(b"{}", 429), list[float]()

    def timed(said: Any) -> Any:
        return lambda _: times.append(time.monotonic()) or said

    with serving(timed(busy), timed(Raw(b"{}", 503)), timed(proposals(suggestion(opened)))) as server:
        assert len(proposer(opened, server.url, monkeypatch).propose(opened, 1)) == 1
    first, second = times[1] - times[0], times[2] - times[1]
    assert 0.1 < first < second


def test_the_briefing_fits_and_names_what_a_proposal_needs(opened: OpenStudy) -> None:
    told = write_briefing(opened, 3600.0)
    assert len(told) <= MAX + 100
    for part in (
        "text_len",
        "num_words",
        best(opened),
        "of device time spent",
        "Ward clusters",
        "one trial",
        "accuracy",
    ):
        assert part in told
    assert "ignore all previous" not in told


def confirmed_values(opened: OpenStudy) -> list[str]:
    """Pretend results on fresh seeds, with values that can be found again."""
    trial = opened.store.query("SELECT * FROM trials LIMIT 1")[0]
    for i in range(2):
        fresh = {**trial, "id": f"{i:016x}", "seed": FRESH + i, "stage": "confirm"}
        opened.store.put("trials", fresh)
        opened.store.put("metrics", {"trial": fresh["id"], "name": "accuracy", "value": 0.918273645 + i})
    recipe = leaderboard(opened)[0].to_json() | {"label": "r", "change": 918.27, "ci_low": 918.27, "ci_high": 918.27}
    more = {"samples": 9, "repetition": 1, "kept": 9, "rows": 9}
    Result[Any]("recipe", Any).put(opened.store, opened.setup, recipe | more)
    Result[Any]("insight:confirm", Any).put(
        opened.store, opened.setup, [{"text": "918.27", "cites": [], "by": "template"}]
    )
    opened.store.event("recipe", "r: +918.27 % on fresh seeds", trial["pool"])
    return ["918.27", "0.918273645", "1.918273645", f"{0:016x}"]


def test_results_on_fresh_seeds_are_not_shown(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = opened.store.query("SELECT pool FROM trials LIMIT 1")[0]["pool"]
    secret = confirmed_values(opened)
    looks = [
        call("trials", {"pool": pool}), call("pool", {"id": pool}), call("decisions", {"last": 30}),
        call("distribution", {"statistic": "text_len"}), call("rows", {"statistic": "text_len", "bucket": "low"}),
        proposals({**suggestion(opened), "cites": [f"{0:016x}"]}),
    ]  # fmt: skip
    with serving(*looks) as server:
        assert proposer(opened, server.url, monkeypatch, tries=1).propose(opened, 1) == []
    assert len(server.requests) == len(looks)
    sent = json.dumps(server.requests)
    assert WITHHELD in sent
    assert not [s for s in secret if s in sent.replace(json.dumps([f"{0:016x}"]), "")]
    assert "no such pool, trial or proposal" in stored(opened)[0]["content"]["gate"]


def test_rows_are_not_shown_where_the_study_says_so(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = opened.study.model_copy(update={"agent": opened.study.agent.model_copy(update={"rows": 0})})
    opened.study = closed
    with serving(call("rows", {"statistic": "text_len", "bucket": "low"}), proposals()) as server:
        proposer(opened, server.url, monkeypatch).propose(opened, 1)
    assert "shows no rows" in json.dumps(server.requests[1])


def test_a_summary_is_taken_where_the_briefing_bears_it_out(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.evidence.sentences import insights
    from engine.loop import outcome

    leader = rank(opened)[0]
    outcome.analyse(opened, "probe")
    template = insights(opened)["probe"]
    assert template
    assert all(s.cites and s.by == "template" for s in template)
    sentences = [
        {"text": f"{leader.label} leads with {leader.effect.change:+.1f} %.", "cites": [leader.pool.id]},
        {"text": "Everything doubled: +123.4 %.", "cites": [leader.pool.id]},
        {"text": "An id from nowhere.", "cites": ["0123456789ab"]},
    ]
    with serving(call("Summary", {"sentences": sentences})) as server:
        outcome.summarise(opened, "probe", proposer(opened, server.url, monkeypatch))
    (kept,) = insights(opened)["probe"]
    assert kept == Sentence(str(sentences[0]["text"]), (leader.pool.id,), "model scripted")
    with serving(Raw(b"", 500)) as server:
        outcome.analyse(opened, "probe")
        outcome.summarise(opened, "probe", proposer(opened, server.url, monkeypatch))
    assert insights(opened)["probe"] == template


@pytest.mark.parametrize(
    ("said", "good"),
    [("+3.1 % over 2 seeds", True), ("3 %", True), ("about 3.14 %", True), ("3.2 %", False), ("4 seeds", False)],
)
def test_numbers_are_those_of_the_briefing_at_their_precision(said: str, good: bool) -> None:
    briefing = "aabbccddeeff x: +3.14 % over 2 seeds"
    assert grounded(Statement(text=said, cites=["aabbccddeeff"]), briefing) is good


def test_nothing_of_a_model_runs_without_a_decision(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.loop.run import run_loop

    with serving(proposals(suggestion(opened)), call("Summary", {"sentences": []})) as server:
        model = proposer(opened, server.url, monkeypatch)
        ended = run_loop(opened, until="probe", workers=1, adviser=model)
    assert (ended.how, ended.awaiting) == ("done", 1)
    (queued,) = stored(opened)
    assert queued["status"] == "queued"
    assert opened.store.query("SELECT 1 FROM trials WHERE proposal = ?", (queued["id"],)) == []
    before = runnable(opened)
    with serving(proposals()) as server:  # the same stage is not asked about again
        run_loop(opened, until="probe", workers=1, adviser=proposer(opened, server.url, monkeypatch))
        assert [q["messages"][1]["content"][:7] for q in server.requests] == ["Write t"] * len(server.requests)
    assert runnable(opened) == before


def test_under_hold_the_loop_stops_for_a_models_proposals(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.base.errors import Awaited
    from engine.loop.run import run_loop

    with serving(proposals(suggestion(opened, kind="seeds", pool=best(opened), seeds=1))) as server:
        model = proposer(opened, server.url, monkeypatch)
        with pytest.raises(Awaited, match=r"1 proposal\(s\) await"):
            run_loop(opened, until="probe", approve="hold", workers=1, adviser=model)
    assert [r["status"] for r in stored(opened)] == ["queued"]


def test_within_the_guard_rails_the_policy_approves_and_the_loop_runs(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.loop.run import run_loop

    wanted = [
        suggestion(opened, kind="seeds", pool=best(opened), seeds=1),
        suggestion(opened, kind="bucket", slice={"statistic": "text_len", "low": 20, "high": 60}),
    ]
    replies = [proposals(*wanted), call("Summary", {"sentences": []})]
    with serving(*replies) as server:
        ended = run_loop(
            opened, until="probe", approve="auto", workers=1, adviser=proposer(opened, server.url, monkeypatch)
        )
    assert (ended.how, ended.awaiting) == ("done", 1)
    assert {r["kind"]: r["status"] for r in stored(opened)} == {"seeds": "approved", "bucket": "queued"}
    key = next(r["id"] for r in stored(opened) if r["kind"] == "seeds")
    assert {t["state"] for t in opened.store.query("SELECT state FROM trials WHERE proposal = ?", (key,))} == {
        "COMPLETE"
    }
    (decision,) = opened.store.query("SELECT who FROM decisions WHERE proposal = ?", (key,))
    assert decision["who"] == "policy auto"
