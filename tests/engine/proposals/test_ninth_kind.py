"""A kind of experiment is one file: a ninth one works in the gate, the queue, the loop, the form and the docs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from textual.app import App
from textual.widgets import Select

from agent.proposer import Proposals
from app.tui.proposal.fields import Field
from app.tui.proposal.form import ProposalForm
from app.tui.reading.form_answers import choices, tried
from engine.evidence.ranking import rank
from engine.journal import proposals, trials
from engine.loop.run import run_loop
from engine.proposals import kinds
from engine.proposals.kinds import registry
from engine.proposals.kinds.contract import Kind
from engine.proposals.kinds.registry import KINDS
from engine.proposals.suggest import suggest
from engine.records import experiment
from engine.records.experiment import Suggestion
from engine.records.trial import TrialState
from engine.review.decisions import decide
from engine.review.objection import objection
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Tiny

ROOT = Path(__file__).resolve().parents[3]
NINTH = '''
"""Kind `half`: half the rows of a pool, for as long as the whole pool trains."""

from dataclasses import replace
from typing import Literal

from engine.journal import pools
from engine.proposals.arms import control, kind_of, request
from engine.proposals.kinds.contract import Draft, FormField, Kind, Refused
from engine.records.experiment import Experiment, Id


class Half(Experiment):
    """Half the rows of a pool."""

    kind: Literal["half"]
    pool: Id
    from_: Literal["start", "anywhere"] = "anywhere"


def draft_half(opened, half):
    stored = pools.get(opened.store, half.pool)
    if stored is None:
        raise Refused(f"pool {half.pool} is not here")
    pool = replace(stored.pool, size=stored.pool.size // 2)
    return Draft("probe", [
        request(opened, control(opened, pool.size), "control", "control", 1),
        request(opened, pool, f"half of {stored.label}", kind_of(pool), 1),
    ], (0,))


def objection(opened, proposal, procedure):
    return None if proposal.tried[0].size > 1 else "nothing is left"


HALF = Kind(
    Half, draft_half,
    fields=(FormField("pool", "pool"), FormField("from_", ("start", "anywhere"))),
    takes="`pool`", doc="half of its rows", brief="half the rows of a pool.", empty={"from_": "start"}, always=True,
    objection=objection,
)
'''


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """The ninth kind, in one file that nothing else names."""
    (tmp_path / "half.py").write_text(NINTH)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    monkeypatch.setattr(experiment, "SCHEMAS", dict(experiment.SCHEMAS))
    try:
        kind = registry.read_kinds()["half"]
    finally:
        sys.modules.pop("engine.proposals.kinds.half")
    monkeypatch.setitem(KINDS, "half", kind)
    return kind


def content(opened: OpenStudy) -> dict[str, object]:
    best = rank(opened)[0].pool.id
    return {"experiment": {"kind": "half", "pool": best}, "reason": "is less enough?", "evidence": [best]}


@pytest.mark.usefixtures("half")
def test_it_passes_the_gate_waits_is_decided_on_and_runs(probed: Tiny) -> None:
    with (opened := open_study(probed.study, 1)).store as store:
        assert tried(opened, content(opened)).items() >= {"problem": "", "trials": 2}.items()
        suggestion = Suggestion.model_validate(content(opened))
        key, status, reason = suggest(opened, suggestion, "model", Accounts(opened, 3600.0))
        assert status == "queued", reason
        stored = proposals.by_ids(store, [key])[0]
        assert stored.kind == "half" and stored.proposal.suggestion == suggestion
        assert objection(opened, stored.proposal) is None
        unknown = {**content(opened), "experiment": {"kind": "half", "pool": "0" * 12}}
        refused = suggest(opened, Suggestion.model_validate(unknown), "person", Accounts(opened, 3600.0))
        assert refused[1:] == ("refused", "pool 000000000000 is not here")
        decide(opened, key, "approve", "a person", "why not")
        assert run_loop(opened, until="probe", workers=1).how == "done"
        states: set[TrialState] = {t.state for t in trials.of_proposal(store, key)}
        assert states == {"COMPLETE"}
        assert any(r.label.startswith("half of") for r in rank(opened))


@pytest.mark.usefixtures("half")
async def test_the_form_has_its_fields(opened: OpenStudy) -> None:
    form = ProposalForm("New", {"experiment": {"kind": "half"}})
    app: App[None] = App()
    async with app.run_test(size=(110, 36)) as pilot:
        await app.push_screen(form)
        form.answered(-1, choices(opened))  # as the process that reads the study answers
        await pilot.pause()
        await app.workers.wait_for_complete()
        assert [f.path for f in form.query(Field)][:2] == ["experiment.pool", "experiment.from_"]
        assert "half" in {str(value) for _, value in form.query_one("#kind", Select)._options}
        best = rank(opened)[0].pool.id
        form.query_one("#pool", Select).value = best
        form.query_one("#reason").value = "is less enough?"  # type: ignore[attr-defined]
        await pilot.pause()
        expected = {"kind": "half", "pool": best, "from_": "start"}
        assert form.suggestion() == {"experiment": expected, "reason": "is less enough?"}


@pytest.mark.usefixtures("half")
def test_a_model_and_the_docs_are_told_of_it() -> None:
    assert "Half" in Proposals.model_json_schema()["$defs"]
    assert "- half: half the rows of a pool." in registry.brief()
    assert "| `half` | `pool` | half of its rows |" in registry.table()


def test_the_docs_have_every_kind() -> None:
    assert len(KINDS) == 8
    rows = registry.table().splitlines()
    text = (ROOT / "docs" / "guides" / "agent.md").read_text(encoding="utf-8").splitlines()
    assert sorted(rows) == sorted(line for line in text if line in rows)
