"""Task command: what the program is given, what is read back, and that nothing of it outlives its trial."""

from __future__ import annotations

import io
import json
import math
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.base.errors import StudyError, TrialError
from engine.study.file import parse_study
from engine.study.opened import open_study
from engine.tasks.command.numbers import Numbers
from engine.tasks.command.task import CommandTask
from engine.tasks.contract import Job, Report
from tests.conftest import DJSB, FUZZ, TEXT_ONLY, Tiny, merged, run_djsb
from tests.engine.base.test_lines import anything

TRAINER = '''
"""A trainer: its score falls with the words of its texts, and differs by seed."""
import json, random, sys
from pathlib import Path

pool, init, seed, out = sys.argv[1:5]
rows = [json.loads(line) for line in open(pool)]
words = sum(len(row["text"].split()) for row in rows) / len(rows)
score = 0.9 - 0.02 * words + random.Random(seed + str(len(rows))).uniform(0, 0.01)
out = Path(out)
with (out / "metrics.jsonl").open("w") as told:
    for step in (1, 2):
        told.write(json.dumps({"step": step, "total": 2, "loss": words / step}) + chr(10))
    told.write(json.dumps({"score": score}) + chr(10))
(out / "model.txt").write_text(json.dumps({"words": words, "init": init, "rows": len(rows)}))
'''
SPAWNER = '''
"""Starts children, one of them in a session of its own that ignores SIGTERM, and waits."""
import subprocess, sys, time
from pathlib import Path

stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
one = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
two = subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True, stdout=subprocess.PIPE)
two.stdout.readline()
Path(sys.argv[1]).write_text(f"{one.pid} {two.pid}")
print('{"step": 1, "loss": 1.0}', flush=True)
time.sleep(600 if len(sys.argv) < 5 else 0)
print('{"score": 0.5}')
'''
BASE = "name: a\ntask: command\ndataset: {path: x}\nops: {}\n"
METRIC = [{"name": "score", "low": 0, "high": 1}]
Points = list[tuple[int, dict[str, float]]]


def settings(tiny: Tiny, script: str, *arguments: str, **command: Any) -> dict[str, Any]:
    """A command study of text around a script beside the study file."""
    tiny.study.mkdir(exist_ok=True)
    (tiny.study / "trainer.py").write_text(script)
    run = [sys.executable, "trainer.py", *(arguments or ("{pool}", "{init}", "{seed}", "{out}"))]
    asked = {
        "task": "command",
        "command": {"run": run, "metrics": METRIC, **command},
        "evaluation": {"label": None},
        "train": {"epochs": 1},
    }
    return merged(merged(TEXT_ONLY, asked), {"ops": {"text_length_filter": {}, "words_num_filter": {}}})


def run(
    tiny: Tiny, tmp_path: Path, rows: list[int], samples: int = 0, dropped: Callable[[], set[str]] = set, **job: Any
) -> tuple[dict[str, dict[str, float]], Points]:
    """One trial in this process."""
    points: Points = []
    report = Report(lambda _kind, content: points.append((content["step"], content["values"])), dropped)
    np.save(tmp_path / "rows.npy", np.array(rows))
    opened = open_study(tiny.study, 1)
    with opened.store:
        asked = Job("t1", str(tmp_path / "rows.npy"), samples or len(rows), 3, None, str(tmp_path / "kept"))
        return CommandTask().run(opened.study, opened.prepared, Job(**{**vars(asked), **job}), report), points


def gone(pids: list[int], seconds: float = 20) -> bool:
    """True once none of the processes runs any more."""
    deadline = time.monotonic() + seconds
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(file: Path) -> list[int]:
    """The process ids that a script has written."""
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text(encoding="utf-8")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [int(p) for p in file.read_text(encoding="utf-8").split()]


def test_a_trial_gets_its_rows_and_gives_curve_metrics_and_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    tiny.set(settings(tiny, TRAINER))
    found, points = run(tiny, tmp_path, [5, 2, 9], init="/some/checkpoint")
    assert [step for step, _ in points] == [1, 2]
    words = np.mean([len(tiny.rows[i]["text"].split()) for i in (5, 2, 9)])
    assert points[0][1]["loss"] == pytest.approx(words)
    assert found["t1"]["score"] == pytest.approx(0.9 - 0.02 * words, abs=0.011)
    assert json.loads((tmp_path / "kept" / "model.txt").read_text()) == {
        "words": words,
        "init": "/some/checkpoint",
        "rows": 3,
    }
    assert not (tiny.study / ".djsb" / "command" / "t1").exists()


def test_a_repeated_pool_is_written_that_often_unless_the_command_is_told_how_much(tiny: Tiny, tmp_path: Path) -> None:
    tiny.set(settings(tiny, TRAINER))
    run(tiny, tmp_path, [1, 2, 3], samples=6)
    assert json.loads((tmp_path / "kept" / "model.txt").read_text())["rows"] == 6
    tiny.set(settings(tiny, TRAINER, "{pool}", "", "{seed}", "{out}", "{samples}"))
    run(tiny, tmp_path, [1, 2, 3], samples=6)
    assert json.loads((tmp_path / "kept" / "model.txt").read_text())["rows"] == 3


def test_keys_are_kept_from_it_unless_they_are_named(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import json, os, sys
print(json.dumps({"score": 0.5}))
open(sys.argv[3] + "/env.json", "w").write(json.dumps(dict(os.environ)))
"""
    monkeypatch.setenv("OTHER_API_KEY", "secret-value-1")
    monkeypatch.setenv("OTHER_URL", "postgres://someone:a-password@host/x")
    monkeypatch.setenv("OTHER_THINGS", "x")
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv("TRACKER_API_KEY", "secret-value-2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    tiny.set(settings(tiny, script, "{pool}", "{seed}", "{out}", env=["TRACKER_API_KEY"]))
    run(tiny, tmp_path, [1, 2])
    seen = json.loads((tmp_path / "kept" / "env.json").read_text())
    assert [name for name in seen if name.startswith("OTHER")] == []
    assert seen["LC_TIME"] == "C"
    assert "HF_HUB_OFFLINE" not in seen  # the workers' own, which are never to download
    assert (seen["TRACKER_API_KEY"], seen["CUDA_VISIBLE_DEVICES"]) == ("secret-value-2", "3")


def test_a_shell_is_never_asked(tiny: Tiny, tmp_path: Path) -> None:
    script = (
        "import sys; print('{\"score\": ' + str(len(sys.argv)) + '}'); open(sys.argv[3] + '/a', 'w').write(sys.argv[4])"
    )
    tiny.set(settings(tiny, script, "{pool}", "{seed}", "{out}", "; touch $(echo oops) {{x}}"))
    found, _ = run(tiny, tmp_path, [1, 2])
    assert (tmp_path / "kept" / "a").read_text() == "; touch $(echo oops) {x}"
    assert found["t1"]["score"] == 5


FAILS = "import sys; sys.stderr.write('no GPU\\nbad luck\\n'); sys.exit(3)"
WRITES = "import sys; open(sys.argv[3] + '/metrics.jsonl', 'w').write({!r})"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (FAILS, r"exit code 3; its last lines: no GPU ⏎ bad luck; see .*t1\.err"),
        ("pass", r"the command gave no score: .*\(nothing found\); print \{\"score\": …\}"),
        (WRITES.format('{"step": 1, "loss": 2}\n'), r"gave no score.*\(loss, step found\)"),
        (WRITES.format('{"step": 1}\n{"score": NaN}\n'), r"metrics\.jsonl line 2: score is NaN, not a finite number"),
        (WRITES.format('{"score": "high"}'), r"metrics\.jsonl line 1: score is \"high\", not a finite number"),
        (WRITES.format('{"score": 1}\nscore=1\n'), r"metrics\.jsonl line 2 is no JSON object: 'score=1'"),
        ("print('{\"score\": true}')", r"standard output line 1: score is true, not a finite number"),
    ],
    ids=["exit code", "nothing", "missing", "NaN", "text", "no JSON", "bool"],
)  # fmt: skip
def test_what_is_wrong_with_its_numbers_is_told_by_file_and_line(
    tiny: Tiny, tmp_path: Path, script: str, says: str
) -> None:
    tiny.set(settings(tiny, script, "{pool}", "{seed}", "{out}"))
    with pytest.raises(TrialError, match=says) as caught:
        run(tiny, tmp_path, [1, 2])
    assert "\n" not in str(caught.value)


LOUD = """
import sys
for step in range(1, 200_001):
    print('{"step": %d, "loss": 0.5, "trial": 3, "score": 0.25}' % step)
    if step % 1000 == 0:
        print("x" * 3_000_000)
print('{"step": 200001, "loss": 0.1}', end="")
"""
ODD = """
import sys
digits = "9" * int(sys.argv[4])
print('{"step": 1, "loss": %s}' % digits)
print('{"step": 2, "loss": NaN, "half \\\\ud800": 1.5}')
print('{"step": %s, "loss": 1}' % digits)
print('{"step": 3, "loss": %s, "score": 0.5}' % digits)
"""


def test_a_trainer_that_prints_without_end_is_thinned_and_its_last_numbers_count(tiny: Tiny, tmp_path: Path) -> None:
    tiny.set(settings(tiny, LOUD, "{pool}", "{seed}"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, points = run(tiny, tmp_path, [1, 2])
    assert found == {"t1": {"score": 0.25}}
    assert [step for step, _ in points[:100]] == list(range(1, 101))
    assert len(points) < 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # kilobytes
    assert points[0][1] == {"loss": 0.5, "trial": 3, "score": 0.25}


@pytest.mark.parametrize("digits", [401, 5000])
def test_a_number_beyond_all_bounds_is_left_out_and_the_metric_counts(tiny: Tiny, tmp_path: Path, digits: int) -> None:
    tiny.set(settings(tiny, ODD, "{pool}", "{seed}", "{out}", str(digits)))
    found, points = run(tiny, tmp_path, [1, 2])
    assert found == {"t1": {"score": 0.5}}
    assert [step for step, _ in points] == [1, 2, 3]
    assert points[0][1] == {"loss": math.inf}
    assert points[1][1] == {"loss": pytest.approx(math.nan, nan_ok=True), "half ?": 1.5}
    assert points[2][1] == {"loss": math.inf, "score": 0.5}


@pytest.mark.fuzz
@FUZZ
@given(st.lists(anything | st.dictionaries(st.sampled_from(["step", "total", "score", "loss"]), anything)))
def test_any_lines_give_the_metric_or_one_plain_line(tmp_path: Path, rows: list[object]) -> None:
    file, output = tmp_path / "metrics.jsonl", tmp_path / "out"
    study = parse_study(BASE + "command: {run: 'a {pool} {seed}', metrics: [{name: score}]}\n")
    content = "\n".join(json.dumps(row) for row in rows).encode()
    for written, other in ((file, output), (output, file)):
        written.write_bytes(content)
        other.unlink(missing_ok=True)
        points: Points = []
        report = Report(lambda _kind, content, points=points: points.append((content["step"], content["values"])))
        numbers = Numbers(study, "t", report, file, output)
        numbers.read(last=True)
        assert all(abs(step) < 2**63 for step, _ in points)
        try:
            assert math.isfinite(numbers.final()["score"])
        except TrialError as error:
            str(error).encode()
            assert "\n" not in str(error)


@pytest.mark.long
def test_all_that_it_started_ends_with_a_time_out(tiny: Tiny, tmp_path: Path) -> None:
    tiny.set(settings(tiny, SPAWNER, str(tmp_path / "pids"), "{pool}", "{seed}", timeout="3s"))
    with pytest.raises(TrialError, match=r"took longer than command\.timeout \(3 s\)"):
        run(tiny, tmp_path, [1, 2])
    assert gone(wait_for(tmp_path / "pids"))


@pytest.mark.long
def test_all_that_it_started_ends_when_it_is_dropped(tiny: Tiny, tmp_path: Path) -> None:
    tiny.set(settings(tiny, SPAWNER, str(tmp_path / "pids"), "{pool}", "{seed}"))
    found, _ = run(tiny, tmp_path, [1, 2], dropped=lambda: {"t1"} if (tmp_path / "pids").exists() else set())
    assert found == {}
    assert gone(wait_for(tmp_path / "pids"))
    assert not (tmp_path / "kept").exists()


def test_what_it_leaves_running_ends_with_it(tiny: Tiny, tmp_path: Path) -> None:
    tiny.set(settings(tiny, SPAWNER, str(tmp_path / "pids"), "{pool}", "{seed}", "now"))
    found, _ = run(tiny, tmp_path, [1, 2])
    assert found == {"t1": {"score": 0.5}}
    assert gone(wait_for(tmp_path / "pids"))


def test_all_that_it_started_ends_with_a_killed_engine(tiny: Tiny, tmp_path: Path) -> None:
    tiny.set(settings(tiny, SPAWNER, str(tmp_path / "pids"), "{pool}", "{seed}"))
    engine = subprocess.Popen(
        [str(DJSB), "auto", str(tiny.study), "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        pids = wait_for(tmp_path / "pids")
    finally:
        engine.kill()
        engine.wait()
    assert len(pids) == 2
    assert gone(pids)


def test_what_it_leaves_running_is_asked_to_end_before_it_is_killed(tiny: Tiny, tmp_path: Path) -> None:
    launcher = (
        f"trap 'echo cancelled > {tmp_path}/job; exit' TERM; echo $$ > {tmp_path}/pids; while :; do sleep 0.1; done"
    )
    wrapper = (
        "import subprocess, time\nfrom pathlib import Path\n"
        f"subprocess.Popen(['sh', '-c', {launcher!r}])\n"
        f"while not Path({str(tmp_path / 'pids')!r}).exists():\n    time.sleep(0.01)\n"
        "print('{\"score\": 0.5}')\n"
    )
    tiny.set(settings(tiny, wrapper, "{pool}", "{seed}"))
    assert run(tiny, tmp_path, [1, 2])[0] == {"t1": {"score": 0.5}}
    assert gone(wait_for(tmp_path / "pids"))
    assert (tmp_path / "job").read_text() == "cancelled\n"


def test_a_program_beside_the_study_is_found_wherever_djsb_is_started(tiny: Tiny, tmp_path: Path) -> None:
    change = settings(tiny, TRAINER)
    change["command"]["run"] = ["./train.sh", "{pool}", "{init}", "{seed}", "{out}"]
    tiny.set(change)
    script = tiny.study / "train.sh"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} trainer.py "$@"\n')
    script.chmod(0o755)
    assert 0 < run(tiny, tmp_path, [1, 2])[0]["t1"]["score"] < 1


def test_a_failed_run_leaves_no_pool_on_the_disk(tiny: Tiny, tmp_path: Path) -> None:
    tiny.set(settings(tiny, "raise SystemExit('broken')"))
    with pytest.raises(TrialError, match="broken"):
        run(tiny, tmp_path, [1, 2])
    assert not (tiny.study / ".djsb" / "command" / "t1").exists()


@pytest.mark.parametrize("form", ["jsonl", "parquet", "webdataset"])
def test_a_pool_holds_half_letters_and_columns_that_the_first_row_lacks(tiny: Tiny, tmp_path: Path, form: str) -> None:
    tiny.rows[2]["text"] = "half \ud83d"
    tiny.rows[5]["more"] = "later"
    tiny.train_file.write_text("".join(json.dumps(row) + "\n" for row in tiny.rows))
    found = pool_of(tiny, tmp_path, form)
    if form == "parquet":
        assert [(r["text"], r["more"]) for r in pq.read_table(found).to_pylist()] == [
            ("half \ufffd", None), (tiny.rows[5]["text"], "later"),
        ]  # fmt: skip
    elif form == "jsonl":
        rows = [json.loads(line) for line in Path(found).read_text(encoding="utf-8").splitlines()]
        assert rows[0]["text"] == "half \ud83d" and rows[1]["more"] == "later"
    else:
        with tarfile.open(found.replace("{000000..000000}", "000000")) as tar:
            files = [tar.extractfile(m).read() for m in tar.getmembers() if m.name.endswith(".json")]  # type: ignore[union-attr]
        first, second = map(json.loads, files)
        assert first["text"] == "half \ud83d" and second["more"] == "later"


def test_a_pool_as_jsonl_names_its_images_absolutely(tiny: Tiny, tmp_path: Path) -> None:
    rows = [
        json.loads(line) for line in Path(pool_of(tiny, tmp_path, "jsonl")).read_text(encoding="utf-8").splitlines()
    ]
    assert [row["id"] for row in rows] == [2, 5]
    assert all(Path(row["images"][0]).is_absolute() and Path(row["images"][0]).exists() for row in rows)
    assert {**rows[0], "images": tiny.rows[2]["images"]} == tiny.rows[2]


def test_a_pool_as_parquet_holds_the_bytes(tiny: Tiny, tmp_path: Path) -> None:
    rows = pq.read_table(pool_of(tiny, tmp_path, "parquet")).to_pylist()
    assert [row["text"] for row in rows] == [tiny.rows[i]["text"] for i in (2, 5)]
    file = tiny.train_file.parent / tiny.rows[2]["images"][0]
    assert rows[0]["images"] == [{"bytes": file.read_bytes(), "path": file.name}]


def test_a_pool_as_webdataset_is_tars_of_samples(tiny: Tiny, tmp_path: Path) -> None:
    pattern = pool_of(tiny, tmp_path, "webdataset")
    assert pattern.endswith("pool-{000000..000000}.tar")
    with tarfile.open(pattern.replace("{000000..000000}", "000000")) as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    keys = sorted({name.partition(".")[0] for name in content})
    assert len(keys) == 2
    assert content[f"{keys[0]}.txt"].decode() == tiny.rows[2]["text"]
    assert json.loads(content[f"{keys[0]}.json"]) == {"id": 2, "text": tiny.rows[2]["text"]}
    assert Image.open(io.BytesIO(content[f"{keys[1]}.png"])).size == (16, 16)


def pool_of(tiny: Tiny, tmp_path: Path, form: str) -> str:
    """What {pool} stands for, of rows 5 and 2."""
    from engine.data.dataset import Dataset
    from engine.settings.data import DatasetSection
    from engine.tasks.command.pool_file import write_pool

    data = Dataset(tiny.train_file, DatasetSection(path="x", images="images", id="id"))
    return write_pool(form, data, tiny.train_file.parent, np.array([5, 2]), 1, tmp_path / "pool")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("{}", "needs command.run"),
        ("{run: 'a {pool} {seed}'}", "needs command.metrics"),
        ("{run: 'a {seed}', metrics: [{name: b}]}", "no {pool}, so all trials would train on the same rows"),
        ("{run: [a, '{pool}'], metrics: [{name: b}]}", "no {seed}, so all trials would be the same at every seed"),
        ("{run: 'a {pool} {seed} {eval}', metrics: [{name: b}]}", "evaluation.path is not set"),
        ("{run: 'a {pool} {speed}', metrics: [{name: b}]}", "{speed} is not known; write {pool}, {init}"),
        ("{run: 'a {pool.x}', metrics: [{name: b}]}", "{pool.x} is not known"),
        ("{run: 'a {pool', metrics: [{name: b}]}", "command"),
        ("{run: 'a', metrics: [{name: b, low: 1, high: 1}]}", "low 1 is not below high 1"),
        ("{run: 'a', metrics: [{name: b}, {name: b}]}", "each metric may stand once"),
        ("{run: 'a', timeout: soon}", "command.timeout"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_work_is_refused_at_once(command: str, says: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse_study(f"{BASE}command: {command}\n")
    assert says in str(caught.value)


def test_fields_of_other_tasks_are_refused() -> None:
    good = "command: {run: 'a {pool} {seed}', metrics: [{name: b}]}\n"
    assert parse_study(BASE + good).command.run == ("a", "{pool}", "{seed}")
    with pytest.raises(StudyError, match=r"task command does not use evaluation\.label; remove it"):
        parse_study(BASE + good + "evaluation: {label: class}\n")
    with pytest.raises(StudyError, match=r"does not use lora; remove it"):
        parse_study(BASE + good + "lora: {rank: 4}\n")


def test_a_program_that_is_not_there_is_told_before_anything_runs(tiny: Tiny) -> None:
    change = settings(tiny, TRAINER)
    change["command"]["run"] = ["./no-such-program", "{pool}", "{seed}"]
    tiny.set(change)
    done = run_djsb("auto", tiny.study, "--workers", 1)
    assert done.returncode == 1
    assert "no program ./no-such-program that can be run" in done.stderr
    assert tiny.trials() == []


def test_a_loss_without_a_direction_is_told_before_anything_runs(tiny: Tiny) -> None:
    metric = {"name": "eval_loss", "high": 9}

    def checked(**direction: bool) -> dict[str, Any]:
        tiny.set(settings(tiny, "", metrics=[metric | direction]))
        return dict(json.loads(run_djsb("check", tiny.study, "--json").stdout))

    (problem,) = checked()["problems"]
    assert "eval_loss is better when low by its name; write higher_is_better: false" in problem
    for said, word in ((False, "lower"), (True, "higher")):
        found = checked(higher_is_better=said)
        assert not found["problems"]
        assert any(f"eval_loss ({word} is better)" in f for f in found["findings"])


def test_without_a_place_for_the_samples_the_race_has_rungs_of_seeds_only(tiny: Tiny) -> None:
    tiny.set(merged(settings(tiny, TRAINER), {"search": {"strategy": "race"}}))
    opened = open_study(tiny.study, 1)
    with opened.store:
        assert opened.rungs == ((1.0, 1), (1.0, 2))
        assert not opened.can_pause
    tiny.set(merged(settings(tiny, TRAINER, "{pool}", "{seed}", "{samples}"), {"search": {"strategy": "race"}}))
    opened = open_study(tiny.study, 1)
    with opened.store:
        assert opened.rungs[0] == (0.25, 1)


def test_one_broken_trial_leaves_the_others_alone(tiny: Tiny) -> None:
    """The trainer fails on pools of long texts; their trials fail with its words, and the rest has results."""
    script = TRAINER.replace("out = Path(out)", "out = Path(out)\nif words > 9: sys.exit('too many words')")
    tiny.set(settings(tiny, script, retries=0))
    done = run_djsb("auto", tiny.study, "--until", "probe", "--workers", 1)
    assert done.returncode == 1
    assert "too many words" in done.stderr
    states = [state for _, state, _ in tiny.trials()]
    assert 0 < states.count("FAIL") < states.count("COMPLETE")
    ranked = json.loads(run_djsb("rank", tiny.study, "--json").stdout)
    assert ranked[0]["label"] in ("text_len low", "num_words low")


def test_the_plan_knows_no_time_until_it_is_told(tiny: Tiny) -> None:
    tiny.set(settings(tiny, TRAINER))
    assert "set command.expected" in run_djsb("plan", tiny.study).stdout
    tiny.set(settings(tiny, TRAINER, expected="30s"))
    planned = json.loads(run_djsb("plan", tiny.study, "--json").stdout)
    probe = planned["stages"][0]
    assert probe["seconds"] == pytest.approx(30 * probe["trials"], rel=0.01)


KILLS = 4


@pytest.mark.long
def test_killed_at_random_moments_it_loses_nothing(tiny: Tiny) -> None:
    seed = int(os.environ.get("DJSB_TEST_SEED", time.time()))
    print(f"DJSB_TEST_SEED={seed}")
    moments = random.Random(seed)
    short = {"scale": {"rates": [2], "seeds": 1}, "confirm": {"seeds": 2, "candidates": 1}, "search": {"seeds": 2}}
    study = merged(settings(tiny, TRAINER), short)
    whole, killed = tiny.set(study), tiny.root / "killed"
    (killed / "trainer.py").parent.mkdir()
    (killed / "trainer.py").write_text(TRAINER)
    tiny.set(study, killed)
    assert run_djsb("auto", whole, "--workers", 2).returncode == 0
    kills = 0
    while kills < KILLS:
        before = finished(killed)
        engine = subprocess.Popen(
            [str(DJSB), "auto", str(killed), "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            assert engine.wait(moments.uniform(1, 6)) == 0
        except subprocess.TimeoutExpired:
            kills += 1
            engine.send_signal(signal.SIGKILL)
            engine.wait()
        else:
            break
        assert before <= finished(killed), "a finished trial was lost or ran again"
    assert kills, "the study ended before the first kill"
    assert run_djsb("auto", killed, "--workers", 2).returncode == 0
    boards = [run_djsb("rank", folder, "--json").stdout for folder in (whole, killed)]
    assert boards[0] == boards[1]
    assert boards[0]
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(killed) in " ".join(p.info["cmdline"] or ())]


def finished(study: Path) -> set[tuple[Any, ...]]:
    """Every finished trial as the database has it."""
    file = study / ".djsb" / "study.db"
    if not file.exists():
        return set()
    with closing(sqlite3.connect(file, timeout=30)) as db:
        try:
            return set(db.execute("SELECT id, attempts, seconds FROM trials WHERE state = 'COMPLETE'").fetchall())
        except sqlite3.OperationalError:  # killed before the tables were made
            return set()


MEETING = """
import json, os, socket, sys
told = {name: os.environ[name] for name in ("DJSB_DEVICE", "DJSB_DEVICES", "WORLD_SIZE", "PET_NPROC_PER_NODE")}
assert list(told.values()) == ["cpu0-1", "cpu0 cpu1", "2", "2"] and sys.argv[1] == "2", told
with socket.socket() as free:
    free.bind((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))
print(json.dumps({"score": len(os.sched_getaffinity(0)) / 4}))
"""


def test_a_command_gets_its_devices_and_where_they_meet_and_is_charged_for_all(tiny: Tiny) -> None:
    study = settings(tiny, MEETING, "{devices}", "{pool}", "{seed}", retries=0)
    tiny.set({**study, "devices_per_trial": 2, "ops": {"text_length_filter": {}}, "search": {"strategy": "grid"}})
    done = run_djsb("auto", tiny.study, "--workers", 2, "--until", "probe")
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(tiny.database)) as db:
        rows = db.execute(
            "SELECT t.device, t.seconds, (julianday(t.finished) - julianday(t.started)) * 86400, m.value FROM trials t "
            "JOIN metrics m ON m.trial = t.id"
        ).fetchall()
    assert len(rows) == 4
    assert {(device, score) for device, _, _, score in rows} == {("cpu0-1", 0.5)}  # it has both cores
    assert all(seconds == pytest.approx(2 * wall, abs=0.1) for _, seconds, wall, _ in rows)
