"""A program and a webhook are told; what they do wrong is a warning, and no more."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import Awaited, StudyError
from engine.journal import costs
from engine.loop import run as loop
from engine.loop.notify import notices
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Tiny, make_tiny

WRITE = (
    "import os, pathlib, sys; f = pathlib.Path('told.jsonl').open('a'); "
    "f.write(sys.stdin.read() + chr(10)); assert os.environ['DJSB_NOTICE_TEXT']"
)


class Hook(HTTPServer):
    """A webhook that keeps what it gets. status: what it answers. wait: seconds before it does."""

    status, wait = 204, 0.0

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook/very-secret-part"


class Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.wait)
        self.server.got.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return make_tiny(tmp_path)


def warnings(opened: OpenStudy) -> list[str]:
    rows = opened.store.query("SELECT text FROM events WHERE kind = 'notify' AND level = 'warning'")
    return [row["text"] for row in rows]


def tell(tiny: Tiny, settings: dict[str, Any], *said: tuple[Any, str]) -> list[str]:
    """Send notices of a study; the warnings that come of it."""
    tiny.set({"notify": settings})
    with (opened := open_study(tiny.study)).store:
        with notices(opened) as sent:
            for occasion, text in said:
                sent.tell(occasion, text)
        return warnings(opened)


def test_a_run_that_awaits_a_decision_and_one_that_ends_are_told(tiny: Tiny, hook: Hook) -> None:
    tiny.set({"notify": {"webhook": hook.url, "command": [sys.executable, "-c", WRITE]}})
    with (opened := open_study(tiny.study)).store, pytest.raises(Awaited):
        loop.run_loop(opened, until="probe", approve="hold")
    with (opened := open_study(tiny.study)).store:
        loop.run_loop(opened, until="probe")
        assert warnings(opened) == []
    assert hook.got[0]["occasion"] == "approval" and hook.got[-1]["occasion"] == "ended"
    assert "djsb review" in hook.got[0]["text"] and hook.got[0]["folder"] == str(tiny.study)
    told = [json.loads(line) for line in (tiny.study / "told.jsonl").read_text().splitlines()]
    assert told == hook.got


def test_budget_and_recipe_are_told_once_and_only_what_is_asked_for(tiny: Tiny, hook: Hook) -> None:
    said = [("budget", "80 %"), ("budget", "80 %"), ("ended", "no"), ("confirmed", "a\nrecipe")]
    assert tell(tiny, {"webhook": hook.url, "on": ["budget", "confirmed"]}, *said) == []
    assert [n["text"] for n in hook.got] == ["80 %", "a recipe"]


def test_the_budget_is_told_while_trials_run(tiny: Tiny, hook: Hook) -> None:
    tiny.set({"notify": {"webhook": hook.url, "on": ["budget"]}})
    shares: list[float] = []

    def started(scheduler: Scheduler) -> None:
        scheduler.watch = lambda now: shares.append(now.balance().spent / now.limit)

    with (opened := open_study(tiny.study)).store:
        loop.run_loop(opened, until="probe", budget="1h", started=started)
        spent = costs.total(opened.store)
        assert hook.got == [] and max(shares) < 0.8
        loop.run_loop(opened, until="probe", budget=f"{1.1 * spent:.3f}s", started=started)
    assert [n["occasion"] for n in hook.got] == ["budget"] and hook.got[0]["text"].startswith("80% of the budget")


def test_what_cannot_be_told_is_a_warning_that_names_no_address(
    tiny: Tiny, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.status = 302
    monkeypatch.setenv("THE_HOOK", hook.url)
    ended = ("ended", "x")
    lines = tell(tiny, {"webhook_from": "THE_HOOK", "command": ["/no/such/program"]}, ended)
    assert any("302" in line for line in lines) and any("/no/such/program: No such file" in line for line in lines)
    lines = tell(tiny, {"webhook_from": "NOT_SET", "command": [sys.executable, "-c", "raise SystemExit('no')"]}, ended)
    assert any("NOT_SET is not set" in line for line in lines) and any("ended with 1: no" in line for line in lines)
    lines = tell(tiny, {"webhook": "http://127.0.0.1:9/very-secret-part"}, ended)
    assert any("127.0.0.1:9 cannot be reached" in line for line in lines)
    assert not any("very-secret" in line for line in lines)


def test_one_that_hangs_holds_up_the_end_for_one_notice_only(tiny: Tiny, hook: Hook) -> None:
    hook.wait = 3.0
    began = time.monotonic()
    lines = tell(tiny, {"webhook": hook.url, "timeout": 0.2}, *[("ended", str(n)) for n in range(20)])
    assert time.monotonic() - began < 3 and any("longer than 0.2 s" in line for line in lines)


def test_a_run_that_breaks_is_told(tiny: Tiny, hook: Hook) -> None:
    tiny.set({"notify": {"webhook": hook.url}})
    with (opened := open_study(tiny.study)).store, pytest.raises(StudyError), notices(opened):
        raise StudyError("the disk is full")
    assert [(n["occasion"], n["text"]) for n in hook.got] == [("failed", "the disk is full")]
