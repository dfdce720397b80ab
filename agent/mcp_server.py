"""What coding agents may do over the Model Context Protocol: read a study, and propose. Nothing here decides.

The tools are the language model's own (`agent/tools.py`), its briefing, the list of proposals, and one that puts a
proposal to the gate. Such a proposal has the origin `agent` and waits for a person, whatever the guard-rails say.
"""

from __future__ import annotations

import functools
import inspect
import secrets
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from agent.briefing import write_briefing
from agent.literature import all_papers
from agent.prompts import prompt
from agent.tools import Tools, safely
from engine.base.ids import json_text
from engine.base.secrets import redact
from engine.journal import proposals
from engine.proposals.kinds.registry import briefs
from engine.proposals.queue import proposal_rows
from engine.proposals.suggest import suggest
from engine.records.experiment import Suggestion
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy

if TYPE_CHECKING:
    from mcp.server import MCPServer

READS = ("pool", "distribution", "rows", "trials", "decisions", "literature")  # of `Tools`
SHOWN = 40  # proposals, the last ones
Opened = Callable[[], tuple[OpenStudy, Accounts]]
Application = Callable[[Any, Any, Any], Awaitable[None]]  # ASGI


def make_server(opened: Opened, version: str) -> MCPServer:
    """A server of one study. opened: opens it, anew for each call, so that what has run meanwhile is there.

    Raises: ModuleNotFoundError without the package mcp.
    """
    from mcp.server import MCPServer
    from mcp.types import ToolAnnotations

    desk = Desk(opened)
    server = MCPServer("djsb", version=version, instructions=prompt("mcp", kinds=briefs()), log_level="ERROR")
    looks = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    for tool in [desk.briefing, *desk.reads(), desk.proposals]:
        server.add_tool(safely(tool), annotations=looks, structured_output=False)
    writes = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
    server.add_tool(safely(desk.propose), annotations=writes, structured_output=False)
    return server


class Desk:
    """The tools of one study. One call at a time, as each reads the statistics."""

    def __init__(self, opened: Opened) -> None:
        self._opened, self._lock = opened, threading.Lock()

    def reads(self) -> list[Callable[..., str]]:
        """The tools that the study's own language model has."""
        return [self._read(name) for name in READS]

    def _read(self, name: str) -> Callable[..., str]:
        method = getattr(Tools, name)

        def look(*args: Any, **kwargs: Any) -> str:
            return self._with(lambda opened, _accounts: str(method(Tools(opened), *args, **kwargs)))

        functools.update_wrapper(look, method)
        signature = inspect.signature(method)
        look.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
        return look

    def briefing(self) -> str:
        """The study as it stands: answer, budget, leaderboard, statistics, correlations, what was proposed before.

        Read it first. What the confirmation on fresh seeds came to is not in it.
        """
        return self._with(lambda opened, accounts: write_briefing(opened, accounts.limit))

    def proposals(self, status: str = "") -> str:
        """Proposals with id, origin, kind, status, cost in device-seconds and reason, the last ones first.

        status: queued, held, approved, rejected, edited, refused, superseded; left out: all.
        """

        def listed(opened: OpenStudy, _accounts: Accounts) -> str:
            found = proposals.of_setup(opened.store, opened.setup, (status,) if status else None)
            ids = [p.id for p in found if p.stage != "confirm"][-SHOWN:]
            return json_text(list(reversed(proposal_rows(opened, ids))), ensure_ascii=False, default=str)

        return self._with(listed)

    def propose(self, suggestion: Suggestion) -> str:
        """Put an experiment to the gate. What passes waits for a person, who alone can approve it; nothing runs before.

        Cite the ids of the pools that it follows from. The answer says whether it passed, and why not.
        """

        def put(opened: OpenStudy, accounts: Accounts) -> str:
            works = {w["id"] for w in all_papers()}
            asked = suggestion.model_copy(update={"papers": tuple(p for p in suggestion.papers if p in works)})
            key, status, reason = suggest(opened, asked, "agent", accounts)
            waits = f"; a person decides with: djsb review {key}" if status == "queued" else ""
            return f"{key} is {status}: {reason}{waits}"

        return self._with(put)

    def _with(self, do: Callable[[OpenStudy, Accounts], str]) -> str:
        with self._lock:
            opened, accounts = self._opened()
            with opened.store:
                return redact(do(opened, accounts))


def guarded(application: Application, token: str) -> Application:
    """The application for those alone who send the token as a bearer's. Over HTTP only; hosts are checked by mcp."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            sent = dict(scope["headers"]).get(b"authorization", b"")
            if not secrets.compare_digest(sent, b"Bearer " + token.encode()):
                headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                await send({"type": "http.response.body", "body": b"send the token that djsb mcp has printed\n"})
                return
        await application(scope, receive, send)

    return answer
