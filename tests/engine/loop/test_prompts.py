"""Prompts asked of a kept checkpoint: through the gate, without training, each once, in Table 16's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.loop import run as loop
from engine.loop.prompts import run_prompts
from engine.proposals.kinds import prompt as prompting
from engine.proposals.suggest import suggest
from engine.records.experiment import Suggestion
from engine.review import decisions
from engine.runner.accounts import Accounts
from engine.runner.scheduler import scheduler
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Tiny, make_tiny, run_djsb
from tests.engine.tasks.vlm.test_task import CAPTION

STUDY: dict[str, Any] = {
    **CAPTION,
    "ops": {"text_length_filter": {}},
    "pools": {"buckets": 2},
    "train": {**CAPTION["train"], "epochs": 1},
}


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A caption study whose probe is done and whose best checkpoint is kept."""
    made = make_tiny(tmp_path_factory.mktemp("captioned"), 96, 12)
    made.set(STUDY)
    with (opened := open_study(made.study, 1)).store:
        assert loop.run_loop(opened, until="probe", workers=1).how == "done"
    return made


def asked(opened: OpenStudy, *prompts: str) -> tuple[str, str, str]:
    suggestion = {"experiment": {"kind": "prompt", "prompts": list(prompts)}, "reason": "other words"}
    return suggest(opened, Suggestion.model_validate(suggestion), "person", Accounts(opened, 3600.0))


def calls(opened: OpenStudy) -> int:
    row = opened.store.one("SELECT count(*) AS n FROM costs WHERE kind = 'prompt'")
    return int(row["n"]) if row else 0


def test_prompts_are_asked_once_of_the_checkpoint_and_change_its_scores(captioned: Tiny) -> None:
    with (opened := open_study(captioned.study, 1)).store:
        trials = opened.store.one("SELECT count(*) AS n FROM trials")
        key, status, reason = asked(opened, "which colour?", "say what you see")
        assert status == "queued", reason
        decisions.decide(opened, key, "approve", "person test", "to see")
        with scheduler(opened, 3600.0, 1) as at_work:
            assert run_prompts(opened, at_work) == "done" and calls(opened) == 3
            assert run_prompts(opened, at_work) == "done" and calls(opened) == 3  # nothing is asked twice
        found = prompting.table(opened)
        assert found is not None
        (column,) = found.columns
        own, *others = found.rows
        assert own.own and {r.prompt for r in others} == {"which colour?", "say what you see"}
        measured = {
            r["name"]: r["value"]
            for r in opened.store.query("SELECT name, value FROM metrics WHERE trial = ?", (column.trial,))
        }
        assert own.cells[0].scores == pytest.approx(measured, rel=1e-4)  # as when it was trained
        assert all(r.cells[0].scores != own.cells[0].scores for r in others)
        assert all(r.cells[0].change is not None for r in found.rows)
        assert opened.store.one("SELECT count(*) AS n FROM trials") == trials  # nothing was trained
        assert asked(opened, "which colour?")[1:] == (
            "refused", "a repetition: all of these prompts were asked before; djsb show prompts has them",
        )  # fmt: skip
    shown = run_djsb("show", "prompts", captioned.study)
    assert shown.returncode == 0 and "which colour?" in shown.stdout and "study's own" in shown.stdout
    out = captioned.root / "report"
    assert run_djsb("report", captioned.study, "--out", out).returncode == 0
    assert 'id="prompts"' in (out / "report.html").read_text()


def test_without_a_kept_checkpoint_prompts_are_refused(captioned: Tiny, tmp_path: Path) -> None:
    made = make_tiny(tmp_path, 96, 12)
    made.set({**STUDY, "train": {**STUDY["train"], "keep_checkpoints": 0}})
    assert run_djsb("pools", made.study).returncode == 0
    with (opened := open_study(made.study, 1)).store:
        _, status, reason = asked(opened, "which colour?")
    assert status == "refused" and "keep_checkpoints" in reason


def test_a_task_without_captions_asks_no_prompts(opened: OpenStudy) -> None:
    _, status, reason = asked(opened, "which colour?")
    assert status == "refused" and "runs no prompt" in reason
