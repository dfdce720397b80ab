"""Data sets at addresses, from `init` over `check` and `pools` to two trials: over HTTP, and in a store like S3."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from engine.base import remote, remote_access
from tests import layouts
from tests.addresses import served
from tests.conftest import run_djsb
from tests.whole.test_layouts import IMAGE, TEXT, go_to_two_trials


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "base", "name", "fields"),
    [
        pytest.param(
            layouts.parquet_shards,
            "http",
            "part-{00000..00001}.parquet",
            "text=text, images=image, id=id",
            marks=pytest.mark.long,
        ),
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
        go_to_two_trials(djsb, tmp_path, data, held, "clip", fields, TEXT | IMAGE)
        assert f"path: {data}" in (tmp_path / "study" / "study.yaml").read_text().replace("'", "")
