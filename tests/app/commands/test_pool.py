"""`djsb pool`: each command once, from analysed rows to a joined file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from app.cli.main import app


def run(*words: object) -> Any:
    result = CliRunner().invoke(app, ["pool", *map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_pools_are_made_combined_ranked_and_written(tmp_path: Path) -> None:
    data, out = tmp_path / "d.jsonl", tmp_path / "pools"
    rows = [{"n": n, "__dj__stats__": {"a": n, "b": n * 5 % 9}} for n in range(9)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made = run("construct", data, "--out", out, "--numbers")
    assert [entry["rows"] for entry in made] == [3] * 6
    pools = [entry["pool"] for entry in made]
    assert pools[0].endswith("a/d_a_0.jsonl.rows")
    (tmp_path / "m.json").write_text(json.dumps([{"x": n} for n in (5, 1, 3, 4, 2, 0)]), encoding="utf-8")
    best = [entry["pool"] for entry in run("rank", *pools, "--metrics", tmp_path / "m.json", "--key", "x", "--top", 2)]
    assert best == [pools[0], pools[3]]
    both = run("combine", *best, "--out", out / "both", "--numbers")[-1]
    assert Path(both["pool"]).name == f"d__top_0_1_num_{both['rows']}.jsonl.rows"
    drawn = run("downsample", *best, "--out", out / "drawn", "--size", 2)
    assert [entry["rows"] for entry in drawn] == [2, 2]
    twice = run("duplicate", drawn[0]["pool"], "--times", 2, "--out", out)
    assert [entry["rows"] for entry in twice] == [4]
    assert run("merge", *best, "--out", out)[0]["rows"] == 6
    words = tmp_path / "w.jsonl"
    words.write_text('{"w": "x"}\n{"w": "y"}\n', encoding="utf-8")
    joined = run("join", drawn[0]["pool"], "--with", words, "--out", out)
    assert joined[0]["rows"] == 4
    (written,) = run("write", best[0])
    assert written["rows"] == len(Path(written["pool"]).read_text(encoding="utf-8").splitlines()) == 3
