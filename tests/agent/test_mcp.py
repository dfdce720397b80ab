"""Coding agents over the Model Context Protocol: they read, they propose, and nothing that they send decides."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.evidence.ranking import rank
from engine.journal import decisions, proposals
from engine.loop.run import run_loop
from engine.study.opened import open_study
from engine.study.view import view_study
from tests.conftest import DJSB, Tiny, run_djsb

mcp = pytest.importorskip("mcp")

READS = {"briefing", "pool", "distribution", "rows", "trials", "decisions", "literature", "proposals"}
DECIDES = re.compile("approve|reject|decide|review|hold|budget|study|edit|run|stop|start|auto|readmit|write|delete")


def stdio(tiny: Tiny) -> Any:
    environment = {k: v for k, v in os.environ.items() if k != "DJSB_MCP_TOKEN"}
    return mcp.StdioServerParameters(command=sys.executable, args=[str(DJSB), "mcp", str(tiny.study)], env=environment)


def talk(server: Any, *calls: tuple[str, dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """The server's tools, and its answers to calls."""

    async def go() -> tuple[list[Any], list[Any]]:
        async with mcp.Client(server) as client:
            tools = (await client.list_tools()).tools
            return tools, [await client.call_tool(name, content) for name, content in calls]

    return asyncio.run(asyncio.wait_for(go(), 120))


def said(answer: Any) -> str:
    return "".join(part.text for part in answer.content)


def suggestion(tiny: Tiny, **more: Any) -> dict[str, Any]:
    """An interval of a statistic that no pool has."""
    best = next(r for r in rank(view_study(tiny.study)) if r.pool.slices)
    experiment = {"kind": "bucket", "slice": {"statistic": best.pool.slices[0].statistic, "low": "p20", "high": "p80"}}
    return {"suggestion": {"experiment": experiment, "reason": "the ends hurt", "cites": [best.pool.id], **more}}


def test_a_real_client_reads_and_proposes_and_a_person_decides(probed: Tiny) -> None:
    budget = (probed.study / "study.yaml").read_bytes()
    tools, (brief, words, put) = talk(
        stdio(probed), ("briefing", {}), ("literature", {"query": "FLYT"}), ("propose", suggestion(probed))
    )
    assert {t.name for t in tools} == READS | {"propose"}
    assert not [t.name for t in tools if DECIDES.search(t.name)]
    assert all(t.annotations.read_only_hint == (t.name in READS) and t.description for t in tools)
    assert "## Leaderboard" in said(brief) and "Filter Like You Test" in said(words)
    assert "is queued: passes; a person decides with: djsb review" in said(put), said(put)
    key = said(put).split()[0]
    found = json.loads(run_djsb("proposals", probed.study, "--json").stdout)
    [mine] = [p for p in found if p["id"] == key]
    assert (mine["origin"], mine["status"], mine["reason"]) == ("agent", "queued", "the ends hurt")
    assert (probed.study / "study.yaml").read_bytes() == budget


def test_an_attack_decides_nothing(probed: Tiny) -> None:
    good = suggestion(probed)
    attacks = [
        ("approve", {"proposal": "x"}), ("review", {"id": "x", "approve": True}), ("set_budget", {"budget": "9d"}),
        ("propose", suggestion(probed, status="approved")), ("propose", suggestion(probed, origin="person")),
        ("propose", {**good, "approve": True, "who": "person"}), ("proposals", {"status": "approved' OR 1=1 --"}),
        ("pool", {"id": "../../etc/passwd"}), ("rows", {"statistic": "text_len", "bucket": "$(touch x)"}),
        ("propose", {"suggestion": {**good["suggestion"], "cites": []}}),
    ]  # fmt: skip
    before = {d.proposal for d in decisions.last(view_study(probed.study).store, 1_000, without="")}
    _, answers = talk(stdio(probed), *attacks)
    assert all(a.is_error for a in answers[:5]), [said(a) for a in answers[:5]]
    assert "cites no ids" in said(answers[-1])
    view = view_study(probed.study)
    assert {d.proposal for d in decisions.last(view.store, 1_000, without="")} == before
    statuses = {p.status for p in proposals.of_setup(view.store, view.setup) if p.origin == "agent"}
    assert statuses <= {"queued", "refused"}


def test_no_policy_approves_what_an_agent_proposed(probed: Tiny) -> None:
    probed.set({"guard": {"approve": "auto", "paper_agrees": False}})
    _, [put] = talk(stdio(probed), ("propose", suggestion(probed)))
    assert "is queued" in said(put)
    with (opened := open_study(probed.study)).store:
        ended = run_loop(opened, until="probe", approve="auto")
        assert ended.awaiting == 1
        [mine] = [p for p in proposals.of_setup(opened.store, opened.setup) if p.origin == "agent"]
        assert mine.status == "queued"


def test_over_http_a_token_is_asked_for_and_other_hosts_are_refused(probed: Tiny) -> None:
    import httpx

    command = [sys.executable, str(DJSB), "mcp", str(probed.study), "--http", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url, header = server.stdout.readline().strip(), server.stdout.readline().strip()
            token = header.removeprefix("Authorization: Bearer ")
            hello = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
            accept = {"Accept": "application/json, text/event-stream"}
            assert httpx.post(url, json=hello, headers=accept).status_code == 401
            wrong = {**accept, "Authorization": f"Bearer {token[:-1]}x"}
            assert httpx.post(url, json=hello, headers=wrong).status_code == 401
            elsewhere = {**accept, "Authorization": f"Bearer {token}", "Host": "evil.example"}
            assert httpx.post(url, json=hello, headers=elsewhere).status_code in (403, 421)
            assert tools_over_http(url, token) == READS | {"propose"}
        finally:
            server.terminate()
            assert server.wait(20) in (0, 130)


def tools_over_http(url: str, token: str) -> set[str]:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    async def go() -> set[str]:
        http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"})
        async with mcp.Client(streamable_http_client(url, http_client=http)) as client:
            return {t.name for t in (await client.list_tools()).tools}

    return asyncio.run(asyncio.wait_for(go(), 60))


def test_the_skill_file_tells_what_is_left_to_a_person(tmp_path: Path) -> None:
    text = run_djsb("skill").stdout
    assert text.startswith("---\nname: djsb\ndescription: ")
    assert "A person decides" in text and "combine" in text and "$" not in text
    run_djsb("skill", "--out", tmp_path / "SKILL.md")
    assert (tmp_path / "SKILL.md").read_text() == text
