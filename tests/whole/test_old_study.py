"""A study that an earlier revision wrote opens today: the same ranking, the same ids, and it can go on."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.study.lock import EngineLock
from tests.conftest import run_djsb

OLD = Path(__file__).resolve().parents[1] / "data" / "old_study"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the old study."""
    folder = tmp_path / "study"
    (folder / ".djsb").mkdir(parents=True)
    for name in ("study.yaml", "trainer.py", "rows.jsonl", "other.jsonl"):
        shutil.copy(OLD / name, folder / name)
    (folder / ".djsb" / "study.db").write_bytes(gzip.decompress((OLD / "study.db.gz").read_bytes()))
    return folder


def answer(*arguments: object) -> Any:
    """What a command prints as JSON."""
    done = run_djsb(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rounded(found: Any) -> Any:
    """JSON without the last digits of its numbers, which hang on the processor."""
    return json.loads(json.dumps(found), parse_float=lambda number: float(f"{float(number):.9g}"))


def test_an_old_study_has_the_same_rankings_ids_and_proposals(old: Path) -> None:
    assert rounded(answer("rank", old)) == rounded(json.loads((OLD / "rank.json").read_text()))
    assert rounded(answer("rank", old, "--cycle", 1)) == rounded(json.loads((OLD / "rank-cycle1.json").read_text()))
    points = {p["proposal"]: p for p in json.loads((OLD / "scaling.json").read_text())["points"]}
    for point in answer("show", "scaling", old)["points"]:  # the last digit of an interval hangs on the processor
        before = points.pop(point["proposal"])
        assert {name: point[name] for name in before} == pytest.approx(before, rel=1e-12)
        assert {name: point[name] for name in point if name not in before} == {"checkpoint": None}
    assert not points
    proposals = {p["id"]: p["status"] for p in answer("proposals", old) if p["origin"] == "person"}
    assert sorted(proposals.values()) == ["approved"] * 5 + ["held", "queued", "refused", "rejected"]


def test_an_old_study_is_left_alone_while_its_engine_runs(old: Path) -> None:
    with EngineLock(old / ".djsb"):
        refused = run_djsb("rank", old)
    assert refused.returncode == 1
    assert "older djsb; end its engine" in refused.stderr
    assert answer("rank", old)


def test_an_old_study_is_shown_and_goes_on(old: Path) -> None:
    assert answer("status", old)["stages"][-1]["trials"] == {"COMPLETE": 18}
    best = json.loads((OLD / "rank.json").read_text())[0]["pool"]
    assert best in run_djsb("show", best[:6], old, "--json").stdout
    assert best in run_djsb("show", "recipe", old, "--json").stdout
    assert len(answer("show", "lineage", old)["lineage"]) == 2
    assert len(answer("log", old, "--last", 20)) == 20
    assert run_djsb("show", "mappers", old).returncode == 0
