"""`djsb tui --serve`: the same UI in a browser. Each tab is a session, a process of its own, by textual-serve.

textual-serve asks nobody who they are. Here every request must carry the token of the URL, name this machine as its
host, and, where it opens a session, come from our own page (app/tui/web/guard.py). Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import signal
import socket
import sys
from pathlib import Path

from engine.base.errors import DjsbError, StudyError
from engine.base.listening import listening
from engine.base.paths import ENTRY, holds_studies
from engine.study.view import view_study

HOST, PORT = "127.0.0.1", 8321
PATIENCE = 2.0  # seconds that connections have to end in


class ServeError(DjsbError):
    """The UI cannot be served as asked."""


def serve_tui(
    folder: Path, bell: bool, replay: Path | None, host: str | None, port: int | None, allow_remote: bool
) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises first: StudyError, StoreError, ServeError, ListenError, RecordingError."""
    if any(importlib.util.find_spec(m) is None for m in ("textual", "textual_plot", "textual_serve")):
        raise StudyError("--serve needs textual, textual-plot and textual-serve: pip install 'djsb[tui]'")
    if replay:
        from app.tui.recording.file import Recording

        Recording(replay)
    else:
        if not holds_studies(folder):
            view_study(folder).store.close()
    options = [*(["--bell"] if bell else []), *(["--replay", str(replay.resolve())] if replay else [])]
    command = [sys.executable, str(ENTRY), "tui", str(folder.resolve()), *options]
    with _at(host or HOST, PORT if port is None else port, allow_remote) as at:
        asyncio.run(_serve(command, replay.name if replay else folder.resolve().name, at))


def _at(host: str, port: int, allow_remote: bool) -> socket.socket:
    """A socket that listens at the address. Raises: ServeError, ListenError."""
    found = listening(host, port)
    if not ipaddress.ip_address(str(found.getsockname()[0]).partition("%")[0]).is_loopback:
        if not allow_remote:
            found.close()
            raise ServeError(
                f"--host {host} can be reached by other machines, and whoever has the URL may decide and start "
                "engines; add --allow-remote if you mean it, or forward the port by ssh"
            )
        warning = f"warning: {host} is served by plain HTTP; everybody who has or overhears the URL can decide\n"
        sys.stderr.write(warning)
    return found


async def _serve(command: list[str], title: str, at: socket.socket) -> None:
    from aiohttp import web

    from app.text.printable import say
    from app.tui.web.guard import Guard
    from app.tui.web.sessions import Sessions, errors_only

    guard = Guard.at(at)
    sessions = Sessions(command, title)
    application = web.Application(middlewares=[guard.middleware])
    application.add_routes([
        web.get("/", sessions.handle_index),
        web.get("/ws", sessions.handle_websocket),
        web.static("/page", sessions.page),
        web.get("/download/{key}", sessions.handle_download),
        web.static("/static", sessions.statics_path),
    ])  # fmt: skip
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=PATIENCE)
    await runner.setup()
    await web.SockSite(runner, at).start()
    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    say(guard.url)
    say("Ctrl-C ends it; engines go on", err=True)
    sys.stdout.flush()
    try:
        with errors_only():
            await end.wait()
    finally:
        await sessions.end()
        await runner.cleanup()
