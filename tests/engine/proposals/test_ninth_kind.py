"""A kind of experiment is one file: a ninth one works at the gate, in the queue, the form, the docs, for the model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.app import App

from agent.proposer import Proposals
from app.tui.proposal.fields import empty, fields, problems
from app.tui.reading.form_answers import choices, tried
from engine.journal import proposals, trials
from engine.loop.run import run_loop
from engine.proposals import kinds
from engine.proposals.kinds.registry import KINDS, briefs, declared, read_suggestion, runnable
from engine.proposals.suggest import suggest
from engine.records.experiment import SCHEMAS
from engine.review.decisions import decide
from engine.review.guard import apply_guard
from engine.runner.accounts import Accounts
from engine.settings.running import GuardSection
from engine.study.opened import OpenStudy

NINTH = '''
from typing import Literal

from pydantic import Field

from engine.proposals.arms import control, request
from engine.proposals.kinds.contract import Drafted, FormField, Kind
from engine.records.experiment import Experiment


class Smaller(Experiment):
    """The control at a smaller size."""

    place = 90
    kind: Literal["smaller"]
    rows: int = Field(strict=True, ge=2)


class SmallerKind(Kind[Smaller]):
    schema = Smaller
    form = (FormField("rows", "number", "rows of the control"),)
    fields = "`rows`"
    asks = "the control of so many rows"
    brief = "the control of fewer rows."

    def draft(self, opened, experiment):
        pool = control(opened, experiment.rows)
        return Drafted("probe", [request(opened, pool, f"{experiment.rows} rows", "single")], (0,))

    def objection(self, opened, proposal):
        return "the paper never trains on less"


KINDS = (SmallerKind(),)
'''


@pytest.fixture
def ninth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more file in the folder of kinds."""
    (tmp_path / "smaller.py").write_text(NINTH)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    before = dict(SCHEMAS)
    monkeypatch.setitem(KINDS, "smaller", declared()["smaller"])
    yield
    SCHEMAS.clear()
    SCHEMAS.update(before)
    sys.modules.pop(f"{kinds.__name__}.smaller")


ASKED: dict[str, Any] = {"experiment": {"kind": "smaller", "rows": 20}, "reason": "to see"}


def test_it_is_drafted_gated_queued_approved_and_run(ninth: None, opened: OpenStudy) -> None:
    assert "smaller" in runnable(opened.task)
    accounts = Accounts(opened, 3600.0)
    key, status, reason = suggest(opened, read_suggestion(ASKED), "person", accounts)
    assert status == "queued", reason
    decide(opened, key, "approve", "person a", "yes")
    (stored,) = proposals.by_ids(opened.store, [key])
    assert (stored.kind, stored.status) == ("smaller", "approved")
    assert run_loop(opened, until="probe", workers=1).how == "done"
    assert [(t.label, t.state) for t in trials.of_proposal(opened.store, key)] == [("20 rows", "COMPLETE")]
    again = suggest(opened, read_suggestion(ASKED), "person", accounts)
    assert again[1] == "refused" and "was asked for before" in again[2]
    too_many = {**ASKED, "experiment": {"kind": "smaller", "rows": 10**6}}
    _, status, reason = suggest(opened, read_suggestion(too_many), "person", accounts)
    assert status == "refused" and "keep" in reason


def test_the_guard_asks_its_objection(ninth: None, opened: OpenStudy) -> None:
    guard = GuardSection.model_validate({"approve": "auto", "kinds": ["smaller"]})
    opened.study = opened.study.model_copy(update={"guard": guard})
    cited = next(iter(trials.of_setup(opened.store, opened.setup))).pool
    key, status, reason = suggest(
        opened, read_suggestion({**ASKED, "cites": [cited]}), "model", Accounts(opened, 3600.0)
    )
    assert status == "queued", reason
    assert apply_guard(opened, False) == []
    (event,) = opened.store.query("SELECT text FROM events WHERE kind = 'guard' AND subject = ?", (key,))
    assert "the paper never trains on less" in event["text"]


async def test_the_form_has_its_fields(ninth: None, opened: OpenStudy) -> None:
    offered = choices(opened)
    assert "smaller" in offered["kinds"]
    content = {**ASKED, "experiment": empty(offered["forms"]["smaller"])}
    async with App[None]().run_test():
        paths = [getattr(widget, "path", None) for widget in fields(content, offered, {})]
    assert paths == ["experiment.rows", "reason", "expected", "cites"]
    assert problems(content) == {"experiment.rows": "is needed"}
    assert problems(ASKED) == {}
    assert tried(opened, ASKED)["pools"] == ["20 rows"]


def test_the_language_model_is_told_its_schema(ninth: None) -> None:
    schema = Proposals.model_json_schema()
    assert schema["$defs"]["Smaller"]["description"] == "The control at a smaller size."
    assert "- smaller: the control of fewer rows." in briefs().splitlines()
    assert "smaller" in schema["$defs"]["Suggestion"]["properties"]["experiment"]["discriminator"]["mapping"]


def test_without_its_file_it_is_no_kind(opened: OpenStudy) -> None:
    assert list(KINDS) == ["combine", "bucket", "mixture", "repeat", "seeds", "mapper", "prompt", "transfer", "cycle"]
    assert "does not match any of the expected tags" in problems(ASKED)["experiment"]


def test_the_table_of_the_guide_is_that_of_the_kinds() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "guides" / "agent.md").read_text(encoding="utf-8")
    rows = [line for line in guide.splitlines() if line.startswith("| `") and line.split("`")[1] in KINDS]
    assert rows == [f"| `{name}` | {kind.fields} | {kind.asks} |" for name, kind in KINDS.items()]
