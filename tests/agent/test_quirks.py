"""Servers as they are: an answer is read where it can be, else one plain line says why, streamed or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agent.chat import Chat
from agent.failures import ModelError
from agent.proposer import ModelProposer
from engine.study.opened import OpenStudy
from tests.agent.conftest import KEY, proposer, runnable, suggestion
from tests.agent.quirks import CALLS, FAILS, NO_TOOLS, TEXTS, WORKS, Quirk, function, regular
from tests.agent.server import Server, call, serving, text

Ask = Callable[[OpenStudy, str], Any]
MIND = {"timeout": 3.0, "patience": 20.0, "tries": 2}


@pytest.fixture
def study(victim: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> OpenStudy:
    """The study, whose server has a second for a reply."""
    settings = victim.study.model_copy(update={"agent": victim.study.agent.model_copy(update=MIND)})
    monkeypatch.setitem(victim.__dict__, "study", settings)
    return victim


def chat(opened: OpenStudy, server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    return "".join(Chat(opened, 3600.0).ask("What is best?"))


def propose(opened: OpenStudy, server: Server, monkeypatch: pytest.MonkeyPatch) -> ModelProposer:
    model = proposer(opened, server.url, monkeypatch)
    model.request(opened, 1)
    return model


def proposal() -> Any:
    return call("Proposals", {"proposals": []})


def counted(opened: OpenStudy) -> list[tuple[int, int]]:
    """Tokens of the calls so far, read and written."""
    return [(r["read"], r["written"]) for r in opened.store.query("SELECT read, written FROM model_calls ORDER BY id")]


@pytest.mark.parametrize("name", WORKS)
def test_what_can_be_read_is_read(study: OpenStudy, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = len(counted(study))
    with serving(WORKS[name](text("It is 7."))) as server:
        assert chat(study, server, monkeypatch) == "It is 7."
    with serving(WORKS[name](proposal())) as server:
        assert propose(study, server, monkeypatch).note == "the language model has nothing to propose"
    assert len(server.requests) == 1
    for read, written in counted(study)[before:]:
        assert 100 < read < 10_000
        assert 0 < written < 1000


@pytest.mark.parametrize("name", CALLS)
def test_a_call_in_another_form_is_followed(study: OpenStudy, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with serving(CALLS[name](call("pool", {"id": "0123456789ab"})), text("It is 7.")) as server:
        assert chat(study, server, monkeypatch) == "It is 7."
    *_, called, answered = server.requests[1]["messages"]
    assert "no pool '0123456789ab'" in answered["content"]
    assert answered["tool_call_id"] == called["tool_calls"][0]["id"]
    with serving(CALLS[name](proposal())) as server:
        assert propose(study, server, monkeypatch).note == "the language model has nothing to propose"
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", TEXTS)
def test_an_answer_is_its_text(study: OpenStudy, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    quirk, shown = TEXTS[name]
    with serving(quirk(text(""))) as server:
        assert chat(study, server, monkeypatch) == shown


@pytest.mark.parametrize("name", FAILS)
@pytest.mark.parametrize("ask", [chat, propose])
def test_what_cannot_be_read_is_said_in_one_line(
    study: OpenStudy, monkeypatch: pytest.MonkeyPatch, name: str, ask: Callable[..., Any]
) -> None:
    quirk, why = FAILS[name]
    before = runnable(study)
    said = quirk(text("It is 7.") if ask is chat else proposal())
    with serving(said) as server, pytest.raises(ModelError, match=f"(?s)^.*({why})") as error:
        ask(study, server, monkeypatch)
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 420
    assert "Error" not in line, "a name of a class says nothing to a person"
    assert KEY not in line
    assert runnable(study) == before
    assert all(read >= 0 and written >= 0 for read, written in counted(study))


@pytest.mark.parametrize("said", ['{"a": 1,}', "{", "[1]", "7", "id=3"])
def test_arguments_that_are_no_object_are_answered_and_asked_for_again(
    study: OpenStudy, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    with serving(function(arguments=said)(call("decisions", {})), text("It is 7.")) as server:
        assert chat(study, server, monkeypatch) == "It is 7."
    assert len(server.requests) == 2
    with serving(function(arguments=said)(proposal()), proposal()) as server:
        assert propose(study, server, monkeypatch).note == "the language model has nothing to propose"
    assert len(server.requests) == 2


def test_a_tool_that_is_not_there_is_said_to_the_model(study: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(call("no_such_tool", {}), text("It is 7.")) as server:
        assert chat(study, server, monkeypatch) == "It is 7."
    assert "no_such_tool is not a valid tool" in server.requests[1]["messages"][-1]["content"]


def test_tools_that_are_called_for_ever_are_said(study: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(call("decisions", {})) as server, pytest.raises(ModelError, match="went on calling tools"):
        chat(study, server, monkeypatch)
    with serving(function(arguments="{")(call("decisions", {}))) as server, pytest.raises(ModelError, match="went on"):
        chat(study, server, monkeypatch)


@pytest.mark.parametrize("refused", NO_TOOLS)
def test_a_server_without_tools_is_asked_without(
    study: OpenStudy, monkeypatch: pytest.MonkeyPatch, refused: Quirk
) -> None:
    def say(message: Any) -> Callable[[Any], Any]:
        return lambda body: refused({}) if body.get("tools") else message

    with serving(say(text("It is 7."))) as server:
        assert chat(study, server, monkeypatch) == "It is 7."
    assert "You have no tools here" in server.requests[-1]["messages"][0]["content"]
    plain = json.dumps({"proposals": [suggestion(study, kind="bucket", slice={"statistic": "text_len", "low": 1e6})]})
    with serving(say(text(f"Here it is:\n```json\n{plain}\n```"))) as server:
        model = propose(study, server, monkeypatch)
    assert len(set(model.asked)) == 1
    assert '"cites"' in server.requests[-1]["messages"][0]["content"], "the form is told"
    events = study.store.query("SELECT text FROM events WHERE kind = 'model' ORDER BY id DESC LIMIT 20")
    assert any("the server takes no tools" in e["text"] for e in events)


def test_json_in_the_text_is_read_where_the_model_does_not_call(
    study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(text('I propose {"proposals": []}')) as server:
        assert propose(study, server, monkeypatch).note == "the language model has nothing to propose"
    with serving(text('{"proposals": [1]}'), text("No.")) as server, pytest.raises(ModelError, match="no valid reply"):
        propose(study, server, monkeypatch)


def test_tokens_of_a_reply_without_an_answer_are_counted(study: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(counted(study))
    with serving(regular(text(""))) as server, pytest.raises(ModelError):
        chat(study, server, monkeypatch)
    assert counted(study)[before:] == [(1000, 50)]


def test_a_server_that_is_not_there_is_named_without_its_password(
    study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://someone:hunter2hunter2@127.0.0.1:9/v1")
    with pytest.raises(ModelError, match=r"no connection to http://127\.0\.0\.1:9/v1") as error:
        list(Chat(study, 3600.0).ask("?"))
    assert "hunter2" not in str(error.value)


def test_no_key_reaches_what_stays(study: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.report.page import write_report

    other = "hf_0123456789abcdefghijABCD"
    study.store.event("note", f"{KEY} and {other}")
    with serving(text(f"It is {KEY}, or {other}.")) as server:
        proposer(study, server.url, monkeypatch)
        talk = Chat(study, 3600.0)
        assert "".join(talk.ask(f"Is it {KEY}?")) == "It is [OPENAI_API_KEY], or [key]."
    assert KEY not in str(talk.messages) + str(server.requests)
    assert other not in str(talk.messages)
    write_report(study.folder, None)
    for file in (f for f in study.folder.rglob("*") if f.is_file()):
        content = file.read_bytes()
        assert KEY.encode() not in content, file
        assert other.encode() not in content, file
