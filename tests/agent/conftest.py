"""A language model for the probed study: a scripted server on loopback."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from agent.proposer import ModelProposer
from engine.evidence.ranking import rank
from engine.study.opened import OpenStudy, open_study

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that must appear nowhere, and no pauses between retries but in the test that measures them."""
    import openai._base_client as client

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(client, "MAX_RETRY_DELAY", 0.02)


def proposer(opened: OpenStudy, url: str, monkeypatch: pytest.MonkeyPatch, **change: Any) -> ModelProposer:
    """The study's language model at a server."""
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    return ModelProposer(opened.study.agent.model_copy(update=change), 3600.0)


def best(opened: OpenStudy, place: int = 0) -> str:
    """The id of the pool at a place of the leaderboard."""
    return rank(opened)[place].pool.id


def suggestion(opened: OpenStudy, **experiment: Any) -> dict[str, Any]:
    """A suggestion that passes the gate, unless its experiment is another."""
    wanted = experiment or {
        "kind": "combine",
        "slices": [{"statistic": "text_len", "bucket": "low"}, {"statistic": "num_words", "low": 1, "high": 14}],
    }
    return {"experiment": wanted, "reason": "short captions do well", "cites": [best(opened)], "expected": 3.0}


def runnable(opened: OpenStudy) -> list[tuple[Any, ...]]:
    """All that could run or was decided: proposals that are not refused, decisions, trials."""
    tables = (
        "SELECT id, status FROM proposals WHERE status != 'refused' ORDER BY id",
        "SELECT id, proposal, verdict FROM decisions ORDER BY id",
        "SELECT id, state FROM trials ORDER BY id",
        "SELECT id FROM pools ORDER BY id",
    )
    return [tuple(row.values()) for sql in tables for row in opened.store.query(sql)]


@pytest.fixture(scope="module")
def victim(probed_template: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One copy of the study for all replies: what one of them leaves behind may not help the next."""
    root = tmp_path_factory.mktemp("victim") / "study"
    shutil.copytree(probed_template.root, root)
    (root / "study" / "link").symlink_to("/etc")
    with (opened := open_study(root / "study", 1)).store:
        yield opened
