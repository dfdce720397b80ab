"""Scores by a language model: asked only of the server that the study names, within its allowance, and once a text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.base.errors import OpError
from engine.data.recipe_entries import slice_entries
from engine.journal import model_calls
from engine.records.pool import Slice
from engine.study.opened import OpenStudy, open_study
from tests.agent.server import Raw, Server, serving, text
from tests.conftest import Tiny, write_jsonl

QUALITY, YES = "llm_quality_score_filter", "llm_condition_filter"
TEXTS = ["a fine text", "a bad text", "a fine text", "another"]


def reply(body: dict[str, Any]) -> dict[str, Any]:
    """Scores by what the question holds."""
    asked = body["messages"][-1]["content"]
    if "Answer yes or no" in asked:
        return text("Yes." if "a fine" in asked else "no")
    if "another" in asked:
        return text("I would rather not say.")
    mark = 5 if "fine" in asked else 1
    marks = dict.fromkeys(("accuracy", "grammar", "informativeness", "coherence"), mark)
    return text(json.dumps({"dimension_scores": marks, "flags": [], "rationale": "", "recommendation": ["keep"]}))


def study(tiny: Tiny, ops: dict[str, Any], **scores: Any) -> OpenStudy:
    """A study of four texts, two of them equal."""
    write_jsonl(tiny.train_file, [{"id": i, "text": t} for i, t in enumerate(TEXTS)])
    tiny.set({"task": None, "dataset": {"images": None}, "ops": ops, "scores": scores, "pools": {"size": 2}})
    return open_study(tiny.study, 1)


def at(server: Server, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "server": server.url, "tokens": 100_000, **more}


def test_a_text_is_asked_about_once_and_charged(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
    with serving(reply) as server:
        with (opened := study(tiny, {QUALITY: {}}, **at(server))).store:
            value = opened.columns["llm_quality_score"].value
            assert value[:3].tolist() == pytest.approx([1, 0.2, 1])
            assert value[3] != value[3]  # a reply without scores is no score of 0
            (why,) = opened.store.query("SELECT reason FROM unreadable")
            assert "rather not say" in why["reason"]
            use = model_calls.total(opened.store, scores=True)
            assert len(server.requests) == 3
            assert (use.read, use.written) == (3000, 150)
            assert model_calls.total(opened.store).read == 0  # the proposals' account is another
        assert {k.lower(): v for k, v in server.headers[0].items()}["authorization"].endswith("0123456789abcdef")
        assert (server.requests[0]["model"], server.requests[0]["temperature"]) == ("tiny", 0)
        with (opened := open_study(tiny.study, 1)).store:
            assert opened.columns["llm_quality_score"].value[1] == pytest.approx(0.2)
        write_jsonl(tiny.train_file, [{"id": i, "text": t} for i, t in enumerate([*TEXTS, "a bad text"])])
        with (opened := open_study(tiny.study, 1)).store:  # other data, the same texts
            assert opened.columns["llm_quality_score"].value[4] == pytest.approx(0.2)
        assert len(server.requests) == 3


def test_a_condition_gives_one_and_zero(tiny: Tiny) -> None:
    with serving(reply) as server, (opened := study(tiny, {YES: {"condition": "it is fine"}}, **at(server))).store:
        assert opened.columns["llm_condition_filter_result"].value.tolist() == [1, 0, 1, 0]
        with pytest.raises(OpError, match="export pool"):
            slice_entries(Slice(YES, "llm_condition_filter_result", 1, params=opened.op_plan[0][0].params))


@pytest.mark.parametrize(
    ("scores", "why"),
    [({}, "scores.model"), ({"model": "tiny"}, "scores.tokens is 0"), ({"tokens": 9}, "scores.model")],
)
def test_nothing_is_asked_unless_the_study_says_so(tiny: Tiny, scores: dict[str, Any], why: str) -> None:
    with serving(reply) as server:
        named = {"server": server.url, **scores}
        with (opened := study(tiny, {QUALITY: {}, "text_length_filter": {}}, **named)).store:
            assert list(opened.columns) == ["text_len"]
            (left,) = opened.op_plan[1]
            assert why in left.reason
        assert not server.requests


def test_an_allowance_that_cannot_suffice_is_told_before_anything_is_asked(tiny: Tiny) -> None:
    told = r"would take about \d+ tokens for 4 rows and scores.tokens allows 500"
    with serving(reply) as server:
        opened = study(tiny, {QUALITY: {}}, **at(server, tokens=500))
        with opened.store, pytest.raises(OpError, match=told):
            _ = opened.columns
        assert not server.requests


def test_check_forecasts_and_asks_nothing(tiny: Tiny) -> None:
    from app.commands.check import check

    with serving(reply) as server:
        study(tiny, {QUALITY: {}}, **at(server)).store.close()
        found = check(tiny.study, 1, lambda *_: None)
        (line,) = [x for x in found["findings"] if x.startswith(QUALITY)]
        assert f"asks tiny at {server.url} about 4 rows, about " in line
        assert "allows 100000" in line
        assert not server.requests


def test_a_server_that_fails_is_no_low_score_and_what_was_answered_is_kept(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
    broken = Raw(b'{"error": {"message": "no such model, sk-canary-0123456789abcdef"}}', 404)
    with serving(broken) as server:
        with (opened := study(tiny, {QUALITY: {}}, **at(server, parallel=1))).store:
            with pytest.raises(OpError, match="no such model") as told:
                _ = opened.columns
            assert "canary" not in str(told.value)
        server.script = [reply]
        with (opened := open_study(tiny.study, 1)).store:
            assert opened.columns["llm_quality_score"].value[0] == 1
