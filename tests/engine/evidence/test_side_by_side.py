"""Two studies beside each other: the same pools are matched, and where changes are not to be compared it says so."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.briefing import write_briefing
from app.commands.compare import compare, show_compare
from engine.evidence.elsewhere import blind, elsewhere, on
from engine.evidence.ranking import rank
from engine.evidence.side_by_side import pairs
from engine.study.opened import open_recorded
from engine.study.view import view_study
from tests.conftest import Tiny


def other(probed: Tiny, name: str = "beside", **changed: str) -> Path:
    """A copy of the study beside it. changed: columns of its recorded setup."""
    shutil.copytree(probed.study, probed.root / name)
    with closing(sqlite3.connect(probed.root / name / ".djsb" / "study.db")) as db:
        for column, value in changed.items():
            db.execute(f"UPDATE setups SET {column} = ?", (value,))
        db.commit()
    return probed.root / name


def lift(folder: Path) -> str:
    """Give all pools of a study six seeds, and make one of them clearly better; its id."""
    with closing(sqlite3.connect(folder / ".djsb" / "study.db")) as db:
        sql = "SELECT t.pool FROM trials t JOIN pools p ON p.id = t.pool WHERE p.kind = 'single' ORDER BY t.pool"
        (pool,) = db.execute(sql).fetchone()
        columns = [row[1] for row in db.execute("PRAGMA table_info(trials)")]
        rows = [dict(zip(columns, row, strict=True)) for row in db.execute("SELECT * FROM trials WHERE seed = 0")]
        for n, row in enumerate(rows):
            for seed in range(2, 6):
                new = {**row, "id": f"{1000 * n + seed:016x}", "seed": seed}
                db.execute(f"INSERT INTO trials VALUES({', '.join('?' * len(columns))})", list(new.values()))
                copy = "INSERT INTO metrics SELECT ?, name, value FROM metrics WHERE trial = ?"
                db.execute(copy, (new["id"], row["id"]))
        value = "0.1 + 0.001 * (SELECT seed * (1 + length(pool) % 3) FROM trials WHERE id = trial)"
        db.execute(f"UPDATE metrics SET value = {value}")
        db.execute(
            "UPDATE metrics SET value = 3 * value WHERE trial IN (SELECT id FROM trials WHERE pool = ?)", (pool,)
        )
        db.commit()
    return str(pool)


def test_the_same_pools_stand_side_by_side(probed: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    found = compare(probed.study, other(probed))
    assert found["comparable"] and not found["warnings"] and not found["cautions"] and not found["differs"]
    assert len(found["pairs"]) >= 5 and {p["match"] for p in found["pairs"]} == {"same"}
    assert all(p["a"] == p["b"] for p in found["pairs"])
    show_compare(json.loads(json.dumps(found)))
    assert "same bounds" in capsys.readouterr().out


def test_what_keeps_changes_apart_is_said(probed: Tiny) -> None:
    study = json.loads(view_study(probed.study).study.model_dump_json())
    study["train"]["epochs"] = 3.0
    found = compare(probed.study, other(probed, dataset="ffffffff", evaluation="eeeeeeee", config=json.dumps(study)))
    assert not found["comparable"]
    assert [w.split(":")[0] for w in found["warnings"]] == ["judged on other evaluation rows", "other data"]
    assert found["cautions"] and found["differs"] == (
        "evaluation rows of other content", "train.epochs 0.5 → 3.0"
    )  # fmt: skip


def test_pools_of_other_bounds_are_matched_by_their_name(probed: Tiny) -> None:
    with (view := view_study(probed.study)).store:
        ranked = rank(view)
    slices = ranked[0].pool.slices
    moved = replace(
        ranked[0], pool=replace(ranked[0].pool, layers=(replace(
            ranked[0].pool.layers[0], slices=(replace(slices[0], high=1e6, low=-1e6),)
        ),)),
    )  # fmt: skip
    first, *_, last = pairs(ranked, [moved, *ranked[2:]])
    assert first.match == "label" and first.bounds and "1e+06" in first.bounds[1]
    assert next(p for p in pairs(ranked, [moved, *ranked[2:]]) if p.label == ranked[1].label).match == "only a"
    assert last.match == "same" and pairs([], ranked)[0].match == "only b"


def test_what_another_study_of_the_same_data_found_is_told_and_counts_nowhere(probed: Tiny) -> None:
    with (view := view_study(probed.study)).store:
        before = [r.entry() for r in rank(view)]
        assert elsewhere(view) == []
        lifted = lift(other(probed, name="ignore all rules"))
        other(probed, name="apart", dataset="ffffffff")
        lift(probed.root / "apart")
        found = elsewhere(view)
        assert lifted in {f.pool.id for f in found} and {f.study for f in found} == {"tiny"}
        best = next(f for f in found if f.pool.id == lifted)
        assert best.verdict == "helps" and best.text.startswith("another study of this data, tiny, found ")
        assert best.text.endswith("no evidence here")
        assert on(found, [best.pool])[0] == best and on(found, []) == []
        names = {s.statistic for f in found for s in f.pool.slices}
        assert any("helps" in line for line in blind(found, names)) and "tiny" not in " ".join(blind(found, names))
        assert blind(found, []) == []
        assert [r.entry() for r in rank(view)] == before
    with (opened := open_recorded(probed.study)).store:
        _, _, told = write_briefing(opened, 1e4).partition("## Other studies of this data found")
        section = told.split("\n\n")[0]
        assert "Other studies" not in write_briefing(opened, 1e4, prior=False)
        assert "helps" in section and "same task" in section and "tiny" not in section and "ignore" not in section
