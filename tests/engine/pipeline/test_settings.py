"""A job's settings: local ones, then inputs, then the iteration's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.pipeline.configuration import Job
from engine.pipeline.settings import drafted, in_folder, put


def groups(tmp_path: Path, inputs: dict[str, Any], **keys: Any) -> dict[str, Any]:
    made = Job("p", 0, "execution_job_configs", "TrainModelHook", "job", "job", **keys)
    draft, problems = drafted(made, tmp_path, inputs, 2)
    assert not problems
    return dict(draft.groups)


def test_inputs_come_after_local_settings(tmp_path: Path) -> None:
    found = groups(
        tmp_path, {"extra_configs.a.b": 3}, local={"extra_configs.a.b": 2, "extra_configs.c": 0}, extra={"a": {"b": 1}}
    )
    assert found["extra_configs"] == {"a": {"b": 3}, "c": 0}


def test_a_whole_group_may_be_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"export_path": "./o/x.jsonl"}', encoding="utf-8")
    found = groups(tmp_path, {"dj_configs": "recipe.json"}, dj="<replaced>" if False else None)
    assert found["dj_configs"] == {"export_path": "o/iter_2/x.jsonl"}


def test_the_users_own_values_stay_as_they_are(tmp_path: Path) -> None:
    own = {"process": [{"f": {"min": 1}}]}
    groups(tmp_path, {"dj_configs.process.f.min": 5}, dj=own)
    assert own == {"process": [{"f": {"min": 1}}]}


@pytest.mark.parametrize(
    "path, expected",
    [("./a/b.jsonl", "a/iter_1/b.jsonl"), ("a/b/", "a/b/iter_1"), ("a/.hidden", "a/.hidden/iter_1"), ("", ""),
     (["x.jsonl", "y"], ["iter_1/x.jsonl", "y/iter_1"])],
)  # fmt: skip
def test_where_the_iterations_folder_goes(path: Any, expected: Any) -> None:
    assert in_folder(path, "iter_1") == expected


def test_dotted_keys_reach_into_recipes() -> None:
    recipe: dict[str, Any] = {"process": [{"a_filter": None}, {"b_filter": {"min": 1}}]}
    assert put(recipe, "process.b_filter.min", 2) and put(recipe, "process.a_filter.max", 3)
    assert put(recipe, "process.1.b_filter.lang", "en")
    assert recipe["process"] == [{"a_filter": {"max": 3}}, {"b_filter": {"min": 2, "lang": "en"}}]
    assert not put(recipe, "process.c_filter.min", 2) and not put(recipe, "process.9.x", 2)
    assert not put({"a": 1}, "a.b", 2)
