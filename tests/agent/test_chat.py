"""Conversations: streamed answers with citations; what is to be tried becomes a proposal that waits."""

from __future__ import annotations

from typing import Any

import pytest

from agent.chat import Chat, citations
from agent.failures import ModelError
from engine.study.opened import OpenStudy
from tests.agent.conftest import KEY, best, proposer, runnable, suggestion
from tests.agent.server import Drip, Drop, Raw, call, serving, text


def talk(opened: OpenStudy, url: str, monkeypatch: pytest.MonkeyPatch) -> Chat:
    proposer(opened, url, monkeypatch)
    return Chat(opened, 3600.0)


def test_an_answer_comes_in_pieces_and_its_citations_are_checked(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = f"The best is [{best(opened)}]; [0123456789ab] is not, and [paper:0f3ac1] says why."
    with serving(call("pool", {"id": best(opened)}), text(said)) as server:
        chat = talk(opened, server.url, monkeypatch)
        pieces = list(chat.ask("What is best?"))
        assert len(pieces) > 5
        assert "".join(pieces) == said
        list(chat.ask("And then?"))
    found = citations(opened, said)
    assert set(found["known"]) == {best(opened), "paper:0f3ac1"}
    assert found["unknown"] == ["0123456789ab"]
    assert [m["content"] for m in server.requests[2]["messages"][1:]] == ["What is best?", said, "And then?"]
    assert all(q["stream"] for q in server.requests)
    assert opened.store.one("SELECT sum(read) AS n FROM model_calls WHERE purpose = 'chat'") == {"n": 3000}


def test_try_it_becomes_a_proposal_that_waits(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = opened.store.query("SELECT * FROM trials")
    with serving(call("suggest", {"suggestion": suggestion(opened)}), text("Queued.")) as server:
        chat = talk(opened, server.url, monkeypatch)
        assert "".join(chat.ask("Try short captions with few words.")) == "Queued."
    (row,) = opened.store.query("SELECT id, status, origin FROM proposals WHERE origin = 'model'")
    assert chat.queued == [row["id"]]
    assert row["status"] == "queued"
    assert f"proposal {row['id']} is queued" in str(server.requests[1]["messages"][-1]["content"])
    assert opened.store.query("SELECT * FROM trials") == trials


@pytest.mark.parametrize(
    "arguments",
    [{}, {"suggestion": None}, {"suggestion": {"approved": True}}, "{", {"suggestion": "try it"}, {"proposal": "all"}],
)
def test_a_wrong_suggestion_is_told_and_nothing_happens(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch, arguments: Any
) -> None:
    before = runnable(opened)
    with serving(call("suggest", arguments), text("It did not work.")) as server:
        chat = talk(opened, server.url, monkeypatch)
        try:
            list(chat.ask("Try it."))
        except ModelError as error:
            assert KEY not in str(error)
    assert chat.queued == []
    assert runnable(opened) == before


@pytest.mark.parametrize(
    "said",
    [Raw(f'{{"error": {{"message": "bad key {KEY}"}}}}'.encode(), 401), Drop(), Drop(after=20), Drip(0.1, b":\n"),
     Raw(b"data: {\n\n", 200, (("Content-Type", "text/event-stream"),)), Drip(0.0, b"x" * 65_536)],
    ids=["401", "dropped", "cut", "dripping", "broken stream", "endless"],
)  # fmt: skip
def test_a_failing_server_ends_the_answer_in_one_line(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    opened.study = opened.study.model_copy(
        update={"agent": opened.study.agent.model_copy(update={"timeout": 0.5, "patience": 4})}
    )
    with serving(said) as server, pytest.raises(ModelError) as error:
        list(talk(opened, server.url, monkeypatch).ask("Hello?"))
    assert KEY not in str(error.value)
    assert "\n" not in str(error.value)
