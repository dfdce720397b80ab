"""The proposals screen: a form to write and edit, a comparison with the best recipe, decisions on one or on several."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
import yaml
from textual.pilot import Pilot
from textual.widgets import Button, Input, Select, TabbedContent, TextArea

from app.commands.propose import propose
from app.tui.app import DjsbApp
from app.tui.proposal.fields import Field, SliceField, _written, problems
from app.tui.proposal.form import ProposalForm, fits
from app.tui.proposal.text import bounds, difference
from app.tui.screens.proposals import Proposals, problem_with_edit
from app.tui.widgets.dialogs import AskLine, EditText
from engine.journal.store import Store
from engine.review.decisions import decide
from engine.review.desk import suggest
from engine.study.view import view_study
from tests.app.tui.driving import cells, query, shown, told, until, words
from tests.conftest import Tiny

SIZE = (80, 24)


def bucket(low: int, high: int, reason: str = "the middle of the captions") -> dict[str, Any]:
    part = {"statistic": "text_len", "low": low, "high": high}
    return {"experiment": {"kind": "bucket", "slice": part}, "reason": reason}


def queued(probed: Tiny, n: int = 1) -> list[str]:
    """Proposals of a person that wait; their ids."""
    for i in range(n):
        suggest(probed.study, bucket(10 + i, 140 + i))
    return [r[0] for r in query(probed.study, "SELECT id FROM proposals WHERE origin = 'person' ORDER BY at, id")]


def status(probed: Tiny) -> dict[str, str]:
    return dict(query(probed.study, "SELECT id, status FROM proposals WHERE origin = 'person'"))  # type: ignore[arg-type]


async def opened(pilot: Pilot[Any], app: DjsbApp) -> Proposals:
    await shown(pilot, app)
    await pilot.press("4")
    await until(
        pilot, lambda: isinstance(app.screen, Proposals) and app.screen.query_one("#queue").row_count, "a queue"
    )  # type: ignore[attr-defined]
    assert isinstance(app.screen, Proposals)
    return app.screen


async def form(pilot: Pilot[Any], app: DjsbApp, key: str) -> ProposalForm:
    """Open the form and wait for its fields."""
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, ProposalForm) and app.screen.query("#cites"), "the form")
    assert isinstance(app.screen, ProposalForm)
    return app.screen


def field(at: ProposalForm, path: str) -> Field:
    return next(f for f in at.parts if f.path == path)


async def asked_why(pilot: Pilot[Any], app: DjsbApp, key: str) -> None:
    """Press a key that decides, and wait for the question why."""
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, AskLine) and app.screen.query("#line:focus"), "the question why")


def accept(at: ProposalForm) -> Button:
    return at.query_one("#accept", Button)


def verdict(at: ProposalForm) -> str:
    return str(at.query_one("#verdict").content)  # type: ignore[attr-defined]


async def test_a_proposal_is_written_in_the_form_and_queued(probed: Tiny) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=SIZE) as pilot:
        await opened(pilot, app)
        at = await form(pilot, app, "n")
        assert accept(at).disabled
        assert "is needed" in field(at, "reason").problem
        one, two = at.query(SliceField)
        for part, name in ((one, "text_len"), (two, "num_words")):
            part.query_one(".statistic", Select).value = name
        one.query_one(".bucket", Select).value = "low"
        two.query_one(".bucket", Select).value = "bounds"
        two.query_one(".low", Input).value = "x"
        at.query_one("#cites", Input).value = "zz"
        at.query_one("#reason", Input).value = "short captions with few words"
        await until(pilot, lambda: "is no place among the values" in two.problem, "a problem")
        await until(pilot, lambda: "'zz' is no id" in field(at, "cites").problem, "a problem")
        await until(pilot, lambda: field(at, "reason").problem == "", "no problem")
        assert accept(at).disabled
        await pilot.press("ctrl+s")
        assert isinstance(app.screen, ProposalForm), "an invalid suggestion was taken"
        two.query_one(".low", Input).value = "1"
        at.query_one("#cites", Input).value = "0123456789ab"
        await until(pilot, lambda: "no such pool" in field(at, "cites").problem, "what the gate says of the evidence")
        assert accept(at).disabled
        at.query_one("#cites", Input).value = ""
        await until(pilot, lambda: "passes the gate" in verdict(at), "the gate's word")
        assert "text_len low + num_words 1…" in verdict(at)
        assert not accept(at).disabled
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.snapshot and app.snapshot.queued, "the proposal")
        await until(pilot, lambda: told(app, "is queued"), "a toast")
        assert any("short captions with few words" in row[-1] for row in cells(app, "#queue"))
    ((kind, state),) = query(probed.study, "SELECT kind, status FROM proposals WHERE origin = 'person'")
    assert (kind, state) == ("combine", "queued")


@pytest.mark.long
async def test_other_kinds_have_other_fields_and_yaml_is_a_second_tab(probed: Tiny) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=SIZE) as pilot:
        await opened(pilot, app)
        at = await form(pilot, app, "n")
        at.query_one("#reason", Input).value = "to be surer"
        await pilot.press("ctrl+n")
        await until(pilot, lambda: len(at.query(SliceField)) == len(at.query(".remove")) == 3, "a third slice")
        await pilot.click(at.query(SliceField).last().query_one(".remove"))
        await until(pilot, lambda: len(at.query(SliceField)) == 2, "two slices")
        assert at.query_one("#reason", Input).value == "to be surer"
        at.query_one("#kind", Select).value = "seeds"
        await until(pilot, lambda: at.query("#pool"), "the field for a pool")
        assert not at.query(SliceField)
        pools = at.query_one("#pool", Select)
        pools.value = next(key for label, key in pools._options if "text_len low" in str(label))
        at.query_one("#seeds", Input).value = "many"
        await until(pilot, lambda: field(at, "experiment.seeds").problem == "is not a whole number", "a problem")
        at.query_one("#seeds", Input).value = "1"
        await until(pilot, lambda: "passes the gate" in verdict(at), "the gate's word")
        await pilot.press("ctrl+t")
        await until(pilot, lambda: at.query_one("#text", TextArea).text, "YAML")
        text = at.query_one("#text", TextArea)
        content = yaml.safe_load(text.text)
        assert content["experiment"] == {"kind": "seeds", "pool": pools.value, "seeds": 1}
        text.text = "experiment: ["
        await until(pilot, lambda: "not YAML" in verdict(at), "what is wrong")
        assert accept(at).disabled
        await pilot.press("ctrl+t")
        await until(pilot, lambda: told(app, "mend it first"), "a toast")
        await until(pilot, lambda: at.query_one("#tabs", TabbedContent).active == "as-yaml", "the text again")
        content["experiment"]["seeds"] = 2
        text.text = yaml.safe_dump(content)
        await until(pilot, lambda: "passes the gate" in verdict(at), "the gate's word")
        await pilot.press("ctrl+t")
        await until(pilot, lambda: at.parts and at.query_one("#seeds", Input).value == "2", "the form again")
        await until(pilot, lambda: "passes the gate" in verdict(at), "the gate's word")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.snapshot and app.snapshot.queued, "the proposal")
    ((kind, seeds),) = query(
        probed.study, "SELECT kind, json_extract(content, '$.seeds') FROM proposals WHERE origin = 'person'"
    )
    assert (kind, seeds) == ("seeds", "[2,3]")


async def test_an_edited_version_takes_a_proposals_place(probed: Tiny) -> None:
    (old,) = queued(probed)
    app = DjsbApp(probed.study)
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(pilot, app)
        assert screen.current is not None
        assert screen.current["id"] == old
        at = await form(pilot, app, "e")
        assert at.query_one(".low", Input).value == "10"
        await until(pilot, lambda: "nothing is changed" in verdict(at), "that nothing is changed")
        assert accept(at).disabled
        at.query_one(".low", Input).value = "9000"
        at.query_one(".high", Input).value = ""
        await until(pilot, lambda: "keeps 0 rows" in verdict(at), "the gate's word")
        assert accept(at).disabled
        at.query_one(".low", Input).value = "12"
        at.query_one(".high", Input).value = "150"
        await until(pilot, lambda: "passes the gate" in verdict(at), "the gate's word")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: status(probed).get(old) == "edited", "the edited version")
        await until(pilot, lambda: told(app, "is queued"), "a toast")
        await until(pilot, lambda: [r[1] for r in cells(app, "#queue")[:1]] == ["○ queued"], "the new one on top")
    new = next(key for key, state in status(probed).items() if state == "queued")
    assert query(probed.study, f"SELECT json_extract(content, '$.parent') FROM proposals WHERE id = '{new}'") == [
        (old,)
    ]


async def test_a_procedures_proposal_is_edited_as_text(probed: Tiny) -> None:
    file = probed.study / "study.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "search": {"strategy": "grid", "seeds": 3}}))
    propose(probed.study, "paper", 1, None)
    app = DjsbApp(probed.study)
    async with app.run_test(size=SIZE) as pilot:
        await opened(pilot, app)
        await until(pilot, lambda: app.snapshot and app.snapshot.queued, "the paper's proposal")
        await pilot.press("home", "e")
        await until(pilot, lambda: isinstance(app.screen, EditText), "the text")
        text = app.screen.query_one(TextArea)
        assert app.screen.query_one("#accept", Button).disabled
        content = yaml.safe_load(text.text)
        content["pools"] = content["pools"][:2]
        text.text = yaml.safe_dump(content)
        await until(pilot, lambda: not app.screen.query_one("#accept", Button).disabled, "a valid text")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: list(status(probed).values()) == ["queued"], "the edited version")
    assert query(probed.study, "SELECT count(*) FROM proposals WHERE status = 'edited'") == [(1,)]


async def test_several_are_decided_on_together_and_taken_back(probed: Tiny) -> None:
    ids = queued(probed, 3)
    app = DjsbApp(probed.study)
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(pilot, app)
        assert "against the best so far" in str(
            await until(pilot, lambda: "against" in words(app, "#proposal") and words(app, "#proposal"))
        )
        assert "would be left" in words(app, "#proposal")
        await pilot.press("home", "space", "space")
        await until(pilot, lambda: len(screen.marked) == 2, "two marks")
        assert "2 marked, 2 to decide; together costs about" in words(app, "#marked")
        await asked_why(pilot, app, "r")
        await pilot.press("enter")
        await until(pilot, lambda: words(app, "#problem") == "say why", "that a reason is needed")
        await pilot.press(*"dear", "enter")
        await until(pilot, lambda: list(status(probed).values()).count("rejected") == 2, "two rejections")
        whys = query(probed.study, "SELECT verdict, why FROM decisions WHERE who LIKE 'person %'")
        assert whys == [("reject", "dear")] * 2
        await until(pilot, lambda: [r[1] for r in cells(app, "#queue")].count("✗ rejected") == 2, "two on the screen")
        for i, row in enumerate(cells(app, "#queue")):
            if row[1] == "✗ rejected":
                screen.query_one("#queue").move_cursor(row=i)  # type: ignore[attr-defined]
                await pilot.press("space")
        await pilot.press("u")
        await until(pilot, lambda: set(status(probed).values()) == {"queued"}, "both back")
        await until(pilot, lambda: app.snapshot and len(app.snapshot.queued) == 3, "three that wait")
        await pilot.press("ctrl+a")
        assert "3 marked, 3 to decide" in words(app, "#marked")
        await asked_why(pilot, app, "h")
        await pilot.press("enter")
        await until(pilot, lambda: set(status(probed).values()) == {"held"}, "all held")
        await until(pilot, lambda: app.snapshot and all(p["status"] == "held" for p in app.snapshot.queued), "it")
        await pilot.press("ctrl+a")
        await asked_why(pilot, app, "a")
        await pilot.press(*"go", "enter")
        await until(pilot, lambda: set(status(probed).values()) == {"approved"}, "all approved")
        await until(pilot, lambda: told(app, "approve: 3 proposal(s); no engine runs"), "a toast")
        await until(pilot, lambda: not app.snapshot.queued, "an empty queue")  # type: ignore[union-attr]
        await pilot.press("t")
        await until(pilot, lambda: cells(app, "#queue") == [], "only those that wait")
        assert "nothing is proposed here" in words(app, "#proposal")
        await pilot.press("t")
    assert set(status(probed)) == set(ids)


async def test_what_cannot_be_written_is_told_and_nothing_freezes(
    probed: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = queued(probed, 2)
    app = DjsbApp(probed.study)
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(pilot, app)
        with (view := view_study(probed.study)).store:
            decide(view, first, "reject", "person elsewhere", "meanwhile")
        screen.ui.decide([first, second], "approve", "both")
        await until(pilot, lambda: told(app, f"proposal {first} is rejected; nothing was decided"), "what failed")
        assert status(probed) == {first: "rejected", second: "approved"}
        await pilot.press("home")
        monkeypatch.setattr(Store, "wait", 0.5)
        with closing(sqlite3.connect(probed.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            screen.ui.undo([second])
            await pilot.press("1")
            await until(pilot, lambda: app.screen is not screen, "another screen while the write waits")
            await until(pilot, lambda: told(app, "holds it: wait for it, or stop it"), "that the database is locked")
            other.execute("ROLLBACK")
        assert status(probed)[second] == "approved"
        ((ran,),) = query(probed.study, "SELECT proposal FROM proposal_trials LIMIT 1")
        app.undo([ran])
        await until(pilot, lambda: told(app, "its trials are in the queue already"), "that it has started")


POOL = {"layers": [{"slices": [{"statistic": "a", "low": 1, "high": 3}, {"statistic": "b", "low": None, "high": 9}]}],
        "repetition": 1, "size": 100}  # fmt: skip


async def test_the_best_pool_is_known_to_a_screen_that_nobody_has_looked_at(probed: Tiny) -> None:
    app = DjsbApp(probed.study)
    async with app.run_test(size=SIZE) as pilot:
        await shown(pilot, app)
        await until(pilot, lambda: app._screen_stacks.get("proposals"), "a screen that is made beforehand")
        (pane,) = app._screen_stacks["proposals"]
        assert isinstance(pane, Proposals) and app.current_mode == "overview"
        await until(pilot, lambda: pane.best, "the best pool")


@pytest.mark.parametrize(
    "experiment",
    [
        {"kind": ["x"]}, {"kind": "bucket", "slice": {"statistic": 5}}, {"kind": "bucket", "slice": {"bucket": 1}},
        {"kind": "seeds", "pool": ["x"]}, {"kind": "prompt", "prompts": 5}, {"kind": "combine", "slices": 5},
    ],
)  # fmt: skip
def test_what_the_form_has_no_place_for_stays_yaml(experiment: dict[str, Any]) -> None:
    assert not fits({"experiment": experiment, "reason": "r"})


@pytest.mark.parametrize("bound", [1048576.0, 0.1, 3.0, 1e-7, 123456789.125])
def test_a_bound_comes_back_from_the_form_as_it_was(bound: float) -> None:
    assert float(_written(bound)) == bound


def test_a_pool_is_compared_with_the_best_one() -> None:
    slices = [{"statistic": "a", "low": 1, "high": 4}, {"statistic": "c", "low": 2.5, "high": None}]
    other = {"layers": [{"slices": slices}, {"slices": []}], "repetition": 4, "size": 50}
    assert difference(POOL, POOL) == []
    assert difference(other, POOL) == [
        ("~", "a [1, 4) instead of [1, 3)"), ("+", "c from 2.5"), ("−", "b below 9"),
        ("~", "repetition ×4 instead of ×1"), ("~", "2 layers of rows instead of 1"), ("~", "50 rows instead of 100"),
    ]  # fmt: skip
    mixed = [{"slices": [], "source": name, "weight": share} for name, share in (("laion", 0.25), ("cc3m", 0.75))]
    ours = {"layers": mixed, "repetition": 1, "size": 100}
    best = {"layers": [mixed[0], {**mixed[1], "source": "dc"}], "repetition": 1, "size": 100}
    assert difference(ours, best) == [("+", "cc3m 75 %"), ("−", "dc 75 %")]
    assert bounds({"low": 1, "high": 2, "low_closed": False, "high_closed": True}) == "(1, 2]"


@pytest.mark.parametrize(
    ("content", "path", "said"),
    [
        (bucket(5, 3), "experiment.slice", "low 5.0 is not below high 3.0"),
        (
            {"experiment": {"kind": "combine", "slices": [{"statistic": "a", "bucket": "low"}] * 2}, "reason": "x"},
            "experiment",
            "once",
        ),
        ({"experiment": {"kind": "repeat", "rate": 1.5}, "reason": "x"}, "experiment.rate", "is not a whole number"),
        ({"experiment": {"kind": "run"}, "reason": "x"}, "experiment", "kind"),
        ("text", "", "object"),
        ({1, 2}, "", "JSON"),
    ],
)
def test_each_problem_has_its_field(content: Any, path: str, said: str) -> None:
    assert said in problems(content)[path]


def test_an_edited_text_must_be_a_proposal() -> None:
    before = {"pools": [], "seeds": [0], "reason": "x", "kind": "probe", "stage": "probe", "origin": "paper"}
    for text, said in (
        ("[", "not YAML"),
        ("3", "must have"),
        (yaml.safe_dump({"pools": 1, "seeds": [0], "reason": "y"}), "pools"),
    ):
        assert said in (problem_with_edit(text, before) or "")
