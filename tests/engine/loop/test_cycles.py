"""Cycles: each goes on from the best checkpoint of the one before, is judged against it, and can be killed."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from textual.widgets import Tree

from app.report.figures import interval
from app.tui.app import DjsbApp
from engine.evidence.lineage import lineage, moves
from engine.journal.results import CYCLE
from engine.journal.store import Store
from engine.loop import cycles
from engine.loop import run as loop
from engine.proposals.arms import control, request, trial_id
from engine.study.opened import open_study
from engine.study.view import view_study
from tests.app.tui.driving import shown, until
from tests.conftest import DJSB, Row, Tiny, run_djsb
from tests.engine.conftest import CYCLES, planted


def finished(tiny: Tiny) -> list[Row]:
    """Every trial, as it ended."""
    with (view := view_study(tiny.study)).store:
        return view.store.query("SELECT id, setup, init, attempts, state FROM trials ORDER BY id")


def the_lineage(tiny: Tiny) -> list[Row]:
    """The lineage as the command line prints it, without the time it took."""
    done = run_djsb("show", "lineage", tiny.study, "--json")
    assert done.returncode == 0, done.stderr
    return [{k: v for k, v in c.items() if k != "seconds"} for c in json.loads(done.stdout)["lineage"]]


@pytest.fixture
def two(two_cycles: Tiny, tmp_path: Path) -> Tiny:
    """A copy of the study of two cycles."""
    copy = replace(two_cycles, root=tmp_path / "copy")
    shutil.copytree(two_cycles.root, copy.root)
    return copy


def test_the_second_cycle_goes_on_from_the_best_checkpoint_and_so_does_its_control(two_cycles: Tiny) -> None:
    first, second = the_lineage(two_cycles)
    assert (first["cycle"], first["init"], second["cycle"], second["init"]) == (1, None, 2, first["checkpoint"])
    assert first["recipe"]["label"] == second["recipe"]["label"] == "text_len low"
    starts = {t["setup"]: set() for t in finished(two_cycles)}
    for t in finished(two_cycles):
        starts[t["setup"]].add(t["init"])
    assert starts == {first["setup"]: {None}, second["setup"]: {first["checkpoint"]}}
    with (view := view_study(two_cycles.study)).store:
        scored = view.store.query(
            "SELECT t.id, m.value FROM trials t JOIN metrics m ON m.trial = t.id AND m.name = 'likelihood' "
            "WHERE t.setup = ? AND t.pool = ? AND t.stage = 'confirm' ORDER BY m.value DESC",
            (first["setup"], first["recipe"]["pool"]),
        )
        controls = view.store.query(
            "SELECT DISTINCT t.init FROM trials t JOIN pools p ON p.id = t.pool WHERE p.kind = 'control' "
            "AND t.setup = ?",
            (second["setup"],),
        )
    assert len(scored) == 3
    assert scored[0]["id"] == first["checkpoint"]
    assert controls == [{"init": first["checkpoint"]}]


def test_the_checkpoints_of_the_cycles_are_kept_and_load_by_themselves(two_cycles: Tiny) -> None:
    from transformers import CLIPModel

    for cycle in the_lineage(two_cycles):
        folder = two_cycles.study / cycle["path"]
        assert (folder / "model.safetensors").exists()
        CLIPModel.from_pretrained(folder, local_files_only=True)
    kept = list((two_cycles.study / ".djsb" / "checkpoints").iterdir())
    assert len(kept) <= 4  # one of each cycle's end and, by keep_checkpoints: 1, the best of each


def test_the_lineage_compares_the_checkpoints_and_the_rankings(two_cycles: Tiny) -> None:
    first, second = the_lineage(two_cycles)
    assert first["against_first"] is first["moves"] is None
    gain = second["against_first"]
    assert gain["seeds"] == 3
    assert gain["ci_low"] < gain["change"] < gain["ci_high"]
    scores = [c["scores"]["likelihood"] for c in (first, second)]
    assert gain["change"] == pytest.approx(100 * (scores[1] / scores[0] - 1))
    assert second["moves"]["both"] == ["text_len"]
    assert [s["label"] for s in second["standing"]] == ["text_len low"]


def test_every_cycle_has_a_leaderboard_of_its_own(two_cycles: Tiny) -> None:
    boards = [run_djsb("rank", two_cycles.study, "--json", *which) for which in ((), ("--cycle", 1), ("--cycle", 2))]
    last, first, second = (json.loads(b.stdout) for b in boards)
    assert last == second != first
    beyond = run_djsb("rank", two_cycles.study, "--cycle", 3)
    assert beyond.returncode == 1
    assert "there is no cycle 3; the study has 2" in beyond.stderr


def test_status_report_and_recipe_tell_of_the_cycles(two_cycles: Tiny) -> None:
    status = json.loads(run_djsb("status", two_cycles.study, "--json").stdout)
    assert (status["cycle"], status["cycles"], len(status["lineage"])) == (2, 2, 2)
    page = (two_cycles.study / "report" / "report.html").read_text(encoding="utf-8")
    assert '<section id="cycles">' in page
    assert all(c["checkpoint"] in page for c in the_lineage(two_cycles))
    assert "of cycle 2" in (two_cycles.study / "recipe.yaml").read_text(encoding="utf-8")


def test_running_again_changes_nothing(two: Tiny) -> None:
    before = finished(two), the_lineage(two)
    with (opened := open_study(two.study, 1)).store:
        assert loop.run_loop(opened, workers=1).how == "done"
    assert (finished(two), the_lineage(two)) == before


def test_ids_of_the_first_cycle_are_those_of_a_study_without_cycles(two_cycles: Tiny, tmp_path: Path) -> None:
    plain = planted(tmp_path)
    with (opened := open_study(plain.study, 1)).store:
        asked = request(opened, control(opened, opened.pool_size), "control", "control")
        known = {trial_id(opened, asked, seed) for seed in (0, 1000, 1001, 1002)}
        after = {trial_id(opened.following("0" * 16), asked, seed) for seed in (0, 1000)}
    assert known <= {t["id"] for t in finished(two_cycles)}
    assert not known & after


@pytest.mark.long
def test_a_checkpoint_that_was_not_kept_is_trained_again_to_the_bit(two: Tiny, two_cycles: Tiny) -> None:
    """As when cycles are asked for after a study of one has ended."""
    first, second = the_lineage(two)
    with (opened := open_study(two.study, 1)).store:
        store = opened.store
        for table in ("metrics", "curve_points", "proposal_trials", "costs"):
            store.execute(f"DELETE FROM {table} WHERE trial IN (SELECT id FROM trials WHERE init IS NOT NULL)")
        store.execute("DELETE FROM trials WHERE init IS NOT NULL")
        store.execute("DELETE FROM proposals WHERE setup = ?", (second["setup"],))
        store.execute("DELETE FROM cycles")
        shutil.rmtree(two.study / ".djsb" / "checkpoints")
        store.execute("DELETE FROM checkpoints")
        assert loop.run_loop(opened, workers=1).how == "done"
    assert the_lineage(two) == the_lineage(two_cycles)
    again = {t["id"]: t["attempts"] for t in finished(two)}
    assert again[first["checkpoint"]] == 2
    before, after = (t.study / first["path"] / "model.safetensors" for t in (two_cycles, two))
    assert before.read_bytes() == after.read_bytes()


@pytest.mark.long
def test_a_person_may_have_a_cycle_start_from_another_checkpoint(two: Tiny, tmp_path: Path) -> None:
    first, second = the_lineage(two)
    file = tmp_path / "wanted.json"

    def suggest(checkpoint: str) -> Row:
        asked = {"experiment": {"kind": "cycle", "checkpoint": checkpoint}, "reason": "try it from there"}
        file.write_text(json.dumps(asked))
        done = run_djsb("propose", two.study, "--by", "person", "--from", file, "--json")
        assert done.returncode == 0, done.stderr
        found: Row = json.loads(done.stdout)["proposals"][0]
        return found

    assert "no checkpoint" in suggest("0" * 16)["gate"]
    assert "a repetition" in suggest(first["checkpoint"])["gate"]
    wanted = suggest(second["checkpoint"])
    assert wanted["status"] == "queued", wanted
    done = run_djsb("review", wanted["id"], "--dir", two.study, "--approve", "--why", "once more")
    assert done.returncode == 0, done.stderr
    assert run_djsb("auto", two.study, timeout=600).returncode == 0
    third = the_lineage(two)[2]
    assert (third["cycle"], third["init"], third["proposal"]) == (3, second["checkpoint"], wanted["id"])
    assert third["trials"] > 0
    shown = json.loads(run_djsb("show", wanted["id"], two.study, "--json").stdout)
    assert {t["state"] for t in shown["trials"]} == {"COMPLETE"}
    assert len(shown["trials"]) == 4  # the control and three buckets


@pytest.mark.long
async def test_three_cycles_are_told_by_database_command_report_and_ui(
    two: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # no settings of a person's own
    two.set({**CYCLES, "cycles": 3})
    assert run_djsb("auto", two.study, timeout=600).returncode == 0
    told = the_lineage(two)
    first, second, third = told
    assert [c["init"] for c in told] == [None, first["checkpoint"], second["checkpoint"]]
    assert {c["recipe"]["label"] for c in told} == {"text_len low"}
    assert all((two.study / c["path"] / "model.safetensors").exists() for c in told)
    with (view := view_study(two.study)).store:
        links = view.store.query("SELECT root, cycle, parent, init FROM cycles ORDER BY cycle")
        kept = [end.checkpoint for c in told if (end := CYCLE.get(view.store, c["setup"]))]
    assert links == [
        {"root": first["setup"], "cycle": n, "parent": before["setup"], "init": before["checkpoint"]}
        for n, before in ((2, first), (3, second))
    ]
    assert kept == [c["checkpoint"] for c in told]

    page = (two.study / "report" / "report.html").read_text(encoding="utf-8")
    section = page.split('<section id="cycles">')[1].split("</section>")[0]
    rows = re.findall(r"<tr>.*?</tr>", section.split("<tbody>")[1].split("</tbody>")[0], re.S)
    assert len(rows) == 3
    for row, c in zip(rows, told, strict=True):
        gains = [g for g in (c["recipe"], c["against_first"]) if g]
        assert all(x in row for x in (c["init"] or "the study's model", c["checkpoint"], "text_len low"))
        assert all(interval(g["ci_low"], g["ci_high"]) in row for g in gains)
    assert "From cycle 2 to cycle 3" in section

    app = DjsbApp(two.study)
    async with app.run_test(size=(160, 45)) as pilot:
        await shown(pilot, app)
        await pilot.press("6")
        gain = third["against_first"]
        told_of = f"against the first: {gain['change']:+.1f} % [{gain['ci_low']:+.1f}, {gain['ci_high']:+.1f}]"
        lines = await until(pilot, lambda: branch(app), "the lineage")
    assert [line.split()[0] for line in lines] == ["ckpt₀", "recipe₁", "ckpt₁", "recipe₂", "ckpt₂", "recipe₃", "ckpt₃"]
    assert told_of in lines[5]
    assert all("text_len low" in line for line in lines[1::2])


def branch(app: DjsbApp) -> list[str]:
    """The lineage in the tree of recipes, each line under the one before; none before it is drawn."""
    found: list[str] = []
    trees = list(app.screen.query(Tree))
    node = trees[0].root.children[0] if trees and trees[0].root.children else None
    while node is not None and node.children:
        (node,) = node.children
        found.append(str(node.label))
    return found


def test_no_cycle_follows_where_no_recipe_is_confirmed(stopped: Tiny) -> None:
    stopped.set({"cycles": 3, "train": {"micro_batch": 8}})
    with (opened := open_study(stopped.study, 1)).store:
        assert cycles.next_start(opened) is None
        assert [c.cycle for c in lineage(opened)] == [1]
        (only,) = lineage(opened)
    assert only.init is only.recipe is only.checkpoint is None


def test_what_is_left_of_the_budget_is_divided_over_the_cycles_to_come(stopped: Tiny) -> None:
    from engine.runner.accounts import Accounts

    stopped.set({"cycles": 4, "train": {"micro_batch": 8}})
    with (opened := open_study(stopped.study, 1)).store:
        assert Accounts(opened, 400).allowance(1) == pytest.approx(100)
        assert Accounts(opened, 400).allowance(0.6) == pytest.approx(60)
        after = opened.following("0" * 16)
        opened.store.execute(
            "INSERT INTO cycles(setup, root, cycle, parent, init, spent, at) VALUES(?, ?, 2, ?, ?, 40, '')",
            (after.setup, after.root, opened.setup, after.init),
        )
        assert Accounts(after, 400).allowance(0.5) == pytest.approx(40 + 0.5 * 120)


@pytest.mark.parametrize(
    ("second", "both", "up", "down"),
    [
        ("abcd", "abc", {}, {}),
        ("cabd", "cab", {"c": 2}, {"a": 1, "b": 1}),
        ("xaeb", "a", {"e": 2}, {"a": 1}),
    ],
)
def test_moves_are_places_in_the_earlier_ranking(second: str, both: str, up: Row, down: Row) -> None:
    found = moves("abcde", second, top=3)
    assert ("".join(found.both), dict(found.up), dict(found.down)) == (both, up, down)
    assert set(found.new) == set(second[:3]) - set("abc")
    assert set(found.gone) == set("abc") - set(second[:3])
    assert found.mean_up == (pytest.approx(np.mean(list(up.values()))) if up else None)


MOMENTS = (  # where an engine is killed
    "SELECT 1 FROM trials WHERE state = 'RUNNING' AND init IS NULL AND stage = 'confirm'",
    "SELECT 1 FROM cycles",
    "SELECT 1 FROM trials WHERE state = 'RUNNING' AND init IS NOT NULL AND stage = 'confirm'",
)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_in_either_cycle_and_between_them_it_ends_the_same(two_cycles: Tiny, tmp_path: Path) -> None:
    killed = planted(tmp_path)
    killed.set({**CYCLES, "cycles": 2})
    for moment in MOMENTS:
        before = {tuple(r.items()) for r in ended(killed)}
        kill_when(killed, moment)
        assert before <= {tuple(r.items()) for r in ended(killed)}, "a finished trial was lost or ran again"
    assert run_djsb("auto", killed.study, timeout=600).returncode == 0
    assert the_lineage(killed) == the_lineage(two_cycles)
    same = ("id", "setup", "init", "state")
    assert [[t[k] for k in same] for t in finished(killed)] == [[t[k] for k in same] for t in finished(two_cycles)]
    for which in (1, 2):
        boards = [run_djsb("rank", t.study, "--cycle", which, "--json").stdout for t in (killed, two_cycles)]
        assert boards[0] == boards[1]


def ended(tiny: Tiny) -> list[Row]:
    """Trials with a result; none before the database is made."""
    if not tiny.database.exists():
        return []
    with Store(tiny.database) as store:
        return store.query("SELECT id, attempts, seconds, finished FROM trials WHERE state = 'COMPLETE'")


def kill_when(tiny: Tiny, moment: str) -> None:
    """Run the engine and kill it once the query has a row; it must come to that."""
    process = subprocess.Popen(
        [str(DJSB), "auto", str(tiny.study), "--workers", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        while process.poll() is None:
            with suppress(sqlite3.OperationalError), closing(sqlite3.connect(tiny.database, timeout=30)) as db:
                if db.execute(moment).fetchone():
                    break
            time.sleep(0.02)
        assert process.poll() is None, "it ended before the moment"
    finally:
        process.kill()
        process.wait()
