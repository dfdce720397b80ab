"""Data sets at addresses, from `init` over `check` and `pools` to two trials: over HTTP, and in a store like S3."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from engine.base import remote, remote_access
from tests import layouts
from tests.addresses import served
from tests.conftest import Tiny, run_djsb, run_until
from tests.whole.test_layouts import IMAGE, TEXT, small


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "base", "name", "fields"),
    [
        (layouts.parquet_shards, "http", "part-{00000..00001}.parquet", "text=text, images=image, id=id"),
        (layouts.shards, "s3", "cc3m-*.tar", "text=txt, images=jpg, id=__key__"),
        (layouts.json_lines, "http", "rows.jsonl", "text=text, images=image, id=id"),
    ],
    ids=["parquet_by_http", "shards_in_s3", "lines_by_http"],
)
def test_a_study_of_data_at_an_address(
    tmp_path: Path, make: object, base: str, name: str, fields: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_at = [Path(path) for path in layouts.both(make, tmp_path / "bucket")]  # type: ignore[arg-type]
    name = name if made_at[0].is_dir() else made_at[0].name
    with served(tmp_path) as server:
        for key, value in (
            ("AWS_ENDPOINT_URL", server.url), ("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ):  # fmt: skip
            monkeypatch.setenv(key, value)
        remote_access._store.cache_clear()
        remote_access._opened.cache_clear()
        remote.look_again()
        djsb = partial(run_djsb, start_new_session=True)
        root = f"{server.url}/bucket" if base == "http" else "s3://bucket"
        data, held = f"{root}/train/{name}", f"{root}/held/{name}"
        study = tmp_path / "study"
        made = djsb("init", study, "--data", data, "--eval", held, "--task", "clip")
        assert made.returncode == 0, made.stderr[-2000:]
        assert f"fields {fields}" in made.stderr.splitlines()[0]
        small(study, TEXT | IMAGE)
        assert f"path: {data}" in (study / "study.yaml").read_text().replace("'", "")
        checked = djsb("check", study, "--workers", 1, "--json")
        assert checked.returncode == 0, checked.stderr[-2000:]
        inputs = {i["input"]: i for i in json.loads(checked.stdout)["inputs"]}
        assert inputs["training rows"]["used"] == inputs["training rows"]["expected"] == layouts.TRAIN
        cut = djsb("pools", study, "--workers", 1, "--json")
        assert cut.returncode == 0 and len(json.loads(cut.stdout)["pools"]) >= 3, cut.stderr[-2000:]
        tiny = Tiny(tmp_path, [], [])
        run_until(tiny, 2)
        states = [state for _, state, _ in tiny.trials()]
        assert states.count("COMPLETE") == 2 and "FAIL" not in states, states
