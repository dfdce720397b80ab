"""What `apply` and `export pool` write is a dataset: `djsb check` reads every row of it, and misses no file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Tiny, run_djsb

RECIPE = "text_keys: text\nimage_key: images\nprocess: [{text_length_filter: {min_len: 12}}]"
FIELDS, SAMPLE = "text: text, images: images, id: id", "text: txt, images: png"  # what a WebDataset calls them


def checked(out: Path, fields: str, rows: int) -> None:
    """A study without a task on what was written."""
    study = out.parent / f"study-{out.name}"
    study.mkdir()
    (study / "study.yaml").write_text(
        f"name: x\ndataset: {{path: {out}, {fields}}}\nops: {{text_length_filter: {{}}}}\n"
    )
    done = run_djsb("check", study)
    assert done.returncode == 0 and f"training rows: {rows} of {rows} rows" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "parquet", "webdataset"])
def test_check_finds_all_of_what_was_applied(tiny: Tiny, tmp_path: Path, form: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    out = tmp_path / "other" / form.replace(".", "-")
    media = ["--with-media"] if form == "jsonl.gz" else []
    command = ["apply", tmp_path / "recipe.yaml", "--data", tiny.train_file, "--out", out, "--json"]
    done = run_djsb(*command, "--format", form, "--shard-rows", "50", *media)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows_out"]
    assert 100 < rows < 240 and len(list(out.glob("part-*"))) == -(-rows // 50)
    checked(out, SAMPLE if form == "webdataset" else FIELDS, rows)


@pytest.mark.slow
def test_check_finds_all_of_an_exported_pool(tiny: Tiny, tmp_path: Path) -> None:
    pools = run_djsb("pools", tiny.study, "--json")
    assert pools.returncode == 0, pools.stderr
    pool = json.loads(pools.stdout)["pools"][0]["pool"]
    out = tmp_path / "pool"
    done = run_djsb("export", "pool", pool, "--dir", tiny.study, "--out", out, "--shard-rows", "20")
    assert done.returncode == 0, done.stderr
    rows = sum(len(shard.read_text().splitlines()) for shard in out.iterdir())
    assert rows > 20 and f"{rows} rows written" in done.stderr + done.stdout
    checked(out, FIELDS, rows)
