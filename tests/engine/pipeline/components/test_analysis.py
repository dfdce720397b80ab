"""From raw rows to analysed ones, to a recipe refined by them, to the rows that it keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import ValidationError

from engine.base.errors import OpError
from engine.pipeline.contract import ComponentError
from engine.pipeline.hooks import ANALYZER, K_SIGMA, PROCESS
from tests.engine.pipeline.components.run import run_component

TEXTS = ["a", "a dog", "a dog and a cat", "the cat sees the dog", "x" * 300, "small red car"]


def rows(file: Path | str) -> list[Any]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"text": t, "n": n}) + "\n" for n, t in enumerate(TEXTS)))
    process = [{"text_length_filter": {"min_len": 2}}, {"words_num_filter": None}]
    return {"dataset_path": "d.jsonl", "export_path": "out/iter_1/a.jsonl", "process": process, "np": 2}


def test_rows_are_analysed_a_recipe_is_refined_and_applied(tmp_path: Path, data: dict[str, Any]) -> None:
    done = run_component(tmp_path, ANALYZER, dj={**data, "export_original_dataset": True, "percentiles": [0.333]})
    found = rows(done.outputs[0])
    assert [row["n"] for row in found] == [*range(6)]
    lengths = [len(text) for text in TEXTS]
    assert [row["__dj__stats__"] for row in found] == [
        {"text_len": length, "num_words": len(text.split())} for length, text in zip(lengths, TEXTS, strict=True)
    ]
    table = done.tracked["text_len"]
    assert table["mean"] == pytest.approx(np.mean(lengths)) and table["std"] == pytest.approx(np.std(lengths, ddof=1))
    assert list(table) == ["count", "mean", "std", "min", "25%", "33.3%", "50%", "75%", "max"]

    extra = {"path_k_sigma_recipe": "refined.yaml", "k": 1}
    (recipe,) = run_component(tmp_path, K_SIGMA, extra, data, tracked=done.tracked).outputs
    content = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
    bounds = content["process"][0]["text_length_filter"]
    assert bounds["max_len"] == int(np.ceil(np.mean(lengths) + np.std(lengths, ddof=1)))
    assert bounds["min_len"] < 0
    assert content["export_path"] == "out/a.jsonl"  # the next job gets the iteration's folder itself

    said: list[str] = []
    (kept,) = run_component(tmp_path, PROCESS, dj=content, say=said.append).outputs
    assert [row["n"] for row in rows(kept)] == [0, 1, 2, 3, 5]
    assert said == ["5 of 6 rows kept; 0 could not be read"]


def test_without_the_rows_the_statistics_alone_are_written(tmp_path: Path, data: dict[str, Any]) -> None:
    (out,) = run_component(tmp_path, ANALYZER, dj=data).outputs
    assert Path(out).name == "a_job_stats.jsonl"
    assert rows(out)[1] == {"__dj__stats__": {"text_len": 5, "num_words": 2}}


def test_images_are_named_from_anywhere_and_bad_ones_are_counted(tmp_path: Path) -> None:
    for n, size in enumerate([(8, 4), (6, 6)]):
        Image.new("RGB", size).save(tmp_path / f"{n}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    lines = [
        {"images": ["0.png", "1.png"], "text": "a"},
        {"images": "1.png", "text": "b"},
        {"images": ["2.png"], "text": "c"},
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    said: list[str] = []
    keys = {"dataset_path": "d.jsonl", "export_path": "out/a.jsonl", "export_original_dataset": True}
    process = [{"image_aspect_ratio_filter": {}}, {"text_length_filter": {}}, {"clean_email_mapper": {}}]
    done = run_component(tmp_path, ANALYZER, dj={**keys, "process": process}, say=said.append)
    found = rows(done.outputs[0])
    assert [row["__dj__stats__"].get("aspect_ratios") for row in found] == [[2.0, 1.0], [1.0], None]
    assert found[1]["images"] == [str(tmp_path / "1.png")]
    assert found[2]["__dj__stats__"] == {"text_len": 1}
    assert done.tracked["aspect_ratios"]["count"] == 3
    assert said[0].startswith("clean_email_mapper gives no statistic")
    assert said[1].startswith("image_aspect_ratio_filter could not read 1 of 3 rows")


def test_what_was_not_analysed_is_not_refined(tmp_path: Path, data: dict[str, Any]) -> None:
    with pytest.raises(ComponentError, match="text_len of text_length_filter was not analysed"):
        run_component(tmp_path, K_SIGMA, {"path_k_sigma_recipe": "r.yaml"}, data, tracked={"num_words": {"mean": 1.0}})
    with pytest.raises(ValidationError, match="path_k_sigma_recipe"):
        run_component(tmp_path, K_SIGMA, {"path_k_sigma_recipe": "r.txt"}, data)


def test_configurations_that_run_code_or_have_other_keys_are_refused(tmp_path: Path, data: dict[str, Any]) -> None:
    for more, message in (
        ({"process": [{"python_lambda_mapper": {"lambda_str": "1"}}]}, "runs code"),
        ({"process": [{"token_num_filter": {"trust_remote_code": True}}]}, "runs code"),
        ({"custom_operator_paths": ["x.py"]}, "custom_operator_paths is no key"),
        ({"export_pth": "x"}, "export_pth is no key"),
    ):
        with pytest.raises(ValidationError, match=message):
            run_component(tmp_path, PROCESS, dj={**data, **more})
    with pytest.raises(OpError, match="no_such_filter"):
        run_component(tmp_path, ANALYZER, dj={**data, "process": [{"no_such_filter": {}}]})


def test_a_list_is_written_as_a_list(tmp_path: Path, data: dict[str, Any]) -> None:
    (out,) = run_component(
        tmp_path, PROCESS, dj={**data, "process": data["process"][:1], "export_path": "out/a.json"}
    ).outputs
    assert [row["n"] for row in json.loads(Path(out).read_text(encoding="utf-8"))] == [1, 2, 3, 4, 5]


def test_an_analysis_for_a_list_is_a_list(tmp_path: Path, data: dict[str, Any]) -> None:
    dj = {**data, "export_path": "out/a.json", "export_original_dataset": True}
    (out,) = run_component(tmp_path, ANALYZER, dj=dj).outputs
    assert [row["n"] for row in json.loads(Path(out).read_text(encoding="utf-8"))] == [*range(6)]
    assert [file.name for file in Path(out).parent.iterdir()] == ["a.json"]


def test_rows_that_stay_keep_their_statistics_where_asked(tmp_path: Path, data: dict[str, Any]) -> None:
    dj = {**data, "process": data["process"][:1], "keep_stats_in_res_ds": True}
    (out,) = run_component(tmp_path, PROCESS, dj=dj).outputs
    assert [row["__dj__stats__"]["text_len"] for row in rows(out)] == [len(text) for text in TEXTS[1:]]


def test_ops_that_djsb_lacks_are_run_by_data_juicer(tmp_path: Path, data: dict[str, Any]) -> None:
    said: list[str] = []
    process = [{"text_length_filter": {"min_len": 2}}, {"random_selector": {"select_num": 2}}]
    dj = {**data, "process": process, "export_path": "out/a.json", "np": 1}
    (out,) = run_component(tmp_path, PROCESS, dj=dj, say=said.append).outputs
    assert len(json.loads(Path(out).read_text(encoding="utf-8"))) == 2
    assert said[0].startswith("run by Data-Juicer: ")
