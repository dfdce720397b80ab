"""The tabs of `djsb tui --serve`: textual-serve with our own page, and sessions that always end."""

from __future__ import annotations

import asyncio
import contextlib
import html
import io
import logging
import shlex
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

from app.text.printable import say
from engine.base.secrets import redact, secret_values

MOST = 8  # at a time: each takes two processes
PATIENCE = 2.0  # seconds that a session has to end in before it is ended
LARGEST = 1000  # columns or lines
log = logging.getLogger("textual-serve")

log.addHandler(logging.NullHandler())

log.propagate = False


class Session(AppService):
    """One tab's process. It has the keys that its engine may need; none of them is drawn in a browser."""

    async def on_data(self, payload: bytes) -> None:
        """Send a part of the screen."""
        for value in map(str.encode, secret_values()):
            payload = payload.replace(value, b"*" * len(value))
        await super().on_data(payload)

    async def run(self) -> None:
        """Pass its screen on; where it ends by itself, the tab is told."""
        await super().run()
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self.remote_close()

    async def stop(self) -> None:
        """Ask it to end, and see that it does."""
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(super().stop(), PATIENCE)
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), PATIENCE)
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


class Sessions(Server):
    """Serves the page, and a session to each tab. title: what the browser shows."""

    page = Path(__file__).with_name("page")

    def __init__(self, command: Sequence[str], title: str) -> None:
        super().__init__(shlex.join(["exec", *command]), title=title, public_url="/")
        self.running: set[Session] = set()
        self._index = string.Template((self.page / "index.html").read_text(encoding="utf-8"))

    async def handle_index(self, request: web.Request) -> web.Response:
        """Our page. The socket's address is the request's own, so that a forwarded port works, too."""
        text = self._index.substitute(
            title=html.escape(f"djsb: {self.title}"), socket=html.escape(f"ws://{request.host}/ws"),
            size=max(8, min(40, to_int(request.query.get("fontsize", "16"), 16))),
        )  # fmt: skip
        return web.Response(text=text, content_type="text/html")

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """A session, for as long as the tab is open."""
        if len(self.running) >= MOST:
            raise web.HTTPServiceUnavailable(text=f"{MOST} tabs are open already; close one\n")
        tab = web.WebSocketResponse(heartbeat=15, max_msg_size=2**20)

        async def close() -> None:
            await tab.close()

        session = Session(
            self.command, write_bytes=tab.send_bytes, write_str=tab.send_str, close=close,
            download_manager=self.download_manager,
        )  # fmt: skip
        self.running.add(session)
        try:
            await tab.prepare(request)
            await session.start(*(_cells(request, name, usual) for name, usual in (("width", 80), ("height", 24))))
            with contextlib.suppress(ValueError, AssertionError, LookupError, TypeError, AttributeError):
                await self._process_messages(tab, session)  # what is no message ends the session
        finally:
            await session.stop()
            self.running.discard(session)
            await tab.close()
        return tab

    async def end(self) -> None:
        """End all sessions."""
        await asyncio.gather(*(s.stop() for s in list(self.running)))


def _cells(request: web.Request, name: str, usual: int) -> int:
    return max(1, min(LARGEST, to_int(request.query.get(name, ""), usual)))


@contextlib.contextmanager
def errors_only() -> Iterator[None]:
    """What sessions say outside their screens, which textual-serve prints, goes to our standard error instead."""
    with contextlib.redirect_stdout(_Errors()):
        yield


class _Errors(io.TextIOBase):
    def write(self, text: str) -> int:
        """Pass it on, escaped and without keys."""
        say(redact(text.strip()), err=True)
        return len(text)
