"""Results of MLflow, W&B and other CSV are ranked as those of a study; what is ambiguous is refused in a line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from app.commands.export import results
from app.commands.rank_file import rank
from engine.base.errors import DataError
from engine.track.recorded.contract import Choice
from tests.conftest import Tiny, copied, run_djsb, the_error
from tests.engine.track.test_export import export, target, uri_of

RUNS = [
    {"recipe": pool, "seed": seed, "lr": 0.1, "acc": base + seed / 100, "epoch": 3}
    for pool, base in (("baseline", 0.5), ("good", 0.6))
    for seed in range(3)
]
CHOSEN = Choice(pool="recipe", control="baseline", metrics=("acc",))


def ranked(source: object, choice: Choice = CHOSEN, **more: Any) -> list[tuple[str, int, str]]:
    """Pool, seeds and verdict of each entry."""
    found = rank(str(source), "mean-of-changes", [], 0.95, choice=choice, **more)
    return [(e["pool"], e["seeds"], e["verdict"]) for e in found]


def wide(file: Path, rows: list[dict[str, Any]]) -> Path:
    """A CSV file with a column a metric."""
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def runs_file(file: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    """W&B's runs: the configuration's values once bare and once as W&B stores them, and one run that goes on."""
    lines = []
    for i, row in enumerate(rows or RUNS):
        config = {"recipe": row["recipe"], "train": {"seed": row["seed"]}, "_wandb": {}}
        config = config if i % 2 else {k: {"value": v, "desc": None} for k, v in config.items()}
        summary: Any = {"acc": row["acc"], "_step": 9, "table": {"path": "x"}}
        lines.append({"name": f"run {i}", "state": "finished", "config": config, "summary": summary})
    lines.append({**lines[-1], "name": "going", "state": "running"})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_a_csv_file_with_a_column_a_metric_is_ranked(tmp_path: Path) -> None:
    file = wide(tmp_path / "r.csv", RUNS)
    assert ranked(file) == [("good", 3, "helps")]
    other = [{**row, "lr": 1, "acc": 0.9} for row in RUNS]
    both = wide(tmp_path / "both.csv", [*RUNS, *other])
    assert ranked(both, Choice("recipe", None, "baseline", ("acc",), {"lr": "0.1"})) == [("good", 3, "helps")]
    with pytest.raises(DataError, match="two different values"):
        ranked(both)
    plain = [
        {"Pool": "control" if r["recipe"] == "baseline" else "p", "seed": r["seed"], "acc": r["acc"]} for r in RUNS
    ]
    assert ranked(wide(tmp_path / "plain.csv", plain), Choice()) == [("p", 3, "helps")]
    done = run_djsb("rank", "--from", file, "--pool", "recipe", "--control", "baseline", "--metric", "acc", "--json")
    assert [e["pool"] for e in json.loads(done.stdout)] == ["good"], done.stderr


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (Choice(), "has no column pool; say which it is: --pool COLUMN; it has recipe, seed, lr, acc, epoch"),
        (Choice("recipe"), r"has several numbers \(lr, acc, epoch\); name those that count: --metric"),
        (Choice("recipe", metrics=("loss",)), "--metric: .* has no loss"),
        (Choice("recipe", metrics=("acc",)), "has no pool named control"),
        (Choice("recipe", None, "none", ("acc",)), "--control: .* has no pool 'none'; its pools are baseline, good"),
        (Choice("recipe", "number", "baseline", ("acc",)), "--seed: .* has no column number"),
        (Choice("recipe", None, "baseline", ("acc",), {"x": "1"}), "--where x=1: .* has no column x"),
        (Choice("recipe", None, "baseline", ("acc",), {"lr": "9"}), "holds no results that --where leaves"),
        (Choice("recipe", "lr", "baseline", ("acc",)), "the seed is no whole number"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_or_missing_is_refused(tmp_path: Path, choice: Choice, says: str) -> None:
    with pytest.raises(DataError, match=says):
        ranked(wide(tmp_path / "r.csv", RUNS), choice)


def test_columns_that_may_each_be_meant_are_refused(tmp_path: Path) -> None:
    rows = [{"pool": "control", "Pool": "a", "seed": 0, "acc": 1}]
    with pytest.raises(DataError, match="pool, Pool may each be the pool; say which: --pool"):
        ranked(wide(tmp_path / "r.csv", rows), Choice())
    (tmp_path / "s.csv").write_text("pool,seed,acc,acc\ncontrol,0,1,2\n")
    with pytest.raises(DataError, match="two columns named acc"):
        ranked(tmp_path / "s.csv", Choice())
    (tmp_path / "t.csv").write_text("pool,seed,acc\ncontrol,0,1\n,0,2\n")
    with pytest.raises(DataError, match=r"line 3 has no pool"):
        ranked(tmp_path / "t.csv", Choice())


def test_runs_of_wandb_are_ranked(tmp_path: Path) -> None:
    heard: list[str] = []
    choice = Choice("recipe", "train.seed", "baseline")
    assert ranked(f"wandb:{runs_file(tmp_path / 'r.jsonl')}", choice, tell=heard.append) == [("good", 3, "helps")]
    assert heard[0] == "1 run(s) that have not finished are left out: going"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no run that has finished"), ("[1]\n", "line 1 is no run"), ("{\n", "line 1 is no JSON"),
        ('{"config": {}}\n', "needs config and one of summary"),
        ('{"config": 3, "summary": {}}\n', "config is no object"),
        ('{"config": {}, "summary": {}, "summaryMetrics": {}}\n', "needs config and one of"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_runs_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.jsonl").write_text(text)
    assert says in the_error(run_djsb("rank", "--from", f"wandb:{tmp_path / 'r.jsonl'}"))


def test_what_was_exported_to_mlflow_is_ranked_as_the_results(
    probed: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = copied(probed, tmp_path / "copy")
    export(target(study, "mlflow", store="files"))
    (file := study.root / "r.csv").write_text(results(study.study, "csv"))
    expected = rank(file, "mean-of-changes", [], 0.95)
    choice = Choice()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = rank("mlflow:tiny", "mean-of-changes", [], 0.95, choice=choice, folder=study.study)
    assert [(e["pool"], e["change"], e["seeds"]) for e in found] == [
        (e["pool"], pytest.approx(e["change"]), e["seeds"]) for e in expected
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(study, "files"))
    assert rank("mlflow:tiny", "mean-of-changes", [], 0.95, choice=choice) == found
    with pytest.raises(DataError, match=r"no experiment 'other' in MLflow; there are .*tiny"):
        rank("mlflow:other", "mean-of-changes", [], 0.95)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(DataError, match="set MLFLOW_TRACKING_URI"):
        rank("mlflow:tiny", "mean-of-changes", [], 0.95, folder=study.root)
