"""Folders and files whose names hold blanks, quotes, braces, brackets, colons, a leading dash, letters beyond ASCII."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import make_tiny, run_djsb

ODD = "-a b'c\"d{e}:ü[1]*%s"


@pytest.mark.long
@pytest.mark.slow
def test_a_study_in_an_odd_folder_runs_to_its_end(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / ODD)
    done = run_djsb("auto", tiny.study, "--until", "probe", "--workers", "1")
    assert done.returncode == 0, done.stderr
    pools = json.loads(run_djsb("rank", tiny.study, "--json").stdout)
    out = tmp_path / ODD / "out put.jsonl"
    done = run_djsb("export", "pool", pools[0]["pool"], "--dir", tiny.study, "--out", out)
    assert done.returncode == 0, done.stderr
    assert len(out.read_text().splitlines()) > 10
    assert {p.name for p in (tmp_path / ODD).iterdir()} == {"data", "study", out.name}


def test_init_reads_data_in_an_odd_folder(tmp_path: Path) -> None:
    data = tmp_path / ODD / "in put.jsonl"
    data.parent.mkdir()
    data.write_text("".join(json.dumps({"id": n, "text": f"row {n} " * (n % 7 + 1)}) + "\n" for n in range(60)))
    done = run_djsb("init", "--data", data.name, "./st udy", cwd=data.parent)
    assert done.returncode == 0, done.stderr
    done = run_djsb("check", "./st udy", cwd=data.parent)
    assert done.returncode == 0, done.stderr
    assert "60 of 60 rows" in done.stdout
