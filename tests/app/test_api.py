"""`import djsb`: it answers as the commands do, shows itself in notebooks, and leaves a user's modules alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import djsb
from engine.base.paths import HOME
from tests.conftest import Tiny, make_tiny, run_djsb


def test_it_says_what_the_commands_say(probed: Tiny) -> None:
    study = djsb.open_study(probed.study)
    printed = json.loads(run_djsb("rank", probed.study, "--json").stdout)
    board = study.rank()
    assert [e.pool for e in board] == [row["pool"] for row in printed] and len(board[:2]) == 2
    table = board.to_pandas()
    assert list(table["change"].dropna()) == [row["change"] for row in printed if row["change"] is not None]
    status = json.loads(run_djsb("status", probed.study, "--json").stdout)
    assert study.answer().text == status["answer"]["text"] and study.status()["stages"] == status["stages"]
    assert study.show(board[0].pool)["id"] == board[0].pool
    results = study.results()
    assert {"pool", "seed", "metric", "value"} <= set(results.columns) and len(results)


def test_pools_are_row_numbers_or_a_data_set(probed: Tiny) -> None:
    study = djsb.open_study(probed.study)
    best = study.rank()[0]
    rows = study.pool(best.pool)
    assert len(rows) == best.size and (np.diff(rows) > 0).all()
    data = study.dataset(best.pool[:8])
    lines = probed.train_file.read_text().splitlines()
    assert data["text"] == [json.loads(lines[n])["text"] for n in rows]


def test_a_proposal_waits_for_a_decision_and_runs(probed: Tiny) -> None:
    study = djsb.open_study(probed.study)
    best = next(e for e in study.rank() if e.statistic)
    experiment = {"kind": "bucket", "slice": {"statistic": best.statistic, "low": "p20", "high": "p80"}}
    mine = study.propose({"experiment": experiment, "reason": "the ends hurt", "cites": [best.pool]})
    assert (mine["origin"], mine["status"]) == ("person", "queued") and not mine["gate"].startswith("budget")
    with pytest.raises(djsb.Error, match="the proposal is not valid"):
        study.propose({"experiment": {"kind": "none"}})
    study.decide(mine["id"], "approve", "it is cheap")
    assert [p["status"] for p in study.proposals() if p["id"] == mine["id"]] == ["approved"]
    probed.set({"search": {"seeds": 2}})  # no language model
    handler = signal.getsignal(signal.SIGINT)
    ended = study.run(until="probe", workers=1)
    assert signal.getsignal(signal.SIGINT) is handler
    assert ended.how == "done" and mine["content"]["pools"][-1]["label"] in {e.label for e in study.rank()}


def test_a_run_that_awaits_a_decision_says_so(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    ended = djsb.open_study(tiny.study).run(until="probe", approve="hold")
    assert ended.how == "awaiting" and "djsb review" in ended.note and ended.answer.kind == "open"


def test_notebooks_show_tables_and_escape_what_is_of_the_data(probed: Tiny) -> None:
    study = djsb.open_study(probed.study)
    board = study.rank()
    html = board._repr_html_()
    assert html.count("<tr>") == len(board) + 1 and board[0].label in html
    odd = type(board[0])(**{**board[0].__dict__, "label": "<script>alert(1)</script>"})
    assert "<script>" not in djsb.Leaderboard((odd,))._repr_html_()
    assert study.answer().text.split(".")[0] in study._repr_html_().replace("&#x27;", "'")
    figures = study.figures()
    assert figures["leaderboard"]._repr_png_().startswith(b"\x89PNG")


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(djsb.Error, match=r"study\.yaml") as told:
        djsb.open_study(tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("mine", [None, "engine.py"])
def test_a_users_module_of_that_name_is_told_and_not_taken(tmp_path: Path, mine: str | None) -> None:
    if mine:
        (tmp_path / mine).write_text("raise SystemExit('the user\\'s own')")
    script = f"import sys; sys.path.append({str(HOME)!r}); import djsb; print(djsb.open_study.__module__)"
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    if mine is None:
        assert ran.stdout.strip() == "app.api", ran.stderr
    else:
        assert f"{tmp_path}/engine.py is before it" in ran.stderr and "own" not in ran.stderr.splitlines()[-1][:10]


def test_every_call_is_documented() -> None:
    guide = (HOME / "docs" / "guides" / "python.md").read_text()
    calls = [name for name in vars(djsb.Study) if not name.startswith("_") and callable(getattr(djsb.Study, name))]
    assert [name for name in calls if f"study.{name}(" not in guide] == []


def test_the_notebook_runs_and_shows_the_leaderboard(probed: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", str(HOME / "docs/tutorial/python.ipynb")]
    environment = os.environ | {"DJSB_STUDY": str(probed.study), "PYTHONPATH": str(HOME), "HOME": str(tmp_path)}
    ran = subprocess.run([*command, "--output-dir", str(tmp_path)], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2_000:]
    page = (tmp_path / "python.html").read_text()
    assert "<th>verdict</th>" in page and "image/png" in page and "queued" in page
