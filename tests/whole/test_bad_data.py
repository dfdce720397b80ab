"""Data that are broken in some way, by the command line: one plain line, or counted and told what is left out."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import run_djsb, the_error
from tests.whole.test_bad_input import small_disk

Row = dict[str, Any]
ROWS: list[Row] = [{"id": f"r{i:03d}", "text": f"a row of {'many ' * (i % 7)}words", "n": i / 8} for i in range(60)]


def lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows: list[Row]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(rows: list[Row]) -> bytes:
    return parquet_of(pa.Table.from_pylist(rows))


def parquet_of(made: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(made, out)
    return out.getvalue()


def arrow(rows: list[Row]) -> bytes:
    return arrow_of(pa.Table.from_pylist(rows))


def arrow_of(made: pa.Table) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, made.schema) as writer:
        writer.write_table(made)
    return out.getvalue()


def tar(names: list[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in names:
            content = f"the text of {name}".encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


SAMPLES = [f"{i:03d}.{end}" for i in range(60) for end in ("txt", "cls")]
LARGE = [*ROWS[:30], {**ROWS[30], "text": "word " * 2_000_000}, *ROWS[31:]]  # a line of 10 MB
TWINS = pa.table([["a", "b"]] * 2, names=["text", "text"])
RENAMED = [{"id": row["id"], "caption": row["text"]} for row in ROWS[30:]]
NUMBERED = [{**row, "id": i} for i, row in enumerate(ROWS[30:])]
WRITERS: dict[str, Callable[[list[Row]], bytes]] = {
    ".jsonl": lines, ".csv": table, ".parquet": parquet, ".arrow": arrow,
}  # fmt: skip
# the files, and what `init` says
REFUSED: dict[str, tuple[dict[str, bytes], list[str]]] = {
    "empty lines": ({"r.jsonl": b""}, ["r.jsonl has no rows; give a file"]),
    "a picture as lines": ({"r.jsonl": b"\x89PNG\r\n" + bytes(range(256))}, ["r.jsonl is not JSONL"]),
    "a picture as a table": ({"r.csv": b"\x89PNG\r\n" + bytes(range(256)) * 8}, ["r.csv is no table", "UTF-8"]),
    "a list cut off": ({"r.json": json.dumps(ROWS).encode()[:-9]}, ["r.json, entry 59 is not JSON", "mend it there"]),
    "a list that goes on": ({"r.json": json.dumps(ROWS).encode() + b"x"}, ["goes on after the end of its list"]),
    "packed lines cut off": ({"r.jsonl.gz": gzip.compress(lines(ROWS))[:-20]}, ["cut short or broken", "gzip -t"]),
    "Parquet cut off": ({"r.parquet": parquet(ROWS)[:-30]}, ["r.parquet cannot be read", "1 of 1 files are so"]),
    "Arrow cut off": ({"r.arrow": arrow(ROWS)[:-300]}, ["r.arrow is no Arrow file, or cut short"]),
    "Parquet of which no part can be read": (
        {"r.parquet": parquet(ROWS)[:4] + bytes(900) + parquet(ROWS)[904:]}, ["no readable rows (unreadable part of a"],
    ),
    "a folder with nothing to read": ({"a.txt": b"x", "b.md": b"y"}, ["holds no data set that can be read"]),
    "two formats": ({"a.jsonl": lines(ROWS), "b.csv": table(ROWS)}, ["files of several formats", "a.jsonl", "b.csv"]),
    "splits": ({"train.jsonl": lines(ROWS), "test.jsonl": lines(ROWS)}, ["several splits", "as --split"]),
    "two columns of a name": ({"r.csv": b"id,text,text\n1,a,b\n"}, ["several columns of the name 'text'"]),
    **{
        f"two columns of a name in {end}": ({f"r{end}": content}, ["several columns of the name 'text'"])
        for end, content in ((".parquet", parquet_of(TWINS)), (".arrow", arrow_of(TWINS)))
    },
    "UTF-16": ({"r.jsonl": lines(ROWS).decode().encode("utf-16")}, ["r.jsonl", "UTF-16"]),
    "packed shards": ({"a.tar.gz": gzip.compress(tar(SAMPLES))}, ["a.tar.gz is compressed", "gunzip"]),
    "no shard": ({"a.tar": b"no tar at all" * 99}, ["a.tar cannot be read", "1 of 1 shards are so"]),
    **{
        f"a renamed field in {end}": (
            {f"a{end}": write(ROWS[:30]), f"b{end}": write(RENAMED)},
            [f"b{end} has fields that other files lack (caption)", "give files of one schema"],
        )
        for end, write in WRITERS.items() if end != ".parquet"
    },
    **{
        f"ids of two types in {end}": (
            {f"a{end}": write(ROWS[:30]), f"b{end}": write(NUMBERED)},
            ["Field id has incompatible types", "give files of one schema"],
        )
        for end, write in WRITERS.items() if end != ".jsonl"
    },
}  # fmt: skip
# the files, and what `check` tells of the rows
TOLD: dict[str, tuple[dict[str, bytes], str]] = {
    "lines cut off": ({"r.jsonl": lines(ROWS)[:-9]}, "59 of 60 rows; left out: 1 not JSON"),
    "a line of garbage": ({"r.jsonl": lines(ROWS) + b"\xff\xfe\n"}, "60 of 61 rows; left out: 1 not JSON"),
    "a line that is a list": ({"r.jsonl": lines(ROWS) + b"[1]\n"}, "60 of 61 rows; left out: 1 not a JSON object"),
    "a byte-order mark and CRLF": ({"r.jsonl": b"\xef\xbb\xbf" + lines(ROWS).replace(b"\n", b"\r\n")}, "60 of 60"),
    "a table with a mark": ({"r.csv": b"\xef\xbb\xbf" + table(ROWS)}, "60 of 60 rows; text from text, id from id"),
    "a table cut off": ({"r.csv": table(ROWS)[:-9]}, "59 of 60 rows; left out: 1 lines of other columns"),
    "half numbers": (
        {"r.csv": table([{**r, "n": r["n"] if i % 2 else "oops"} for i, r in enumerate(ROWS)])},
        "60 of 60 rows; n is text, as 30 of 60 values are no numbers ('oops')",
    ),
    "a long line": ({"r.jsonl": lines(LARGE)}, "60 of 60 rows"),
    "a long line in a table": ({"r.csv": table(LARGE)}, "60 of 60 rows"),
    "an empty file among others": ({"a.jsonl": lines(ROWS), "b.jsonl": b""}, "60 of 60 rows; 2 files, 1 of them empty"),
    "a shard cut off": ({"a.tar": tar(SAMPLES)[: 512 * 200]}, "1 of them without an end mark, perhaps cut off"),
    "a shard cut off behind a row": (
        {f"{i}.tar": tar(SAMPLES[20 * i : 20 * i + 20])[: None if i else 1536 + 300] for i in range(6)},
        "51 of 51 rows; 6 shards, 1 of them without an end mark, perhaps cut off",
    ),
    "a column of times called as a kind of video": (
        {"r.csv": table([{**row, "ts": f"2024-01-01 00:{i:02d}"} for i, row in enumerate(ROWS)])},
        "60 of 60 rows; text from text, id from id",
    ),
    "a member missing": ({"a.tar": tar([n for n in SAMPLES if n != "007.txt"])}, "59 of 60 rows; left out: 1 no txt"),
    "two members of a name": ({"a.tar": tar([*SAMPLES, "x.txt", "x.txt"])}, "60 of 61 rows; left out: 1 two members"),
    "a key that comes again": ({"a.tar": tar([*SAMPLES, "007.txt"])}, "60 of 61 rows; left out: 1 a key comes again"),
    "a shard among other files": ({"a.tar": tar(SAMPLES), "README.md": b"#", "x.txt": b"y"}, "60 of 60 rows; 1 shards"),
    **{
        f"one of six {end} files cut off": (
            {f"{part}{end}": write(ROWS[part * 10 : part * 10 + 10])[: None if part else -300] for part in range(6)},
            "50 of 50 rows; 5 files, 1 files left out: ",
        )
        for end, write in WRITERS.items() if end in (".parquet", ".arrow")
    },
}  # fmt: skip


def placed(folder: Path, files: dict[str, bytes]) -> Path:
    """The files in a folder with an odd name; it, or its one file."""
    folder = folder / "dàta 中 (1)"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder if len(files) > 1 else folder / next(iter(files))


def init(tmp_path: Path, data: Path, *more: str) -> Any:
    return run_djsb("init", tmp_path / "study", "--data", data, "--task", "none", *more)


def told(tmp_path: Path) -> str:
    """What `check` says of the rows."""
    file = tmp_path / "study" / "study.yaml"
    study = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump({**study, "ops": {"words_num_filter": {}}}, allow_unicode=True), encoding="utf-8")
    checked = run_djsb("check", tmp_path / "study", "--workers", 1, "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return next(i["line"] for i in json.loads(checked.stdout)["inputs"] if i["input"] == "training rows")


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_line_and_no_study_is_made(tmp_path: Path, case: str) -> None:
    files, says = REFUSED[case]
    error = the_error(init(tmp_path, placed(tmp_path, files)))
    assert all(part in error for part in says), error
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("case", TOLD)
def test_it_is_counted_and_told(tmp_path: Path, case: str) -> None:
    files, says = TOLD[case]
    made = init(tmp_path, placed(tmp_path, files))
    assert made.returncode == 0, made.stderr
    assert says in told(tmp_path)


# cases that the ordinary run of the tests trains on too; the others are `long`
TRAINED = ("a line of garbage", "a shard cut off behind a row")
STOPPED = ("a list cut off", "ids of two types in .parquet", "no shard")


def marked(cases: dict[str, Any], ordinary: tuple[str, ...]) -> list[Any]:
    return [case if case in ordinary else pytest.param(case, marks=pytest.mark.long) for case in cases]


def to_train(tmp_path: Path, data: Path, text: str) -> Path:
    """A study that trains tiny language models on the data."""
    held = tmp_path / "held.jsonl"
    held.write_bytes(lines([{text: row["text"]} for row in ROWS[:20]]))
    study = tmp_path / "study"
    study.mkdir(exist_ok=True)
    raw = {
        "name": "s", "task": "lm", "dataset": {"path": str(data), "text": text, "images": None},
        "evaluation": {"path": str(held)}, "ops": {"words_num_filter": {}, "text_length_filter": {}},
        "train": {"epochs": 0.5, "batch_size": 4, "keep_checkpoints": 0}, "model": {"preset": "tiny"},
        "search": {"strategy": "grid", "seeds": 1}, "budget": "30min",
    }  # fmt: skip
    (study / "study.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    return study


@pytest.mark.slow
@pytest.mark.parametrize("case", marked(TOLD, TRAINED))
def test_auto_trains_on_what_is_left(tmp_path: Path, case: str) -> None:
    files, _ = TOLD[case]
    shards = any(name.endswith(".tar") for name in files)
    study = to_train(tmp_path, placed(tmp_path, files), "txt" if shards else "text")
    done = run_djsb("auto", study, "--until", "probe", "--workers", 1, "--json")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["ended"] == "done" and len(found["leaderboard"]) >= 1, found


@pytest.mark.parametrize("case", marked(REFUSED, STOPPED))
def test_auto_refuses_in_one_line(tmp_path: Path, case: str) -> None:
    files, _ = REFUSED[case]
    study = to_train(tmp_path, placed(tmp_path, files), "text")
    error = the_error(run_djsb("auto", study, "--until", "probe", "--workers", 1))
    assert any(name in error for name in ("dàta", *files)), error
    assert not (study / "recipe.yaml").exists()


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    data = placed(tmp_path, {"train.jsonl": lines(ROWS), "test.jsonl": lines(ROWS[:9])})
    error = the_error(init(tmp_path, data, "--split", "validation"))
    assert "has no file of the split validation; its files by split: test (1), train (1); name one of them" in error


def test_links_that_lead_nowhere_or_in_a_ring_and_pipes_are_passed_by(tmp_path: Path) -> None:
    data = placed(tmp_path, {"a.jsonl": lines(ROWS), "b.txt": b""})
    (data / "b.jsonl").symlink_to(data / "gone.jsonl")
    (data / "ring").symlink_to(data)
    os.mkfifo(data / "c.jsonl")
    assert init(tmp_path, data).returncode == 0
    assert told(tmp_path).startswith("training rows: 60 of 60 rows")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    assert "is a pipe or a device, not a file" in the_error(init(tmp_path, tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("pattern", ["*/rows.jsonl", "{a,b}/rows.jsonl", ""])
def test_media_paths_start_from_the_folder_that_a_pattern_is_in(tmp_path: Path, pattern: str) -> None:
    for name, part in (("a", ROWS[:30]), ("b", ROWS[30:])):
        (tmp_path / "data" / name).mkdir(parents=True)
        rows = [{**row, "video": f"{name}/gone.mp4"} for row in part]
        (tmp_path / "data" / name / "rows.jsonl").write_bytes(lines(rows))
    assert init(tmp_path, tmp_path / "data" / pattern).returncode == 0
    checked = run_djsb("check", tmp_path / "study", "--workers", 1)
    assert checked.returncode == 1 and "Traceback" not in checked.stderr and "internal" not in checked.stderr
    assert "60 of 60 rows" in checked.stdout and "30 × missing file a/gone.mp4 (row 0)" in checked.stdout


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl.gz", "rows.tar"])
def test_a_full_disk_under_what_readers_keep(tmp_path: Path, name: str) -> None:
    """One line, and the same command goes on once there is space: rows kept as Parquet, unpacked, looked up."""
    words = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)]
    rows = [{"id": f"{i:05d}", "text": text} for i, text in enumerate(words)]
    if name.endswith(".tar"):
        content = tar([f"{i:05d}.txt" for i in range(20_000)])
    else:
        content = table(rows) if name.endswith(".csv") else gzip.compress(lines(rows), 1)
    data = placed(tmp_path, {name: content})
    with small_disk(tmp_path / "disk", 400) as mounted:
        if not mounted:
            pytest.skip("no file system may be mounted")
        study = tmp_path / "disk" / "study"
        error = the_error(run_djsb("init", study, "--data", data, "--task", "none")) if name == "rows.tar" else None
        assert error is None or ("free some space" in error and not (study / "study.yaml").exists())
        text = {"path": str(data), "text": "txt" if name == "rows.tar" else "text", "images": None}
        study.mkdir(exist_ok=True)
        (study / "study.yaml").write_text(
            yaml.safe_dump({"name": "s", "task": None, "dataset": text, "ops": {"words_num_filter": {}}})
        )
        checked = run_djsb("check", study, "--workers", 1)
        assert checked.returncode == 1 and "Traceback" not in checked.stderr
        assert "free some space" in checked.stdout + checked.stderr
        subprocess.run(["mount", "-o", "remount,size=2g", str(tmp_path / "disk")], check=True)
        checked = run_djsb("check", study, "--workers", 1)
        assert checked.returncode == 0 and "20000 of 20000 rows" in checked.stdout, checked.stdout + checked.stderr


def test_data_that_are_replaced_between_two_runs_are_read_again(tmp_path: Path) -> None:
    for write, name in ((lines, "rows.jsonl"), (table, "rows.csv"), (arrow, "rows.arrow"), (parquet, "rows.parquet")):
        folder = tmp_path / name
        folder.mkdir()
        data = placed(folder, {name: write(ROWS)})
        assert init(folder, data).returncode == 0
        assert "60 of 60 rows" in told(folder)
        data.write_bytes(write(ROWS[:40] if name != "rows.csv" else [{**row, "n": 1} for row in ROWS[:40]]))
        assert "40 of 40 rows" in told(folder)
