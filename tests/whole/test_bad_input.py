"""Bad input: one line on standard error that says what is wrong and what to do, and nothing is lost."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.data.scan import quarantine_id
from engine.study.lock import EngineLock
from engine.study.opened import open_study
from tests.conftest import TEXT_ONLY, Row, Tiny, caption, make_tiny, merged, run_djsb, the_error, write_jsonl

PROBE = ("--until", "probe", "--workers", 1)


def refused(tiny: Tiny, *args: object, **popen: Any) -> str:
    """The one line of a command that must fail and leave the study's trials as they were."""
    before = tiny.trials()
    assert [state for _, state, _ in before].count("COMPLETE") >= 2
    error = the_error(run_djsb(*args, **popen))
    assert tiny.trials() == before
    return error


# --- the study file ---


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"optimiser": "adam"}, ["optimiser: unknown field; remove it"]),
        ({"train": {"epochs": "many"}}, ["train.epochs", "number", "'many'"]),
        ({"ops": {"text_lenght_filter": {}}}, ["text_lenght_filter", "did you mean text_length_filter?"]),
        ({"ops": {"text_length_filter": {"colour": "red"}}}, ["text_length_filter", "unknown parameter 'colour'"]),
        ({"train": {"batch_size": 64}}, ["240 good rows, too few", "train.batch_size"]),
        ({"dataset": {"path": "../data/gone.jsonl"}}, ["gone.jsonl", "check"]),
        ({"dataset": {"text": "caption"}}, ["no field 'caption'", "set dataset.text to one of: id, images, text"]),
        ({"evaluation": {"path": "../data/train.jsonl"}}, ["evaluation.path", "hold some rows out"]),
        ({"evaluation": {"path": "../data/gone.jsonl"}}, ["gone.jsonl", "check"]),
        ({"evaluation": {"label": "kind"}}, ["evaluation.label", "'kind'"]),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_a_wrong_study_file_is_named_by_field(stopped: Tiny, change: Row, says: list[str]) -> None:
    stopped.set(change)
    error = refused(stopped, "auto", stopped.study, *PROBE)
    for part in says:
        assert part in error


def test_a_study_file_that_is_not_yaml_names_the_line(stopped: Tiny) -> None:
    (stopped.study / "study.yaml").write_text("name: tiny\nops: [text_length_filter\ntask: clip\n")
    error = refused(stopped, "auto", stopped.study)
    assert "study.yaml, line" in error
    assert "is not YAML" in error


def test_a_folder_without_a_study_says_how_to_make_one(tmp_path: Path) -> None:
    assert "djsb init" in the_error(run_djsb("auto", tmp_path))


def test_a_budget_that_is_none(stopped: Tiny) -> None:
    error = refused(stopped, "auto", stopped.study, "--budget", "soon")
    assert "'soon' is not an amount of device time; write it like" in error


# --- the data ---


@pytest.mark.parametrize(
    ("text", "says"),
    [("a\nb\n", "is not JSONL"), ("[1, 2]\n", "is not JSONL (not a JSON object)"), ("", "has no rows")],
    ids=["words", "lists", "empty"],
)
def test_a_file_that_is_not_jsonl(stopped: Tiny, text: str, says: str) -> None:
    stopped.train_file.write_text(text)
    error = refused(stopped, "pools", stopped.study, "--workers", 1)
    assert says in error
    assert "one JSON object a line" in error


def test_init_refuses_data_that_is_not_there_or_not_jsonl(tmp_path: Path) -> None:
    assert "no such file" in the_error(run_djsb("init", tmp_path / "s", "--data", tmp_path / "gone.jsonl"))
    (tmp_path / "bad.jsonl").write_text("hello\n")
    assert "is not JSONL" in the_error(run_djsb("init", tmp_path / "s", "--data", tmp_path / "bad.jsonl"))
    assert not (tmp_path / "s").exists()


def test_init_refuses_to_judge_on_the_training_data(tiny: Tiny, tmp_path: Path) -> None:
    error = the_error(run_djsb("init", tmp_path / "s", "--data", tiny.train_file, "--eval", tiny.train_file))
    assert "hold some rows out" in error
    assert not (tmp_path / "s").exists()


def test_a_copy_of_the_training_data_is_no_evaluation(stopped: Tiny) -> None:
    shutil.copy(stopped.train_file, stopped.train_file.with_name("copy.jsonl"))
    stopped.set({"evaluation": {"path": "../data/copy.jsonl", "label": None}})
    assert "hold some rows out" in refused(stopped, "auto", stopped.study, *PROBE)


def test_an_evaluation_of_one_class_measures_nothing(stopped: Tiny) -> None:
    write_jsonl(stopped.test_file, [{**row, "label": "red"} for row in stopped.test])
    error = refused(stopped, "auto", stopped.study, *PROBE)
    assert "'label' names 1 classes; set evaluation.label" in error


def test_all_images_missing(stopped: Tiny) -> None:
    shutil.rmtree(stopped.root / "data" / "train")
    shutil.rmtree(stopped.study / ".djsb" / "cache")
    error = refused(stopped, "auto", stopped.study, *PROBE)
    assert "240 of 240 rows" in error
    assert "240 × missing file train/0000.png (row 0)" in error
    assert "mend the data, or raise dataset.max_bad" in error


def quarantine(tiny: Tiny) -> dict[int, str]:
    """Row → reason, after a scan."""
    with (opened := open_study(tiny.study, 1)).store:
        scan = opened.scan
        rows = opened.store.query("SELECT row, reason FROM quarantine WHERE dataset = ?", (quarantine_id(opened.data),))
        found = {r["row"]: r["reason"] for r in rows}
        assert sorted(found) == np.flatnonzero(~scan.good).tolist()
        return found


def test_bad_rows_are_quarantined_with_their_reason_and_the_rest_is_used(tiny: Tiny) -> None:
    images = tiny.root / "data" / "train"
    rows: list[Row] = [dict(row) for row in tiny.rows]
    rows[1]["text"] = float("nan")
    rows[2]["text"] = 7
    rows[3]["text"] = None
    rows[4]["text"] = ["a", "b"]
    rows[5]["text"] = "  "
    del rows[6]["text"]
    (images / "0007.png").write_bytes(b"not an image at all")
    whole = (images / "0008.png").read_bytes()
    (images / "0008.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (64, 64), "red").save(images / "0009.jpg")
    (images / "0009.jpg").write_bytes((images / "0009.jpg").read_bytes()[:-40])
    rows[9]["images"] = ["train/0009.jpg"]
    (images / "0010.png").write_bytes(b"")
    rows[11]["images"] = []
    rows[12]["images"] = [5]
    rows[13]["id"] = 0
    rows[14]["id"] = None
    write_jsonl(tiny.train_file, rows)
    with tiny.train_file.open("a") as file:
        file.write('{"id": 240, "text": "cut o\n[1]\n')
    found = quarantine(tiny)
    assert {row: reason[:14] for row, reason in found.items()} == {
        **dict.fromkeys((1, 3, 6), "no text"), 5: "empty text", **dict.fromkeys((2, 4, 12), "wrong type: te"),
        **dict.fromkeys((7, 8, 9, 10), "unreadable ima"), 11: "no images", 12: "wrong type int", 13: "duplicated id ",
        14: "no id", 240: "not JSON: Inva", 241: "not a JSON obj",
    }  # fmt: skip
    assert found[2] == "wrong type: text is int, not a string"
    assert found[13] == "duplicated id 0"


def test_above_the_limit_the_most_frequent_reasons_are_named(stopped: Tiny) -> None:
    rows: list[Row] = [dict(row) for row in stopped.rows]
    for row in rows[:40]:
        row["text"] = float("nan")
    for row in rows[40:70]:
        row["text"] = 3
    for row in rows[70:72]:
        row["images"] = []
    rows[72]["text"] = " "
    write_jsonl(stopped.train_file, rows)
    error = refused(stopped, "auto", stopped.study, *PROBE)
    assert "73 of 240 rows" in error
    assert "30%, dataset.max_bad is 20%" in error
    assert "40 × no text (row 0); 30 × wrong type: text is int, not a string (row 40); 2 × no images (row 70)" in error
    assert "empty" not in error


def test_a_scan_of_many_chunks_loses_none(tmp_path: Path) -> None:
    rows = [{"id": i, "text": f"caption {i}"} for i in range(21_000)]  # five chunks for one worker
    tiny = Tiny(tmp_path, rows, [])
    write_jsonl(tiny.train_file, rows)
    tiny.set(TEXT_ONLY)
    assert quarantine(tiny) == {}


def test_a_tar_that_no_row_needs_is_not_opened(stopped: Tiny) -> None:
    (stopped.root / "data" / "images.tar").write_bytes(b"no tar" * 200)
    shutil.rmtree(stopped.study / ".djsb" / "cache")
    done = run_djsb("pools", stopped.study, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert not (stopped.study / ".djsb" / "media").exists()


def test_a_tar_that_is_none_costs_the_rows_that_need_it(stopped: Tiny) -> None:
    (stopped.root / "data" / "images.tar").write_bytes(b"no tar" * 200)
    for number in (3, 5):
        (stopped.root / "data" / "train" / f"{number:04d}.png").unlink()
    shutil.rmtree(stopped.study / ".djsb" / "cache")
    found = quarantine(stopped)
    assert sorted(found) == [3, 5]
    assert found[3].startswith("missing file train/0003.png: images.tar is broken: ")


# --- recipes ---


def test_a_recipe_whose_minimum_is_above_its_maximum(tiny: Tiny, tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out.jsonl"
    recipe.write_text("process:\n- text_length_filter: {min_len: 10, max_len: 5}\n")
    error = the_error(run_djsb("apply", recipe, "--data", tiny.train_file, "--out", out))
    assert "text_length_filter: min_len 10 is above max_len 5; swap them" in error
    assert not out.exists()


def test_a_recipe_of_an_unknown_op_or_for_data_that_is_not_there(tiny: Tiny, tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out.jsonl"
    recipe.write_text("process:\n- python_lambda_mapper: {lambda_str: 'lambda s: s'}\n")
    assert "python_lambda_mapper" in the_error(run_djsb("apply", recipe, "--data", tiny.train_file, "--out", out))
    recipe.write_text("process:\n- text_length_filter: {min_len: 10}\n")
    assert "no such file" in the_error(run_djsb("apply", recipe, "--data", tmp_path / "gone.jsonl", "--out", out))
    assert "no such file" in the_error(run_djsb("apply", tmp_path / "gone.yaml", "--data", recipe, "--out", out))
    assert not out.exists()


# --- the engine's folder and database ---


def test_a_study_that_another_engine_holds(stopped: Tiny) -> None:
    with EngineLock(stopped.study / ".djsb"):
        error = refused(stopped, "auto", stopped.study, *PROBE)
        assert f"another engine (process {os.getpid()}) holds this study" in error
        assert "djsb status" in error
        looked = run_djsb("status", stopped.study, "--json")  # looking is free
        assert json.loads(looked.stdout)["engine"] == os.getpid()
    assert json.loads(run_djsb("status", stopped.study, "--json").stdout)["engine"] is None


def test_a_database_from_a_newer_version(stopped: Tiny) -> None:
    with closing(sqlite3.connect(stopped.database)) as db, db:
        db.execute(
            "INSERT INTO _sqlite_migrations(migration_set, name, applied_at) VALUES('djsb', 'm999_later', '2030-01-01')"
        )
    for command in (("auto", stopped.study, *PROBE), ("status", stopped.study)):
        error = refused(stopped, *command)
        assert "is from a newer djsb (it has m999_later); upgrade djsb" in error


@pytest.mark.parametrize("keep", [0, 100, 4096], ids=["from the start", "behind the header", "behind the first page"])
def test_a_damaged_database_is_named_and_left_as_it_is(stopped: Tiny, keep: int) -> None:
    with closing(sqlite3.connect(stopped.database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = stopped.database.read_bytes()[:keep] + np.random.default_rng(0).bytes(60_000)
    stopped.database.write_bytes(damaged)
    stopped.database.with_name(
        "study.copy.db"
    ).unlink()  # else it takes the place: tests/engine/journal/test_keeping.py
    for command in (("auto", stopped.study, *PROBE), ("status", stopped.study)):
        error = the_error(run_djsb(*command))
        assert "study.db" in error
        assert "damaged" in error and "restore" in error
        assert stopped.database.read_bytes() == damaged


# --- the disk ---


def _drop_override() -> None:
    """Permission bits bind a root without CAP_DAC_OVERRIDE (1): take it from what exec may grant."""
    PR_CAPBSET_DROP = 24
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, 1, 0, 0, 0):
        raise OSError("the capability cannot be dropped")


def _read_only(folder: Path, writable: bool = False) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() and writable else 0o555 if path.is_dir() else 0o644 if writable else 0o444)


@pytest.mark.parametrize("command", ["auto", "pools"])
@pytest.mark.parametrize("what", ["study", "study/.djsb"])
def test_a_read_only_folder(stopped: Tiny, command: str, what: str) -> None:
    if what == "study":
        shutil.rmtree(stopped.study / ".djsb")  # a new study, in a folder that may not be written
    _read_only(stopped.root / what)
    try:
        error = the_error(run_djsb(command, stopped.study, "--workers", 1, preexec_fn=_drop_override))
    finally:
        _read_only(stopped.root / what, writable=True)
    assert "writable, or copy the study elsewhere" in error
    if what != "study":
        assert len(stopped.trials()) == 7


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """A file system of that size; False where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True, check=False).returncode
    if mounted != 0:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _limit(kilobytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, kilobytes << 10))


def _fill(folder: Path) -> Path:
    """A file that takes all the space that is left."""
    file = folder / "filler"
    with file.open("wb", buffering=0) as f:
        for size in (1 << 16, 1 << 12):
            try:
                while f.write(b"x" * size):
                    pass
            except OSError:
                pass
    return file


def test_a_full_disk_under_the_database_loses_nothing(
    stopped: Tiny, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with small_disk(tmp_path / "disk", 20_000) as mounted:
        record_property("full disk by", "tmpfs" if mounted else "RLIMIT_FSIZE")
        if mounted:
            tiny = replace(stopped, root=tmp_path / "disk" / "copy")
            shutil.copytree(stopped.root, tiny.root)
            before = tiny.trials()
            filler = _fill(tmp_path / "disk")
            error = the_error(run_djsb("auto", tiny.study, *PROBE))
            filler.unlink()
            assert tiny.trials() == before
        else:
            tiny = stopped
            error = refused(tiny, "auto", tiny.study, *PROBE, preexec_fn=_limit(8))
        assert "free some space" in error
        done = run_djsb("auto", tiny.study, *PROBE)
        assert done.returncode == 0, done.stderr
        assert [state for _, state, _ in tiny.trials()] == ["COMPLETE"] * 7


@pytest.mark.parametrize("kilobytes", [250, 1000], ids=["quarantine", "statistics"])
def test_a_full_disk_under_the_caches(
    tmp_path: Path, kilobytes: int, record_property: Callable[[str, object], None]
) -> None:
    """4,000 bad rows, 20,000 keys and two columns of 160 kB each, on a disk that ends at each of them."""
    rng = np.random.default_rng(0)
    rows = [{"id": i, "text": caption(rng, "red") if i % 5 else ""} for i in range(20_000)]
    with small_disk(tmp_path / "disk", kilobytes) as mounted:
        record_property("full disk by", "tmpfs" if mounted else "RLIMIT_FSIZE")
        tiny = Tiny(tmp_path / "disk", rows, [])
        data = write_jsonl(tmp_path / "data" / "train.jsonl", rows)
        tiny.set(merged(TEXT_ONLY, {"dataset": {"path": str(data)}}))
        limits = {} if mounted else {"preexec_fn": _limit(kilobytes // 4)}
        error = the_error(run_djsb("pools", tiny.study, "--workers", 1, **limits))
        assert "free some space" in error
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path / "disk")], check=True)
        done = run_djsb("pools", tiny.study, "--workers", 1, "--json")
        assert done.returncode == 0, done.stderr
        assert sum(p["kept"] for p in json.loads(done.stdout)["pools"][:3]) == 16_000


# --- no error at all ---


def test_a_folder_with_blanks_and_letters_of_all_kinds_works(stopped: Tiny, tmp_path: Path) -> None:
    there = replace(stopped, root=tmp_path / "mon étude – 数据 {x} 100%")
    stopped.root.rename(there.root)
    done = run_djsb("auto", there.study, *PROBE)
    assert done.returncode == 0, done.stderr
    assert [state for _, state, _ in there.trials()] == ["COMPLETE"] * 7
    assert "text_len" in run_djsb("rank", there.study).stdout


def test_the_data_too_may_lie_in_such_a_folder(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "ünï cödé #1", rows=60, test_rows=6)
    tiny.set({"train": {"batch_size": 2}})
    done = run_djsb("pools", tiny.study, "--workers", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 60
