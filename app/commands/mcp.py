"""`djsb mcp` and `djsb skill`: a study for coding agents, which may read and propose."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import socket
from importlib.metadata import version
from pathlib import Path

from app.text.printable import say
from engine.base.errors import StudyError
from engine.base.listening import listening
from engine.review.desk import opened_study
from engine.study.file import read_study

HOST, PORT = "127.0.0.1", 8322
TOKEN = "DJSB_MCP_TOKEN"  # variable of the environment
SHORTEST = 16  # characters of a token


def serve(folder: Path, http: bool, port: int | None) -> None:
    """Serve a study over standard input and output, or over HTTP on this machine, until the client or Ctrl-C ends it.

    Raises: StudyError, ListenError before it begins.
    """
    if importlib.util.find_spec("mcp") is None:
        raise StudyError("djsb mcp needs the package mcp: pip install 'djsb[mcp]'")
    read_study(folder)
    from agent.mcp_server import guarded, make_server

    server = make_server(lambda: opened_study(folder), version("djsb"))
    if not http:
        server.run("stdio")
        return
    token = os.environ.get(TOKEN) or secrets.token_urlsafe(32)
    if len(token) < SHORTEST:
        raise StudyError(f"{TOKEN} has fewer than {SHORTEST} characters; take a longer one, or none: one is made then")
    with listening(HOST, PORT if port is None else port) as at:
        name = f"{HOST}:{at.getsockname()[1]}"
        say(f"http://{name}/mcp")
        say(f"Authorization: Bearer {token if TOKEN not in os.environ else '$' + TOKEN}")
        say("Ctrl-C ends it; engines go on", err=True)
        _run(guarded(server.streamable_http_app(host=HOST), token), at)


def _run(application: object, at: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(application, log_level="error", timeout_graceful_shutdown=2)  # type: ignore[arg-type]
    ended = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        uvicorn.Server(config).run(sockets=[at])
    except KeyboardInterrupt:
        pass  # how it says that it was ended as asked
    finally:
        for number, handler in ended.items():
            signal.signal(number, handler)


def skill() -> str:
    """The skill file: what a coding agent should know of djsb, in Markdown with a heading that such agents read."""
    from agent.prompts import prompt
    from engine.proposals.kinds.registry import briefs

    return prompt("skill", kinds=briefs())
