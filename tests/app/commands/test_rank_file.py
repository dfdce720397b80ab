"""Results of elsewhere through `djsb rank --from`: the same evidence, and one line for whatever is wrong."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.commands.export import results
from app.commands.rank_file import rank
from engine.base.errors import DataError, DjsbError
from engine.evidence.claims import Looks
from engine.evidence.effects import effects
from engine.evidence.ranking import leaderboard
from engine.records.metric import Metric
from engine.study.view import view_study
from tests.app.report.test_page import Fake
from tests.conftest import DJSB, fuzz, run_djsb, the_error

HEAD = "pool,seed,metric,value\n"
KEYS = (
    "change",
    "std",
    "ci_low",
    "ci_high",
    "seeds",
    "metrics",
    "verdict",
    "p_best",
    "p",
    "q",
    "shrunk",
    "values",
    "bound",
)
Line = tuple[str, int, str, object]


def recorded(file: Path, lines: list[Line]) -> Path:
    """A file of results."""
    with file.open("w", encoding="utf-8", newline="") as text:
        csv.writer(text).writerows([("pool", "seed", "metric", "value"), *lines])
    return file


def made(pools: dict[str, float], seeds: int = 4) -> list[Line]:
    """Two metrics of the control and of pools that gain so many percent in both; the loss is better when low."""
    rng = np.random.default_rng(0)
    return [
        (pool, seed, metric, base * (1 + sign * gain / 100) + rng.normal(0, 0.002))
        for pool, gain in {"control": 0.0, **pools}.items()
        for seed in range(seeds)
        for metric, base, sign in (("accuracy", 0.5, 1), ("loss", 2.0, -1))
    ]


def read(file: Path, *args: object) -> list[dict[str, Any]]:
    """The leaderboard as the command line prints it."""
    done = run_djsb("rank", "--from", file, "--json", *args)
    assert done.returncode == 0 and done.stderr.startswith("metrics: "), done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_results_in_any_order_are_ranked_as_a_studys(tmp_path: Path) -> None:
    lines = made({"good": 10.0, "same": 0.0, "bad": -10.0})
    found = read(recorded(tmp_path / "r.csv", lines), "--lower", "loss")
    assert [(e["pool"], e["verdict"], e["seeds"]) for e in found] == [
        ("good", "helps", 4), ("same", "unclear", 4), ("bad", "hurts", 4)
    ]  # fmt: skip
    assert found[0]["change"] == pytest.approx(10.0, abs=0.5)
    assert found[0]["metrics"] == {"accuracy": pytest.approx(10.0, abs=1), "loss": pytest.approx(10.0, abs=1)}
    assert sum(e["p_best"] for e in found) == pytest.approx(1)
    assert found[0].keys() == {"pool", *KEYS, "skipped"}
    np.random.default_rng(1).shuffle(lines)
    shuffled = recorded(tmp_path / "s.csv", lines)
    assert json.loads(json.dumps(rank(shuffled, "mean-of-changes", ["loss"], 0.95))) == found

    table: dict[str, dict[int, dict[str, float | None]]] = {}
    for pool, seed, metric, value in lines:
        table.setdefault(pool, {}).setdefault(seed, {})[metric] = float(str(value))
    metrics = [Metric("accuracy", True, 0, 1), Metric("loss", False, 0, 9)]
    expected = effects(table, dict.fromkeys(("good", "same", "bad"), "control"), metrics, looks=Looks((4,)))
    assert [e["change"] for e in found] == pytest.approx([e.change for e in expected])
    assert [e["ci_low"] for e in found] == pytest.approx([e.ci_low for e in expected])


def test_options_change_the_answer(tmp_path: Path) -> None:
    file = recorded(tmp_path / "r.csv", made({"p": 10.0}))
    mixed = rank(file, "mean-of-changes", [], 0.95, ["loss"])[0]
    assert mixed["change"] == pytest.approx(0, abs=0.5)  # both count as better when high
    wide, narrow = (rank(file, "change-of-means", ["loss"], confidence)[0] for confidence in (0.99, 0.8))
    assert wide["change"] == narrow["change"] == pytest.approx(10.0, abs=0.5)
    assert wide["ci_low"] < narrow["ci_low"] < narrow["ci_high"] < wide["ci_high"]


def test_the_table_is_that_of_a_study(tmp_path: Path) -> None:
    file = recorded(tmp_path / "r.csv", [*made({"p\x1b[31m": 10.0}), ("lone", -7, "accuracy", 0.9)])
    done = run_djsb("rank", "--from", file, "--lower", "loss", "--aggregate", "change-of-means", "--confidence", "0.9")
    assert done.returncode == 0, done.stderr
    head, first, second = done.stdout.splitlines()
    assert all(f" {name} " in head for name in ("verdict", "pool", "change %", "interval", "P(best)", "seeds"))
    assert first.startswith("1     ▲ helps")
    assert "\x1b" not in done.stdout
    assert "lone" in second
    assert "no result of control at seed -7" in second


def test_one_seed_has_no_interval_and_is_unclear(tmp_path: Path) -> None:
    lines = [*made({"p": 0.0}), ("one", 2, "accuracy", 0.9), ("one", 2, "loss", 0.1)]
    first = rank(recorded(tmp_path / "r.csv", lines), "mean-of-changes", ["loss"], 0.95)[0]
    assert (first["pool"], first["seeds"], first["verdict"]) == ("one", 1, "unclear")
    assert (first["std"], first["ci_low"], first["ci_high"]) == (None, None, None)
    assert first["change"] > 50


def test_a_metric_whose_name_says_lower_is_not_ranked_the_other_way(tmp_path: Path) -> None:
    file = recorded(
        tmp_path / "r.csv",
        [(p, s, "loss", v + s / 100) for p, v in (("control", 2.0), ("worse", 2.6)) for s in range(4)],
    )
    said = the_error(run_djsb("rank", "--from", file))
    assert "loss is better when low by its name; add --lower loss, or --higher loss" in said
    assert rank(file, "mean-of-changes", ["loss"], 0.95)[0]["verdict"] == "hurts"
    assert rank(file, "mean-of-changes", [], 0.95, ["loss"])[0]["verdict"] == "helps"
    with pytest.raises(DataError, match="loss is given to --lower and to --higher"):
        rank(file, "mean-of-changes", ["loss"], 0.95, ["loss"])


def test_directions_are_told_and_those_that_are_assumed_named(tmp_path: Path) -> None:
    file = recorded(
        tmp_path / "r.csv", [(p, s, m, 1 + s) for p in ("control", "p") for s in (0, 1) for m in ("acc", "q")]
    )
    heard: list[str] = []
    rank(file, "mean-of-changes", [], 0.95, tell=heard.append)
    rank(file, "mean-of-changes", ["q"], 0.95, tell=heard.append)
    assert heard == [
        "metrics: acc (higher is better), q (higher is better); q: nothing is known of it, --lower turns it",
        "metrics: acc (higher is better), q (lower is better)",
    ]


@pytest.mark.parametrize("pool", ["a", "control"])
def test_a_seed_without_a_number_is_as_if_absent_and_named(tmp_path: Path, pool: str) -> None:
    lines: list[Line] = [(p, s, "acc", v + s / 1000) for p, v in (("control", 0.5), ("a", 0.55)) for s in range(5)]
    without = [line for line in lines if line[:2] != (pool, 4)]
    (absent,) = rank(recorded(tmp_path / "r.csv", without), "mean-of-changes", [], 0.95)
    (lost,) = rank(recorded(tmp_path / "s.csv", [*without, (pool, 4, "acc", "NaN")]), "mean-of-changes", [], 0.95)
    assert {**lost, "skipped": []} == {**absent, "skipped": []}
    assert (lost["seeds"], lost["verdict"]) == (4, "helps")
    assert lost["skipped"][0] == ("" if pool == "a" else "control: ") + "no number at seed 4"


@pytest.mark.parametrize("value", ["", "nan", "-inf", "1e300", None])
def test_a_value_that_is_no_number_is_named_and_its_metric_left_out(tmp_path: Path, value: str | None) -> None:
    lines = [line for line in made({"p": 10.0, "q": 5.0}) if line[:3] != ("p", 2, "loss")]
    if value is not None:
        lines.append(("p", 2, "loss", value))
    first, second = rank(recorded(tmp_path / "r.csv", lines), "mean-of-changes", ["loss"], 0.95)
    assert first["skipped"] == ["loss: a value is missing or not a number", "loss: no number of p at seed 2"]
    assert (first["metrics"].keys(), first["seeds"]) == ({"accuracy"}, 4)
    assert (second["metrics"].keys(), second["skipped"]) == ({"accuracy", "loss"}, [])


def test_more_columns_blank_lines_and_equal_repeats_do_no_harm(tmp_path: Path) -> None:
    plain = recorded(tmp_path / "plain.csv", made({"p": 10.0}))
    rows = list(csv.reader(plain.read_text().splitlines()))
    text = "\ufeff" + "\r\n".join(
        f'{v},"a, note", {m} ,{s},{p}' if i else "value,note,metric, seed,pool" for i, (p, s, m, v) in enumerate(rows)
    )
    other = tmp_path / "other.csv"
    other.write_text(f"{text}\r\n\r\n{text.splitlines()[-1]}\r\n", encoding="utf-8", newline="")
    assert rank(other, "mean-of-changes", ["loss"], 0.95) == rank(plain, "mean-of-changes", ["loss"], 0.95)


def test_exported_results_are_read(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "study")
    fake.probe()
    file = tmp_path / "r.csv"
    file.write_text(results(tmp_path / "study", "csv"))
    with (opened := view_study(tmp_path / "study")).store:
        expected = [r for r in (e.to_json() for e in leaderboard(opened)) if r["verdict"] != "degenerate"]
    found = rank(file, "mean-of-changes", [], 0.95)
    assert [e["pool"] for e in found] == [e["pool"] for e in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert {k: ours[k] for k in ("change", "std", "ci_low", "ci_high", "seeds", "p_best")} == pytest.approx(
            {k: theirs[k] for k in ("change", "std", "ci_low", "ci_high", "seeds", "p_best")}
        )

    # later stages train on other numbers of samples, each with a control of its own
    with fake.store.transaction():
        fake._later(12.0)
    file.write_text(results(tmp_path / "study", "csv"))
    more = rank(file, "mean-of-changes", [], 0.95)
    assert len(more) > len(found)
    changes = {e["pool"]: e["change"] for e in more}
    assert all(changes[e["pool"]] == pytest.approx(e["change"]) for e in found)


def test_a_pool_counts_once_where_it_trained_longest(tmp_path: Path) -> None:
    scores = {("control", 10): 0.4, ("control", 20): 0.5, ("p", 10): 0.3, ("p", 20): 0.6, ("q", 10): 0.5}
    text = "".join(f"{pool},{seed},a,{v},{n}\n" for (pool, n), v in scores.items() for seed in (0, 1))
    file = tmp_path / "r.csv"
    file.write_text("pool,seed,metric,value,samples\n" + text)
    found = rank(file, "mean-of-changes", [], 0.95)
    assert {e["pool"]: e["change"] for e in found} == {"p": pytest.approx(20.0), "q": pytest.approx(25.0)}


CONTROL = "control,0,a,0.5\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", ["first line", "pool,seed,metric,value"]),
        (HEAD, ["holds no results"]),
        ("pool;seed;metric;value\n", ["'pool;seed;metric;value'", "commas"]),
        ("pool,seed,metric,value,value\n", ["each once"]),
        ("pool,seed,metric\np,0,a\n", ["pool,seed,metric,value"]),
        (HEAD + "p,0,a,0.5\n", ["no pool named control"]),
        (HEAD + CONTROL, ["no pool but control"]),
        (HEAD + CONTROL + "p,0,a,good\n", ["line 3: p, seed 0, a", "'good' is no number"]),
        (HEAD + CONTROL + "p,0,a,0,5\n", ["line 3: more fields than columns"]),
        (HEAD + CONTROL + "p,first,a,0.5\n", ["line 3: p, seed first, a", "whole number"]),
        (HEAD + CONTROL + ",0,a,0.5\n", ["line 3: the pool or the metric is empty"]),
        (HEAD + CONTROL + "p,0,a,0.5\np,00,a,0.6\n", ["line 4: p, seed 00, a has two different values"]),
        (HEAD + CONTROL + "p,0,a,0.5\np,0,a,\n", ["two different values"]),
        (HEAD + f"p,0,a,{'9' * 200_000}\n", ["no CSV file"]),
        ((HEAD + CONTROL + "p,0,a,0.5\n").encode("utf-16"), ["no CSV file in UTF-8"]),
    ],
    ids=lambda v: None if isinstance(v, list) else "",
)
def test_a_bad_file_is_refused_with_a_remedy(tmp_path: Path, content: str | bytes, says: list[str]) -> None:
    file = tmp_path / "r.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as error:
        rank(file, "mean-of-changes", [], 0.95)
    assert str(file) in str(error.value)
    assert all(text in str(error.value) for text in says), error.value


def test_a_file_that_cannot_be_used_ends_in_one_line(tmp_path: Path) -> None:
    assert "gone.csv cannot be read (No such file" in the_error(run_djsb("rank", "--from", tmp_path / "gone.csv"))
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory"):
        rank(tmp_path, "mean-of-changes", [], 0.95)
    file = recorded(tmp_path / "r.csv", made({"p": 1.0}))
    assert "no metric los; its metrics are accuracy, loss" in the_error(
        run_djsb("rank", "--from", file, "--lower", "los")
    )
    assert run_djsb("rank", "--from", file, "--confidence", "95").returncode == 2
    assert run_djsb("rank", tmp_path, "--lower", "loss").returncode == 2


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_a_terminal_that_lacks_letters_gets_a_result(tmp_path: Path, encoding: str) -> None:
    file = recorded(tmp_path / "r.csv", [(p, s, "acc", 1 + s) for p in ("control", "Ω–ü") for s in (0, 1)])
    env = {**os.environ, "PYTHONIOENCODING": encoding, "LANG": "C", "LC_ALL": "C"}
    done = subprocess.run([DJSB, "rank", "--from", file], env=env, capture_output=True, timeout=240, check=False)
    assert (done.returncode, b"internal error" in done.stderr) == (0, False), done.stderr
    assert b"unclear" in done.stdout


ODD = st.sampled_from(["nan", "inf", "1e999", "", '"', "x,\n", "\x00", "9" * 30, "0x1", "１", "1_0", " 1", "\u2028"])
CELL = st.sampled_from(["control", "a", "0", "acc", "0.5"]) | ODD | st.floats().map(str) | st.text(max_size=5)
SOUND = st.tuples(st.sampled_from(["control", "a", "b"]), st.sampled_from("012"), st.sampled_from(["acc", "q"]), CELL)


@fuzz
@given(st.lists(SOUND.map(list) | st.lists(CELL, max_size=6), max_size=12), st.booleans(), st.binary(max_size=4))
def test_any_file_is_ranked_or_refused(tmp_path: Path, rows: list[list[str]], quotes: bool, end: bytes) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows) if quotes else text.write("\n".join(",".join(row) for row in rows))
    file = tmp_path / "r.csv"
    file.write_bytes(HEAD.encode() + text.getvalue().encode("utf-8", "surrogatepass") + end)
    for aggregate in ("mean-of-changes", "change-of-means"):
        with contextlib.suppress(DjsbError):
            json.dumps(rank(file, aggregate, [], 0.95), allow_nan=False)
