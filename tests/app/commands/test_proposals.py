"""Proposals over the command line, as over ssh or in a script: propose, list, review, edit, and what exit codes say."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.text.suggestion_file import read_suggestion
from engine.proposals.kinds import registry
from tests.agent.conftest import KEY
from tests.agent.server import Raw, call, serving, text
from tests.conftest import Tiny, run_djsb, the_error

MINE = {
    "experiment": {"kind": "bucket", "slice": {"statistic": "text_len", "low": 10, "high": 140}},
    "reason": "the middle of the captions",
}


def listed(study: Path, *args: str) -> list[dict[str, Any]]:
    done = run_djsb("proposals", study, "--json", *args)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def query(study: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(study / ".djsb" / "study.db")) as db:
        return db.execute(sql).fetchall()


def test_a_persons_proposal_is_checked_queued_edited_approved_and_run(probed: Tiny) -> None:
    study, mine = probed.study, probed.root / "mine.yaml"
    mine.write_text(yaml.safe_dump(MINE))
    done = run_djsb("propose", study, "--by", "person", "--from", mine, "--json")
    assert done.returncode == 0, done.stderr
    (queued,) = json.loads(done.stdout)["proposals"]
    assert {"id", "origin", "kind", "status", "reason", "cost", "content"} <= set(queued)
    assert (queued["origin"], queued["kind"], queued["status"]) == ("person", "bucket", "queued")
    assert queued["cost"] > 0
    assert run_djsb("review", "--dir", study).returncode == 3
    edited = {**MINE, "experiment": {"kind": "bucket", "slice": {"statistic": "text_len", "low": 12, "high": 150}}}
    mine.write_text(yaml.safe_dump(edited))
    changed = run_djsb(
        "review", queued["id"], "--dir", study, "--edit", "--from", mine, "--approve", "--why", "a bit wider"
    )
    assert changed.returncode == 0, changed.stderr
    old, new = [p for p in listed(study) if p["origin"] == "person"]
    assert (old["status"], new["status"]) == ("edited", "approved")
    assert new["content"]["parent"] == old["id"]
    assert [d["verdict"] for d in old["decisions"] + new["decisions"]] == ["edit", "approve"]
    assert all(
        d["who"].startswith("person ") and "a bit wider" in d["why"] for d in old["decisions"] + new["decisions"]
    )
    probed.set({"agent": {"model": None}, "search": {"seeds": 2}})
    assert run_djsb("auto", study, "--until", "probe", "--workers", "1").returncode == 0
    board = json.loads(run_djsb("rank", study, "--json").stdout)
    assert "text_len 12…150" in {r["label"] for r in board}
    assert run_djsb("review", "--dir", study).returncode == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("experiment: {kind: bucket, slice: {statistic: text_len, low: 9000}}\nreason: x", "keeps 0 rows"),
        ("experiment: {kind: mapper, op: python_lambda_mapper}\nreason: x", "not on the list"),
    ],
)
def test_a_refused_proposal_of_a_person_is_kept_with_its_reason(probed: Tiny, content: str, said: str) -> None:
    mine = probed.root / "mine.yaml"
    mine.write_text(content)
    assert run_djsb("propose", probed.study, "--by", "person", "--from", mine).returncode == 0
    (refused,) = listed(probed.study, "--status", "refused")
    assert said in refused["gate"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("experiment: {kind: run}", "the proposal is not"), ("[", "the proposal, line 1 is not YAML"),
        ("reason: x", "the proposal is not"), ("\x00", "the proposal is not"), ("3", "the proposal is not"),
        ("!!python/object:os.x {}", "the proposal, line 1 is not YAML"),
    ],
)  # fmt: skip
def test_what_is_no_proposal_is_one_line(probed: Tiny, content: str, said: str) -> None:
    mine = probed.root / "mine.yaml"
    mine.write_text(content)
    before = listed(probed.study)
    assert said in the_error(run_djsb("propose", probed.study, "--by", "person", "--from", mine))
    assert listed(probed.study) == before


def more_seeds(probed: Tiny) -> None:
    """One seed more than were run, so that the paper's procedure has something to ask for."""
    file = probed.study / "study.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["search"]["seeds"] = 3
    file.write_text(yaml.safe_dump(settings))


def test_the_papers_and_the_races_proposals_are_queued_on_request(probed: Tiny) -> None:
    more_seeds(probed)
    study, decided = probed.study, query(probed.study, "SELECT * FROM decisions")
    done = run_djsb("propose", study, "--by", "paper", "--n", "1", "--json")
    assert done.returncode == 0, done.stderr
    (first,) = json.loads(done.stdout)["proposals"]
    assert (first["origin"], first["status"], first["content"]["seeds"]) == ("paper", "queued", [2])
    raced = json.loads(run_djsb("propose", study, "--by", "race", "--json").stdout)["proposals"]
    assert {p["origin"] for p in raced} == {"race"}
    assert query(study, "SELECT * FROM decisions") == decided
    assert {p["status"] for p in listed(study, "--status", "queued")} == {"queued"}


def test_an_edited_version_that_the_gate_refuses_changes_nothing(probed: Tiny) -> None:
    study, mine = probed.study, probed.root / "mine.yaml"
    mine.write_text(yaml.safe_dump(MINE))
    (queued,) = json.loads(run_djsb("propose", study, "--by", "person", "--from", mine, "--json").stdout)["proposals"]
    for content in (MINE, {**MINE, "experiment": {"kind": "bucket", "slice": {"statistic": "text_len", "low": 1e6}}}):
        mine.write_text(yaml.safe_dump(content))
        line = the_error(run_djsb("review", queued["id"], "--dir", study, "--edit", "--from", mine))
        assert "waits as before" in line
    assert [p["status"] for p in listed(study) if p["id"] == queued["id"]] == ["queued"]


def model(probed: Tiny, url: str, *args: object, **more: Any) -> Any:
    return run_djsb(*args, env={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url}, **more)


def good(probed: Tiny) -> dict[str, Any]:
    ((pool,),) = query(probed.study, "SELECT id FROM pools WHERE label = 'text_len low'")
    slices = [{"statistic": "text_len", "bucket": "low"}, {"statistic": "num_words", "low": 1, "high": 14}]
    experiment = {"kind": "combine", "slices": slices}
    return {"experiment": experiment, "reason": "both help", "cites": [pool]}


def test_a_model_is_asked_and_a_script_decides(probed: Tiny) -> None:
    study = probed.study
    other = {**good(probed), "experiment": {"kind": "seeds", "pool": good(probed)["cites"][0], "seeds": 1}}
    with serving(call("Proposals", {"proposals": [good(probed), other]})) as server:
        done = model(probed, server.url, "propose", study, "--by", "model", "--n", "2", "--json")
    assert done.returncode == 0, done.stderr
    yes, no = json.loads(done.stdout)["proposals"]
    assert {yes["status"], no["status"]} == {"queued"}
    assert run_djsb("review", yes["id"], "--dir", study, "--approve", "--why", "cheap").returncode == 0
    assert run_djsb("review", no["id"], "--dir", study, "--reject", "--why", "enough").returncode == 0
    with serving(call("Proposals", {"proposals": []}), call("Summary", {"sentences": []})) as server:
        done = model(probed, server.url, "auto", study, "--until", "combine", "--workers", "1")
    assert done.returncode == 0, done.stderr
    ran = query(study, f"SELECT state FROM trials WHERE proposal = '{yes['id']}'")
    assert ran
    assert set(ran) == {("COMPLETE",)}
    assert query(study, f"SELECT 1 FROM trials WHERE proposal = '{no['id']}'") == []
    log = run_djsb("log", study).stdout
    assert "approve by person" in log
    assert "reject by person" in log


@pytest.mark.long
@pytest.mark.parametrize("args", [("propose", "--by", "model"), ("chat", "--ask", "Why?")])
def test_where_the_model_fails_nobody_proposes_in_its_place(probed: Tiny, args: tuple[str, ...]) -> None:
    more_seeds(probed)
    command, *rest = args
    before = listed(probed.study)
    body = json.dumps({"error": {"message": f"bad key {KEY}\x1b[2J"}}).encode()
    with serving(Raw(body, 401)) as server:
        done = model(probed, server.url, command, probed.study, *rest)
    line = the_error(done)
    assert "401 (Unauthorized): bad key [OPENAI_API_KEY]" in line
    assert "check OPENAI_API_KEY" in line
    assert listed(probed.study) == before
    assert KEY not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert not [f for f in probed.root.rglob("*") if f.is_file() and KEY.encode() in f.read_bytes()]


@pytest.mark.parametrize("args", [("propose", "--by", "model"), ("chat", "--ask", "Why?")])
def test_without_a_key_only_the_model_is_missing(probed: Tiny, args: tuple[str, ...]) -> None:
    command, *rest = args
    line = the_error(run_djsb(command, probed.study, *rest, env={"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}))
    assert "OPENAI_API_KEY" in line


def test_a_study_that_names_a_model_does_not_run_without_it(probed: Tiny) -> None:
    done = run_djsb("auto", probed.study, "--until", "probe", env={"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""})
    line = the_error(done)
    assert "OPENAI_API_KEY" in line
    assert "or take agent.model out of study.yaml" in line


def test_chat_answers_and_names_ids_that_are_not_there(probed: Tiny) -> None:
    with serving(text("See [0123456789ab].")) as server:
        done = model(probed, server.url, "chat", probed.study, "--ask", "Why?")
        several = model(probed, server.url, "chat", probed.study)
    assert done.returncode == several.returncode == 0, done.stderr
    assert done.stdout == "See [0123456789ab].\n"
    assert "[0123456789ab] is not in this study" in done.stderr
    assert several.stdout == ""


def test_a_study_without_pools_says_what_to_run(tiny: Tiny) -> None:
    assert "djsb pools" in the_error(run_djsb("propose", tiny.study))


def test_a_suggestion_in_retired_words_is_read_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("{experiment: {kind: scale, pool: 3ecca1f06ba0, compute: 2}, reason: r, evidence: [3ecca1f06ba0]}")
    content = registry.read_suggestion(read_suggestion(file))
    assert content.experiment.kind == "transfer"
    assert content.cites == ("3ecca1f06ba0",)
    notes = capsys.readouterr().err
    assert "`evidence` is called `cites` now" in notes and "`kind: scale` is called `kind: transfer` now" in notes
