"""`djsb tui --serve`: a real server process, asked by a real HTTP and WebSocket client. Who may, and what ends when."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import psutil
import pytest

from app.tui.web.guard import Guard
from engine.study.lock import engine_pid
from tests.app.tui.driving import wait
from tests.conftest import DJSB, Tiny, run_djsb, the_error

pytestmark = pytest.mark.flaky(reruns=2)  # real processes on a busy machine

KEY = "sk-not-for-any-browser-0123456789"


@dataclass
class Served:
    """A running `djsb tui --serve`."""

    process: subprocess.Popen[str]
    url: str

    @property
    def base(self) -> str:
        return self.url.partition("/?")[0]

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.url).query)["token"][0]

    def family(self) -> list[psutil.Process]:
        """The server's sessions and their readers."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def serving(study: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Served]:
    process = subprocess.Popen(
        [str(DJSB), "tui", str(study), "--serve", "--port", "0", *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stderr is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), process.stderr.read()
        yield Served(process, url)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        print(said)  # seen when a test fails: what its sessions said


@pytest.fixture(scope="module")
def served(stopped_template: Tiny) -> Iterator[Served]:
    """A server that the tests of this file share."""
    with serving(stopped_template.study, env={"SOME_API_KEY": KEY}) as found:
        yield found


@contextmanager
def ends_with_test(processes: list[psutil.Process]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            if process.is_running():
                process.kill()


async def status(url: str, **headers: str) -> int:
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers, allow_redirects=False) as answer:
        return answer.status


def opened(served: Served, client: aiohttp.ClientSession, **headers: str) -> Any:
    """Open a session as the page does, with the token as a cookie."""
    cookie = f"djsb-{urlsplit(served.base).port}={served.token}"
    given = {"Cookie": cookie, "Origin": served.base, **headers}
    return client.ws_connect(f"{served.base}/ws?width=120&height=40", headers={k: v for k, v in given.items() if v})


async def read_until(tab: aiohttp.ClientWebSocketResponse, part: str) -> str:
    """What the terminal is sent until it has shown a text, without escape sequences."""
    raw = b""
    while part not in (text := re.sub(r"\x1b\[[0-9;?<>=]*[A-Za-z]", "", raw.decode(errors="replace"))):
        message = await asyncio.wait_for(tab.receive(), 60)
        assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
        if message.type is aiohttp.WSMsgType.BINARY:
            raw += message.data
    return text


PATHS = ("/", "/ws", "/static/js/textual.js", "/page/page.css", "/download/x", "/nothing")


async def test_nothing_is_answered_without_the_token(served: Served) -> None:
    for path in PATHS:
        assert await status(served.base + path, Origin=served.base) == 401, path
        assert await status(f"{served.base}{path}?token={served.token[:-1]}x", Origin=served.base) == 401, path
        assert await status(f"{served.base}{path}?token=", Origin=served.base) == 401, path
    cookie = f"djsb-{urlsplit(served.base).port}=wrong"
    assert await status(served.base + "/", Cookie=cookie) == 401
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await opened(served, client, Cookie="")
        assert refused.value.status == 401
    assert not served.family(), "no session was begun"


async def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_has(served: Served) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        async with client.get(served.url) as answer:
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
            assert 'content="0;url=/"' in await answer.text()
        async with client.get(served.base + "/") as answer:
            page = await answer.text()
            assert answer.status == 200
            policy = answer.headers["Content-Security-Policy"]
        for path in re.findall(r'(?:src|href)="(/[^"]+)"', page):
            async with client.get(served.base + path) as answer:
                assert answer.status == 200, path
                assert "http" not in re.sub(r"/\*.*?\*/", "", await answer.text(), flags=re.S) or path.endswith(".js")
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert not re.search(r"https?://", page), "nothing comes from elsewhere"
    assert served.token not in page and KEY not in page


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil@127.0.0.1", "", "[::1"])
async def test_another_name_for_this_machine_is_refused(served: Served, host: str) -> None:
    assert await status(served.url, Host=host) == 403


async def test_another_sites_page_opens_no_session(served: Served) -> None:
    async with aiohttp.ClientSession() as client:
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1", ""):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await opened(served, client, Origin=origin)
            assert refused.value.status == 403, origin
    assert not served.family()


async def test_a_forwarded_port_works(served: Served) -> None:
    assert await status(served.url, Host="localhost:9999") == 200


async def test_a_tab_is_a_session_that_ends_with_it(served: Served) -> None:
    async with aiohttp.ClientSession() as client:
        async with opened(served, client) as tab:
            await read_until(tab, "Overview")
            assert len(served.family()) == 2, "the UI and its reader"
            await tab.send_str(json.dumps(["stdin", "7"]))
            await read_until(tab, "what happened")
            await tab.send_str(json.dumps(["resize", {"width": 80, "height": 24}]))
            await tab.send_str(json.dumps(["stdin", "5"]))
            await read_until(tab, "filter: words")
            await tab.send_str("no message at all")
            while (await asyncio.wait_for(tab.receive(), 30)).type is aiohttp.WSMsgType.BINARY:
                pass
        wait(lambda: not served.family())
        async with opened(served, client) as tab:
            await read_until(tab, "Overview")
        wait(lambda: not served.family())
    assert served.process.poll() is None


async def test_q_ends_the_session_and_the_tab_is_told(served: Served) -> None:
    async with aiohttp.ClientSession() as client, opened(served, client) as tab:
        await read_until(tab, "Overview")
        await tab.send_str(json.dumps(["stdin", "q"]))
        while (message := await asyncio.wait_for(tab.receive(), 30)).type is aiohttp.WSMsgType.BINARY:
            pass
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)
    wait(lambda: not served.family())


async def test_no_key_is_drawn_and_ctrl_c_leaves_no_process_but_the_engine(stopped: Tiny) -> None:
    engine: psutil.Process | None = None
    with closing(sqlite3.connect(stopped.database)) as db, db:  # past the store's own care
        db.execute("INSERT INTO events(level, kind, text, at) VALUES ('info', 'leak', ?, '2026')", (f"x {KEY} y",))
    try:
        with serving(stopped.study, env={"SOME_API_KEY": KEY}) as server:
            async with aiohttp.ClientSession() as client, opened(server, client) as tab:
                await read_until(tab, "Overview")
                await tab.send_str(json.dumps(["stdin", "7"]))
                text = await read_until(tab, f"x {'*' * len(KEY)} y")
                assert KEY not in text
                await tab.send_str(json.dumps(["stdin", "1s"]))
                family = server.family()
                pid = wait(lambda: engine_pid(stopped.study / ".djsb"))
                engine = psutil.Process(pid)
                assert family
                server.process.send_signal(signal.SIGINT)
                wait(lambda: server.process.poll() is not None, 30)
            assert server.process.returncode == 0
            assert not any(p.is_running() and p.status() != "zombie" for p in family)
            assert engine.is_running()
    finally:
        if engine is not None:
            engine.terminate()
            engine.wait(60)


async def test_sessions_end_with_a_server_that_was_killed(stopped_template: Tiny) -> None:
    with serving(stopped_template.study) as server:
        async with aiohttp.ClientSession() as client, opened(server, client) as tab:
            await read_until(tab, "Overview")
            family = server.family()
            with ends_with_test(family):
                server.process.kill()
                server.process.wait()
                wait(lambda: not any(p.is_running() and p.status() != "zombie" for p in family), 30)


def test_other_addresses_need_to_be_allowed(stopped_template: Tiny) -> None:
    study = stopped_template.study
    for host in ("0.0.0.0", "::"):
        assert "--allow-remote" in the_error(run_djsb("tui", study, "--serve", "--port", "0", "--host", host))
    assert "no such address" in the_error(run_djsb("tui", study, "--serve", "--host", "no.such.host.invalid"))
    assert run_djsb("tui", study, "--port", "1").returncode == 2


def test_an_allowed_address_is_served_with_a_warning(stopped_template: Tiny) -> None:
    with serving(stopped_template.study, "--host", "0.0.0.0", "--allow-remote") as server:
        assert asyncio.run(status(server.url)) == 200
        assert asyncio.run(status(server.base)) == 401
        assert asyncio.run(status(server.url, Host="evil.example")) == 403
        server.process.send_signal(signal.SIGINT)
        _, err = server.process.communicate(timeout=30)
    assert "plain HTTP" in err


def test_a_port_that_is_taken_is_said(stopped_template: Tiny) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert port in the_error(run_djsb("tui", stopped_template.study, "--serve", "--port", port))


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {Guard("127.0.0.1", 1).token for _ in range(100)}
    assert len(tokens) == 100 and all(len(t) >= 40 for t in tokens)
    assert "token" not in repr(Guard("127.0.0.1", 1)), "no log has it"


def test_the_command_line_does_not_load_the_server() -> None:
    code = "import app.cli.main, sys; assert not {'aiohttp', 'textual', 'textual_serve'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[4])
