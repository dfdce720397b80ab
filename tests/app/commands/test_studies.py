"""A folder of studies, which may come from anywhere: each is a row, and nothing in it is made or changed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from app.commands.studies import full, light, listed, show_studies, studies
from app.text.studies import best_text
from engine.journal import connect
from engine.journal.store import Store
from tests.conftest import Tiny

WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("PRAGMA journal_mode=WAL")
db.execute("INSERT INTO events(level, kind, text, at) VALUES('info', 'x', 'new', '2099-01-01T00:00:00')")
db.commit()
print("written", flush=True)
sys.stdin.read()
"""


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every name below a folder, with size, time and bytes."""
    return {
        str(f.relative_to(folder)): (f.stat().st_size, f.stat().st_mtime_ns, f.read_bytes())
        for f in sorted(folder.rglob("*")) if f.is_file()
    }  # fmt: skip


def test_a_study_is_a_row_with_what_people_ask_of_dashboards(probed: Tiny) -> None:
    (probed.root / "none").mkdir()
    probed.set({"name": "begun"}, probed.root / "begun")
    before = state_of(probed.root)
    begun, row = studies(probed.root)
    assert begun["state"] == "not started" and begun["limit"] == 3600.0 and begun["problem"] is None
    assert (row["name"], row["task"], row["rows"], row["data"]) == ("tiny", "clip", 240, "../data/train.jsonl")
    assert row["trials"] == {"COMPLETE": 12} and row["last"] and row["state"] == "stopped" and row["awaiting"] == 0
    assert 0 < row["spent"] < row["limit"] and row["kind"] == "open" and row["answer"].startswith("No answer")
    assert row["best"]["label"] and "%" in best_text(row["best"])
    assert light(probed.study) == {**row, "answer": "", "kind": None, "best": None}
    assert state_of(probed.root) == before


def test_nothing_is_changed_whatever_state_the_database_is_in(probed: Tiny, tmp_path: Path) -> None:
    with closing(sqlite3.connect(probed.database)) as db:
        db.executescript("DROP TABLE usage; DELETE FROM _sqlite_migrations WHERE name = 'm014_usage'")
    folder = tmp_path / "theirs"
    for name in ("sealed", "live", "killed"):
        shutil.copytree(probed.study, folder / name)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder / "live" / ".djsb" / "study.db")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as writer:  # fmt: skip
        assert writer.stdout and writer.stdout.readline()
        for part in ("study.db", "study.db-wal"):
            shutil.copy(folder / "live" / ".djsb" / part, folder / "killed" / ".djsb" / part)
        before = state_of(folder)
        killed, live, sealed = studies(folder)
        assert state_of(folder) == before
        writer.communicate(timeout=60)
    assert [r["problem"] for r in (killed, live, sealed)] == [None] * 3
    assert killed["last"] == live["last"] == "2099-01-01T00:00:00" != sealed["last"]
    with Store(probed.database) as store:  # its own person brings it up to date
        assert "usage" in store.db.table_names()


def test_a_broken_study_is_a_row_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def state(name: str) -> Path:
        (tmp_path / name / ".djsb").mkdir(parents=True)
        return tmp_path / name / ".djsb" / "study.db"

    state("cut").write_bytes(b"SQLite format 3\0" + bytes(50))
    with closing(sqlite3.connect(state("other"))) as db:
        db.execute("CREATE TABLE songs(id)")
    with closing(sqlite3.connect(tmp_path / "elsewhere.db")) as db:
        db.execute("CREATE TABLE songs(id)")
    state("link").symlink_to(tmp_path / "elsewhere.db")
    os.mkfifo(state("pipe"))
    (tmp_path / "pipe" / "study.yaml").write_text("name: [", encoding="utf-8")
    rows = {r["name"]: r["problem"] for r in studies(tmp_path)}
    assert set(rows) == {"cut", "other", "link", "pipe"}
    assert all(r and "\n" not in r for r in rows.values())
    assert "another program" in rows["other"] and "leads out of" in rows["link"] and "study.yaml" in rows["pipe"]
    show_studies(studies(tmp_path))
    assert capsys.readouterr().out.count("✗ broken") == 4


def test_a_query_without_end_ends(probed: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "LONGEST", 0.3)
    with closing(sqlite3.connect(probed.database)) as db:
        db.executescript(
            "ALTER TABLE costs RENAME TO c2; CREATE VIEW costs AS WITH RECURSIVE x(n) AS "
            "(SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT n AS seconds, '' AS at FROM x"
        )
    assert "interrupted" in light(probed.study)["problem"]


def test_hundreds_of_studies_are_listed_at_once(tmp_path: Path) -> None:
    for n in range(300):
        (tmp_path / f"s{n:03}").mkdir()
        (tmp_path / f"s{n:03}" / "study.yaml").write_text("name: x", encoding="utf-8")
    assert [f.name for f in listed(tmp_path)][::299] == ["s000", "s299"]
    assert full(tmp_path / "s000")["problem"]
    json.dumps(studies(tmp_path)[:3])
