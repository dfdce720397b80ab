"""The chat pane: streamed answers of a real server on loopback, checked citations, proposals that wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from textual.pilot import Pilot
from textual.widgets import Input, Markdown, Static

from app.tui.app import DjsbApp
from app.tui.screens.chat import Chat
from app.tui.screens.proposals import Proposals
from tests.agent.conftest import KEY
from tests.agent.server import Drip, Raw, call, serving, text
from tests.app.tui.driving import query, shown, until
from tests.conftest import Tiny

SIZE = (80, 24)
NOTHING = ("OPENAI_API_KEY", "OPENAI_BASE_URL")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no server but the test's own, and short pauses between retries."""
    import openai._base_client as client

    for name in NOTHING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(client, "MAX_RETRY_DELAY", 0.02)


def reached(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", url)


async def opened(pilot: Pilot[Any], app: DjsbApp) -> Chat:
    await shown(pilot, app)
    await pilot.press("8")
    await until(pilot, lambda: isinstance(app.screen, Chat), "the chat")
    assert isinstance(app.screen, Chat)
    return app.screen


async def asked(pilot: Pilot[Any], at: Chat, question: str) -> None:
    line = at.query_one("#ask", Input)
    await until(pilot, lambda: not line.disabled and line.has_focus, "the line")
    line.value = question
    await pilot.press("enter")


def all_text(at: Chat) -> str:
    """Everything that stands in the pane."""
    said = [str(w.content) for w in at.query("#talk Static").results(Static) if not w.has_class("markdown")]
    return "\n".join([*said, *(m.source for m in at.query(Markdown))])


async def test_without_a_key_it_says_so_once_and_all_else_works(probed: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=SIZE) as pilot:
        at = await opened(pilot, app)
        await until(pilot, lambda: at.query(".missing"), "what is missing")
        assert "OPENAI_API_KEY" in all_text(at)
        assert at.query_one("#ask", Input).disabled
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, Proposals), "another screen")
        await pilot.press("8")
        await until(pilot, lambda: app.screen is at, "the chat again")
        with serving(text("Hello.")) as server:
            reached(monkeypatch, server.url)
            await pilot.press("1", "8")
            await asked(pilot, at, "Hello?")
            await until(pilot, lambda: "Hello." in all_text(at), "the answer")
        assert len(at.query(".missing")) == 1


async def test_an_answer_streams_and_its_ids_are_checked(probed: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    ((pool,),) = query(probed.study, "SELECT id FROM pools WHERE label = 'text_len low'")
    said = f"The best is **{pool}**, not [0123456789ab]. [bold]No markup[/] \x1b[31m here."
    app = DjsbApp(probed.study)
    async with app.run_test(size=SIZE) as pilot:
        at = await opened(pilot, app)
        seen: list[str] = []
        with serving(text(said)) as server:
            reached(monkeypatch, server.url)
            await pilot.press("1", "8")
            monkeypatch.setattr(at, "post_message", _recorded(at, seen))
            await asked(pilot, at, "What is best?")
            await until(pilot, lambda: at.query(".after"), "what the answer cites")
            assert server.requests[0]["messages"][-1]["content"] == "What is best?"
        assert len(seen) > 5, "the answer came in one piece"
        assert "".join(seen) == said.replace("\x1b", "\\x1b")
        source = at.query_one(Markdown).source
        assert f"**{pool}**" in source
        assert "0123456789ab (⚠ not in this study)" in source
        assert "\x1b" not in source
        after = all_text(at)
        assert f"cites {pool} text_len low" in after
        assert "[0123456789ab] is not in this study" in after
        assert "› What is best?" in after
    assert query(probed.study, "SELECT purpose, outcome FROM model_calls") == [("chat", "answered")]


def _recorded(at: Chat, seen: list[str]) -> Any:
    """post_message that also keeps the pieces of an answer."""
    post = at.post_message

    def keep(message: Any) -> bool:
        if type(message).__name__ == "Said":
            seen.append(message.text)
        return post(message)

    return keep


async def test_what_is_to_be_tried_waits_and_is_one_key_away(probed: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    ((pool,),) = query(probed.study, "SELECT id FROM pools WHERE label = 'text_len low'")
    parts = [{"statistic": "text_len", "bucket": "low"}, {"statistic": "num_words", "low": 1, "high": 14}]
    wanted = {"experiment": {"kind": "combine", "slices": parts}, "reason": "both do well", "cites": [pool]}
    app = DjsbApp(probed.study)
    with serving(call("suggest", {"suggestion": wanted}), text("Queued."), text("Yes.")) as server:
        reached(monkeypatch, server.url)
        async with app.run_test(size=SIZE) as pilot:
            at = await opened(pilot, app)
            await asked(pilot, at, "Try short captions with few words.")
            await until(pilot, lambda: at.proposals, "the proposal")
            await asked(pilot, at, "And?")
            await until(pilot, lambda: "Yes." in all_text(at), "the second answer")
            assert [m["content"] for m in server.requests[-1]["messages"]][-3:] == [
                "Try short captions with few words.", "Queued.", "And?",
            ]  # fmt: skip
            ((proposal, status),) = query(probed.study, "SELECT id, status FROM proposals WHERE origin = 'model'")
            assert status == "queued"
            assert f"queued: {proposal} waits for your decision" in all_text(at)
            await pilot.press("escape", "o")
            await until(pilot, lambda: isinstance(app.screen, Proposals), "the queue")
            screen = app.screen
            assert isinstance(screen, Proposals)
            await until(pilot, lambda: screen.current and screen.current["id"] == proposal, "the cursor on it")
    assert query(probed.study, "SELECT count(*) FROM decisions WHERE who NOT LIKE 'policy%'") == [(0,)]


async def test_escape_ends_an_answer_that_never_ends(probed: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    app = DjsbApp(probed.study)
    with serving(Drip(0.05, b":\n"), text("Here.")) as server:
        reached(monkeypatch, server.url)
        async with app.run_test(size=SIZE) as pilot:
            at = await opened(pilot, app)
            await asked(pilot, at, "Hello?")
            await until(pilot, lambda: server.requests, "the request")
            await pilot.press("escape")
            await until(pilot, lambda: "stopped" in all_text(at), "its end")
            await asked(pilot, at, "Hello again?")
            await until(pilot, lambda: "Here." in all_text(at), "the next answer")


async def test_a_server_that_fails_is_one_line_without_the_key(probed: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    app = DjsbApp(probed.study)
    with serving(Raw(f'{{"error": {{"message": "bad key {KEY}"}}}}'.encode(), 401)) as server:
        reached(monkeypatch, server.url)
        async with app.run_test(size=SIZE) as pilot:
            at = await opened(pilot, app)
            await asked(pilot, at, "Hello?")
            await until(pilot, lambda: "401" in all_text(at), "the error")
            assert KEY not in all_text(at)


async def test_a_study_without_a_model_says_where_to_name_one(probed: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_model(probed.study)
    reached(monkeypatch, "http://127.0.0.1:9/v1")
    app = DjsbApp(probed.study)
    async with app.run_test(size=SIZE) as pilot:
        at = await opened(pilot, app)
        await until(pilot, lambda: "set agent.model in study.yaml" in all_text(at), "what is missing")
        await pilot.press("o")
        assert app.screen is at


def _without_model(study: Path) -> None:
    settings = yaml.safe_load((study / "study.yaml").read_text())
    settings["agent"]["model"] = None
    (study / "study.yaml").write_text(yaml.safe_dump(settings))
