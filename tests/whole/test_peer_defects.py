"""The eleven defects measured in the peer (facts/peer-dj-sandbox.md), one test each: ours gets it right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.base.errors import DjsbError, StoreError, StudyError
from engine.data.cuts import Column, Cut, StatisticColumn, keeps, single_op_cuts
from engine.data.dataset import Dataset
from engine.data.recipes import read_recipe
from engine.data.statistics import plan_ops
from engine.evidence.comparison import paired_changes
from engine.evidence.effects import effects
from engine.evidence.ranking import leaderboard
from engine.journal.results import Result
from engine.journal.store import Store
from engine.proposals.queue import ensure_trials, record_cuts
from engine.records.metric import Metric
from engine.records.pool import BUCKETS, Layer, Pool, Slice
from engine.search.grid import combine, probe, scale
from engine.study.file import parse_study
from engine.study.opened import OpenStudy, open_study
from tests.conftest import TEXT_ONLY, Row, Tiny, caption, make_tiny, merged, run_djsb, run_until, the_error, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
ACCURACY, RECALL = Metric("accuracy", True, 0, 1), Metric("recall", True, 0, 1)


def column(name: str, values: object) -> StatisticColumn:
    """A statistic of given values."""
    low = np.asarray(values, np.float64)
    return StatisticColumn(f"{name}_filter", name, (), Column(low, low))


def cut(columns: list[StatisticColumn], size: int, seed: int = 0) -> dict[str, Cut]:
    """Label → bucket, of all good rows."""
    good = np.ones(len(columns[0].column.low), bool)
    return {c.label: c for c in single_op_cuts(columns, good, 3, size, None, seed)}


# 1 · Ties: a constant statistic's pools are the previous statistic's split; no warning.


def test_01_ties_never_reuse_the_previous_statistics_split() -> None:
    rng = np.random.default_rng(0)
    first = rng.permutation(300).astype(float)
    tied = rng.choice([1.0, 1.0, 1.0, 2.0], 300)
    found = cut([column("first", first), column("constant", np.ones(300)), column("tied", tied)], 50)
    assert all(found[f"first {b}"].reason is None for b in BUCKETS[3])
    for bucket in BUCKETS[3]:
        assert (
            found[f"constant {bucket}"].reason == "1 distinct value cannot be cut into 3 buckets without splitting ties"
        )
        assert "2 distinct values" in (found[f"tied {bucket}"].reason or "")
    # two statistics that order the rows alike are told apart from a signal of their own
    twin = cut([column("first", first), column("twin", 2 * first)], 50)
    assert twin["twin low"].reason == "keeps the same rows as first low"


def test_01_ties_fall_into_one_bucket_whatever_their_order() -> None:
    values = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], [10, 90, 100, 90, 10])
    found = cut([column("steps", values)], 50)
    kept = [keeps(found[f"steps {b}"].slice, column("steps", values).column) for b in BUCKETS[3]]
    assert np.sum(kept, axis=0).tolist() == [1] * 300  # every row in one bucket
    for value in np.unique(values):
        assert sum(k[values == value].any() for k in kept) == 1  # every value in one bucket


# 2 · Not reproducible: the same seed then picks other rows.

ROWS_OF_POOLS = """
import json, sys
import numpy as np
from engine.study.opened import open_study
from pathlib import Path
with (o := open_study(Path(sys.argv[1]), 1)).store:
    pools = [c.pool for c in o.cuts if c.reason is None]
    ids = [row["id"] for start, stop in o.data.chunks(10**6) for row in o.data.reader.read(start, stop)]
    print(json.dumps({p.id: [[ids[r] for r in o.realise(p, seed)] for seed in (0, 1)] for p in pools}))
"""


@pytest.mark.long
def test_02_not_reproducible_is_what_our_pools_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[Row] = [{"id": f"r{i}", "text": caption(rng, "red")} for i in range(300)]
    found = []
    for hash_seed, order in (("0", np.arange(300)), ("1", rng.permutation(300))):
        tiny = Tiny(tmp_path / hash_seed, rows, [])
        write_jsonl(tiny.train_file, [rows[i] for i in order])
        tiny.set(TEXT_ONLY)
        done = subprocess.run(
            [sys.executable, "-c", ROWS_OF_POOLS, str(tiny.study)],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.append(json.loads(done.stdout))
    assert len(found[0]) >= 3
    assert found[0] == found[1]  # other hashes, the file's rows shuffled: the same rows by id, in the same order
    assert all(first != second for first, second in found[0].values())  # another seed is another sample


def scored(tiny: Tiny, gains: Mapping[str, float]) -> OpenStudy:
    """The opened study with a finished probe whose buckets gain so many percent (0 where not named)."""
    opened = open_study(tiny.study, 1)
    opened.record()
    record_cuts(opened)
    labels = {}
    for proposal in probe(opened):
        ensure_trials(opened, proposal)
        labels |= {p.to_pool().id: p.label for p in proposal.pools}
    noise = np.random.default_rng(0)
    for trial in opened.store.query("SELECT id, pool FROM trials ORDER BY id"):
        score = 0.5 * (1 + gains.get(labels[trial["pool"]], -1.0) / 100) + noise.normal(0, 1e-4)
        opened.store.put("metrics", {"trial": trial["id"], "name": "accuracy", "value": score})
        opened.store.put("metrics", {"trial": trial["id"], "name": "likelihood", "value": score})
        opened.store.execute("UPDATE trials SET state = 'COMPLETE', seconds = 1 WHERE id = ?", (trial["id"],))
    return opened


def test_02_combinations_are_the_same_pools_in_the_same_order(tmp_path: Path) -> None:
    asked = []
    for name in ("first", "second"):
        tiny = make_tiny(tmp_path / name)
        tiny.set({"train": {"batch_size": 4}, "pools": {"size": 20}, "search": {"seeds": 3}})
        opened = scored(tiny, {"text_len high": 30, "num_words high": 20})
        with opened.store:
            proposals = combine(opened)
            assert proposals
            made = [p.to_pool() for p in proposals[0].pools]
            asked.append([(p.id, opened.realise(p, 1).tolist()) for p in made])
    assert asked[0] == asked[1]


# 3 · Resume loses finished work.


def test_03_resume_keeps_finished_work(stopped: Tiny) -> None:
    def finished() -> dict[str, tuple[object, ...]]:
        with (opened := open_study(stopped.study, 1)).store:
            rows = opened.store.query("SELECT * FROM trials WHERE state = 'COMPLETE'")
            return {r["id"]: tuple(r.values()) for r in rows}

    before = finished()
    assert len(before) == 2
    run_until(stopped, 100)
    after = finished()
    assert len(after) == 7
    assert {trial: after[trial] for trial in before} == before  # not even their times changed
    with (opened := open_study(stopped.study, 1)).store:
        attempts = opened.store.query("SELECT trial, COUNT(*) AS n FROM costs WHERE trial IS NOT NULL GROUP BY trial")
        assert {r["n"] for r in attempts} == {1}


# 4 · Every run-time failure exits with code 0, with about 100 lines of traceback.


def test_04_failures_at_run_time_exit_non_zero_with_one_line(tiny: Tiny, tmp_path: Path) -> None:
    tiny.set({"model": {"checkpoint": "../gone"}})
    assert "gone is no transformers checkpoint" in the_error(run_djsb("auto", tiny.study, "--workers", 1))
    (tiny.root / "data" / "train.jsonl").unlink()
    assert "train.jsonl" in the_error(run_djsb("pools", tiny.study))
    assert "djsb auto or djsb pools first" in the_error(run_djsb("rank", tmp_path))
    assert run_djsb("pools", "--no-such-option").returncode == 2


def test_04_a_worker_that_fails_is_recorded_and_retried_once(tiny: Tiny) -> None:
    """Every trial fails twice, for good, and the run says so."""
    command = {"run": [sys.executable, "-c", "raise SystemExit(3)", "{pool}", "{seed}"], "metrics": [{"name": "score"}]}
    asked = {"task": "command", "command": command, "evaluation": {"label": None}, "ops": {"words_num_filter": {}}}
    tiny.set(merged(TEXT_ONLY, asked))
    done = run_djsb("auto", tiny.study, "--until", "probe", "--workers", 1)
    assert "Traceback" not in done.stdout + done.stderr
    with (opened := open_study(tiny.study, 1)).store:
        states = opened.store.query("SELECT attempts, error FROM trials WHERE state = 'FAIL'")
        assert states and {s["attempts"] for s in states} == {2}
        assert all(s["error"] for s in states)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("djsb: ")


# 5 · NaN statistics give mis-sorted pools; a missing metric is a TypeError; a NaN metric leaves the order unchanged.


def test_05_nan_statistics_are_in_no_bucket() -> None:
    values = np.arange(300.0)
    values[::7] = np.nan
    found = cut([column("holes", values)], 50)
    kept = [keeps(found[f"holes {b}"].slice, column("holes", values).column) for b in BUCKETS[3]]
    assert np.sum(kept, axis=0).tolist() == (~np.isnan(values)).astype(int).tolist()
    assert max(values[kept[0]]) < min(values[kept[1]]) <= max(values[kept[1]]) < min(values[kept[2]])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None], ids=["nan", "infinite", "missing"])
def test_05_a_metric_that_is_no_number_is_named_and_left_out(value: float | None) -> None:
    control = {0: {"accuracy": 0.5, "recall": 0.4}, 1: {"accuracy": 0.5, "recall": 0.4}}
    bad = {0: {"accuracy": 0.55, "recall": 0.9}, 1: {"accuracy": 0.55, "recall": value}}
    if value is None:
        del bad[1]["recall"]
    changes, by_metric, skipped = paired_changes(bad, control, [ACCURACY, RECALL], "mean-of-changes")
    assert list(changes.values()) == pytest.approx([10.0, 10.0])
    assert set(by_metric) == {"accuracy"}
    assert skipped == ("recall: a value is missing or not a number",)
    # and the order follows what is left
    worse = {s: {"accuracy": 0.4, "recall": 0.4} for s in (0, 1)}
    found = effects({"bad": bad, "worse": worse, "c": control}, {"worse": "c", "bad": "c"}, [ACCURACY, RECALL])
    assert [e.pool for e in found] == ["bad", "worse"]
    assert found[0].skipped == skipped


def test_05_a_pool_without_any_number_comes_last() -> None:
    control = {s: {"accuracy": 0.5} for s in (0, 1)}
    scores = {
        "c": control,
        "none": {s: {"accuracy": float("nan")} for s in (0, 1)},
        "bad": {s: {"accuracy": 0.1} for s in (0, 1)},
    }
    found = effects(scores, {"none": "c", "bad": "c"}, [ACCURACY])
    assert [(e.pool, e.change, e.verdict) for e in found[1:]] == [("none", None, "unclear")]


# 6 · A falsy output (0.0, {}) crashes; np.float32 truncates the saved context.


def test_06_falsy_outputs_and_numpy_numbers_survive_the_store(tmp_path: Path) -> None:
    with Store(tmp_path / "study.db") as store:
        values = {"zero": 0.0, "single": np.float32(0.1), "double": np.float64(1 / 3), "whole": np.int64(3)}
        store.put("metrics", [{"trial": "t", "name": n, "value": v} for n, v in values.items()])
        for name, content in (("empty", {}), ("nothing", []), ("zero", 0.0), ("no", False), ("numbers", values)):
            Result[Any](name, Any).put(store, "c", content)
    with Store(tmp_path / "study.db") as store:
        found = {r["name"]: r["value"] for r in store.query("SELECT name, value FROM metrics")}
        assert found == {"zero": 0.0, "single": float(np.float32(0.1)), "double": 1 / 3, "whole": 3.0}
        assert all(type(v) is float for v in found.values())
        assert [Result[Any](n, Any).get(store, "c") for n in ("empty", "nothing", "zero", "no")] == [{}, [], 0.0, False]
        assert Result[Any]("numbers", Any).get(store, "c") == found


def test_06_a_score_of_zero_is_a_score(tiny: Tiny) -> None:
    tiny.set({"train": {"batch_size": 4}, "search": {"seeds": 2}})
    with (opened := scored(tiny, {"text_len high": -100.0})).store:
        opened.store.execute(
            "UPDATE metrics SET value = 0.0 WHERE trial IN (SELECT t.id FROM trials t JOIN pools p ON p.id = t.pool "
            "WHERE p.label = 'text_len high')"
        )
        zero = next(r for r in leaderboard(opened) if r.label == "text_len high")
        assert zero.change == pytest.approx(-100.0)
        assert zero.seeds == 2
        assert zero.skipped == []


# 7 · eval() on outputs: a string output ran a shell command.


def test_07_nothing_evaluates_strings(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = f"__import__('os').system('touch {mark}')"
    rng = np.random.default_rng(0)
    rows: list[Row] = [{"id": f"{code}#{i}", "text": f"{caption(rng, 'red')} {code}"} for i in range(60)]
    tiny = Tiny(tmp_path / "t", rows, [])
    write_jsonl(tiny.train_file, rows)
    change = merged(TEXT_ONLY, {"name": code, "pools": {"size": 10}})
    done = run_djsb("pools", tiny.set(change), "--workers", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 60
    for text in (
        f"name: !!python/object/apply:os.system ['touch {mark}']",
        f"name: t\ndataset: {{path: x}}\nops: {{{json.dumps(code)}: {{}}}}",
        f"name: t\ndataset: {{path: x}}\nops: {{text_length_filter: {{}}}}\nbudget: {json.dumps(code)}",
        f"name: t\ndataset: {{path: x}}\nops: {{text_length_filter: {{}}}}\ntrain: {{epochs: {json.dumps(code)}}}",
    ):
        with pytest.raises(DjsbError):
            plan_ops(parse_study(text).ops, Dataset(tiny.train_file, parse_study(text).dataset), tmp_path)
    for op in (
        f"text_length_filter: {{min_len: {json.dumps(code)}}}",
        f"python_lambda_mapper: {{lambda_str: {json.dumps(code)}}}",
        f"!!python/object/apply:os.system ['touch {mark}']",
    ):
        with pytest.raises(DjsbError):
            read_recipe(f"process:\n- {op}\n", "recipe", tmp_path)
    assert not mark.exists()


def test_07_a_metric_that_is_a_string_of_code_is_only_text(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = f"__import__('os').system('touch {mark}')"
    with Store(tmp_path / "study.db") as store:
        store.put("metrics", {"trial": "t", "name": code, "value": code})
        Result[Any]("recipe", Any).put(store, "c", {"label": code})
        with pytest.raises(StoreError, match=r"a row with value .* is damaged or was tampered with"):
            store.query("SELECT name, value FROM metrics")
        assert Result[Any]("recipe", Any).get(store, "c") == {"label": code}
    assert not mark.exists()


# 8 · Combination drops exact duplicate rows (60 → 55). A duplication path given as a string is iterated by character.


def test_08_exact_duplicate_rows_survive(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[Row] = [{"text": caption(rng, "red")} for _ in range(55)]
    rows += rows[:5]
    tiny = Tiny(tmp_path, rows, [])
    write_jsonl(tiny.train_file, rows)
    tiny.set(merged(TEXT_ONLY, {"dataset": {"id": None}}))
    with (opened := open_study(tiny.study, 1)).store:
        assert opened.scan.bad == 0
        assert len(np.unique(opened.scan.keys)) == 60
        assert sorted(opened.realise(Pool((Layer(),), 60))) == list(range(60))
        everything = Slice("text_length_filter", "text_len", 0.0, None)
        words = Slice("words_num_filter", "num_words", 0.0, None)
        assert sorted(opened.realise(Pool((Layer((everything, words)),), 60))) == list(range(60))


def test_08_a_repetition_is_a_whole_number(tiny: Tiny) -> None:
    tiny.set({"train": {"batch_size": 4}, "scale": {"rates": [2, 8]}, "search": {"seeds": 3}})
    with (opened := scored(tiny, {"text_len high": 30})).store:
        asked = [p for proposal in scale(opened) for p in proposal.pools if p.kind == "repetition"]
        assert [(p.to_pool().repetition, p.to_pool().samples) for p in asked] == [
            (rate, rate * opened.pool_size) for rate in (2, 8)
        ]
        for request in asked:  # its rows are distinct; each is seen `repetition` times an epoch
            rows = opened.realise(request.to_pool())
            assert len(np.unique(rows)) == len(rows) == opened.pool_size
    for wrong in ("248", "[2, 'x']", "[1]", "[2.5]"):
        with pytest.raises(StudyError, match=r"scale\.rates"):
            parse_study(f"name: t\ndataset: {{path: x}}\nops: [text_length_filter]\nscale: {{rates: {wrong}}}")


# 9 · One tiny combination sets the size of every pool. No cap on the 2^N − 1 combinations.

OPS = {name: {} for name in ("text_length_filter", "words_num_filter", "alphanumeric_filter")}
REPETITION = {"character_repetition_filter": {"rep_len": 2}}


def test_09_a_tiny_combination_does_not_set_the_size_of_the_others(tiny: Tiny) -> None:
    tiny.set({"train": {"batch_size": 4}, "search": {"seeds": 3}, "combine": {"top": 3, "clusters": 0}})
    # short texts of many words: hardly any
    with (opened := scored(tiny, {"text_len low": 30, "num_words high": 20})).store:
        (proposal, *_) = combine(opened) or [None]
        assert proposal is None  # nothing is left that combines
    tiny.set({"train": {"batch_size": 4}, "search": {"seeds": 3}, "combine": {"top": 3, "clusters": 0},
              "ops": {"text_length_filter": {}, "words_num_filter": {}, **REPETITION}})  # fmt: skip
    gains = {"text_len low": 30, "num_words high": 20, "char_rep_ratio low": 10}
    with (opened := scored(tiny, gains)).store:
        floor = opened.pool_size // 2
        proposal = combine(opened)[0]
        sizes = {p.to_pool().size for p in proposal.pools}
        assert len(sizes) == 1
        assert floor <= sizes.pop() <= opened.pool_size
        assert f"left out, under {floor} rows: text_len low + num_words high (" in proposal.reason
        assert "text_len low + num_words high" not in [p.label for p in proposal.pools]
        assert "text_len low + char_rep_ratio low" in [p.label for p in proposal.pools]


def test_09_the_number_of_combinations_has_a_cap(tiny: Tiny) -> None:
    ops = {**OPS, **REPETITION}
    gains = {f"{s} mid": 10 + i for i, s in enumerate(("text_len", "num_words", "alnum_ratio", "char_rep_ratio"))}
    asked = {}
    for cap in (5, 8, 127):
        tiny.set({"ops": ops, "train": {"batch_size": 2}, "search": {"seeds": 3},
                  "combine": {"top": 4, "clusters": 0, "max": cap, "floor": 0.01}})  # fmt: skip
        with (opened := scored(tiny, gains)).store:
            asked[cap] = [sum(q.kind == "combination" for q in p.pools) for p in combine(opened)]
        assert not any(asked[cap][3:])  # further seeds of the control alone
    assert asked[5][:3] == [5] * 3
    assert asked[8][:3] == [8] * 3
    assert asked[127][:3] == [2**4 - 1 - 4] * 3  # all of the lattice above its four single slices


# 10 · HPO does not run. An invalid target is logged and kept; with max_iter_num = 0 it never ends.


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"search": {"strategy": "annealing"}}, ["search.strategy", "grid", "'annealing'"]),
        ({"search": {"seeds": 0}}, ["search.seeds", "greater than or equal to 1"]),
        ({"evaluation": {"aggregate": "best"}}, ["evaluation.aggregate", "'mean-of-changes'", "'best'"]),
        ({"task": "llm"}, ["task", "clip", "'llm'"]),
        ({"evaluation": {"metrics": ["bleu"]}}, ["evaluation.metrics: bleu not measured; choose from accuracy"]),
    ],
    ids=["strategy", "no iteration", "aggregate", "task", "metric"],
)
def test_10_an_invalid_target_is_refused_at_once(stopped: Tiny, change: Row, says: list[str]) -> None:
    stopped.set(change)
    began, before = time.monotonic(), stopped.trials()
    error = the_error(run_djsb("auto", stopped.study, "--workers", 1, timeout=60))
    for part in says:
        assert part in error
    assert stopped.trials() == before  # nothing was trained for it
    assert time.monotonic() - began < 30


def test_10_an_unknown_stage_is_wrong_usage(stopped: Tiny) -> None:
    done = run_djsb("auto", stopped.study, "--until", "tune")
    assert done.returncode == 2
    assert "probe" in done.stderr


# 11 · A newcomer's install: a torch pin that pulls gigabytes, undeclared packages, installed at run time, downloads.


def test_11_newcomers_install_all_at_once_and_nothing_later() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all("==" in pin for pin in pins)
    asked = [*project["dependencies"], *project["optional-dependencies"]["engine"]]
    (torch,) = [d for d in asked if d.startswith("torch")]
    assert torch.startswith("torch==")
    assert [p.split("+")[0] for p in pins if p.startswith("torch==")] == [torch]
    names = {d.split("=")[0].split(">")[0].split("<")[0] for d in asked}
    assert {"aiohttp", "ray"} <= names  # what py-data-juicer imports without saying so
    assert [d for d in asked if d.startswith("py-data-juicer")] == ["py-data-juicer==1.6.1"]
    pinned = {p.split("==")[0].lower().replace("_", "-") for p in pins}
    assert {n.lower() for n in names} <= pinned


def test_11_newcomers_install_nothing_at_run_time() -> None:
    """In a process of its own, since it changes the process for good."""
    code = """
import os, subprocess, sys
from engine.data import datajuicer
from engine.base.errors import OpError
datajuicer.prepare()
for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "PIP_NO_INDEX"):
    assert os.environ[key] == "1", key
def forbidden(*args, **_): raise AssertionError(args)
subprocess.run = subprocess.check_call = subprocess.check_output = subprocess.Popen = forbidden
from data_juicer.utils.lazy_loader import LazyLoader
for call in (lambda: LazyLoader("no_such_module_at_all")._install_package("no-such-package"),
             lambda: LazyLoader("no_such_module_at_all", "no-such-package").anything):
    try:
        call()
    except OpError as error:
        assert "pip install" in str(error), error
    else:
        raise AssertionError("it went on")
print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr[-2000:]
