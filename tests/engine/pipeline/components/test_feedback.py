"""What a model says becomes statistics, and they become bounds of a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from engine.pipeline.contract import ComponentError
from engine.pipeline.hooks import INFER, MODEL_FEEDBACK, MODEL_PROBE
from tests.agent.server import serving, text
from tests.engine.data.tiny_models import causal
from tests.engine.pipeline.components.run import run_component


def rows(file: str) -> list[Any]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def test_replies_become_statistics_and_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model likes texts of 40 to 79 letters; the recipe comes to keep those."""
    lengths = list(range(0, 200, 2))
    data = [{"text": "x" * n, "__dj__stats__": {"text_len": n}} for n in lengths]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")

    def script(body: Any) -> Any:
        said = body["messages"][-1]["content"]
        return text("none" if not said.strip("-") else "1" if 40 <= len(said) < 80 else "0.5")

    sample = {"dataset_path": "d.jsonl", "export_path": "out/probed.jsonl"}
    asked = {"type": "api", "model": "m", "func_kwargs": {"query_key": "text"}, "infer_res_key": "liked"}
    with serving(script) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        done = run_component(tmp_path, MODEL_PROBE, asked, sample)
        part = run_component(tmp_path, MODEL_PROBE, asked, {**sample, "data_probe_ratio": 0.1, "export_path": "out/p"})
    found = rows(done.outputs[0])
    assert found[30]["liked"] == "1"
    assert found[30]["__dj__stats__"] == {"text_len": 60, "liked": 1.0, "liked_len": 1.0}
    assert done.tracked["liked"]["count"] == 99  # the empty text got a reply that is no number
    assert len(rows(part.outputs[0])) == 10
    process = [{"text_length_filter": {"min_len": 0}}, {"clean_email_mapper": None}]
    dj = {"dataset_path": "d.jsonl", "export_path": "out/iter_2/d.jsonl", "process": process}
    extra = {"dataset_path": done.outputs[0], "path_model_feedback_recipe": "r.yaml", "feedback_key": "liked"}
    (recipe,) = run_component(tmp_path, MODEL_FEEDBACK, {**extra, "ratio": 0.2, "percentiles": [0, 1]}, dj).outputs
    content = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
    assert content["process"] == [{"text_length_filter": {"min_len": 40, "max_len": 78}}, {"clean_email_mapper": {}}]
    with pytest.raises(ComponentError, match="set feedback_key to one of: text_len"):
        run_component(tmp_path, MODEL_FEEDBACK, {**extra, "feedback_key": "loved"}, dj)
    with pytest.raises(ComponentError, match="bounds need 10"):
        run_component(tmp_path, MODEL_FEEDBACK, {**extra, "ratio": 0.01}, dj)


@pytest.mark.long
def test_a_model_here_replies_and_says_how_hard_a_text_is(tmp_path: Path) -> None:
    causal(tmp_path)
    (tmp_path / "d.jsonl").write_text('{"text": "a small dog"}\n{"text": "the cat sees"}\n', encoding="utf-8")
    asked = {"type": "huggingface", "model": str(tmp_path), "func_kwargs": {"query_key": "text"}}
    asked["sampling_params"] = {"max_new_tokens": 2, "do_sample": False}
    done = run_component(tmp_path, MODEL_PROBE, asked, {"dataset_path": "d.jsonl", "export_path": "out/p.jsonl"})
    losses = [row["__dj__stats__"]["model_loss"] for row in rows(done.outputs[0])]
    assert np.isfinite(losses).all() and losses[0] != losses[1]
    assert done.tracked["model_loss"]["mean"] == pytest.approx(np.mean(losses))
    (made,) = run_component(tmp_path, INFER, {**asked, "dataset_path": "d.jsonl", "export_path": "out"}).outputs
    assert [row["response"] for row in rows(made[0])] == [row["response"] for row in rows(done.outputs[0])]
    with pytest.raises(ComponentError, match="is no model that opens"):
        run_component(tmp_path, INFER, {**asked, "model": "none", "dataset_path": "d.jsonl", "export_path": "out"})
