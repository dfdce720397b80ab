"""Rows put to a server, and what it says compared with the truth."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engine.base.errors import PoolError
from engine.pipeline.contract import ComponentError, Draft
from engine.pipeline.hooks import EVALUATE_DATA, INFER
from engine.pipeline.registry import component_of
from engine.pipeline.work import chat
from tests.agent.server import Raw, serving, text
from tests.engine.pipeline.components.run import run_component


def write(file: Path, rows: list[Any]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file.name


def rows(file: str) -> list[Any]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Any], list[str]]]:
    """Run inference on d.jsonl against a server of a script; (rows written, what was said)."""
    monkeypatch.setattr(chat.time, "sleep", lambda _: None)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdefghij")

    def run(script: Callable[[Any], Any], **extra: Any) -> tuple[list[Any], list[str]]:
        said: list[str] = []
        with serving(script) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            keys = {"type": "api", "model": "m", "dataset_path": "d.jsonl", "export_path": "out", **extra}
            (made,) = run_component(tmp_path, INFER, keys, say=said.append).outputs
        return rows(made[0]), said

    return run


def test_each_row_gets_the_reply_to_its_own_question(tmp_path: Path, ask: Callable[..., Any]) -> None:
    write(tmp_path / "d.jsonl", [{"q": f"q{n}", "s": "be brief", "r": n} for n in range(9)])
    names = {"query_key": "q", "system_key": "s", "response_key": "r"}

    def script(body: Any) -> Any:
        return text(" / ".join(message["content"] for message in body["messages"]))

    found, said = ask(
        script, func_kwargs=names, infer_res_key="grades", build_messages_func="build_messages_for_math_qa"
    )
    assert [row["grades"] for row in found] == [f"be brief / Question: q{n}\nAnswer: {n}" for n in range(9)]
    assert said == ["1 of 1: 9 rows answered, d_inference.jsonl"]


def test_a_server_that_fails_is_asked_again_and_one_that_refuses_is_not(
    tmp_path: Path, ask: Callable[..., Any]
) -> None:
    write(tmp_path / "d.jsonl", [{"query": "a"}])
    answers = [Raw(b"busy", 503), Raw(b"slow down", 429), text("b")]
    found, _ = ask(lambda _: answers.pop(0))
    assert found == [{"query": "a", "response": "b"}]
    with pytest.raises(ComponentError, match="no reply after 3 tries: status 503 busy"):
        ask(lambda _: Raw(b"busy", 503), max_retry_num=2)
    tries: list[int] = []
    with pytest.raises(ComponentError, match=r"gave no reply: status 401 .*set OPENAI_API_KEY") as told:
        ask(lambda _: tries.append(1) or Raw(b"key sk-0123456789abcdefghij", 401))
    assert len(tries) == 1
    assert "sk-0123" not in str(told.value)
    with pytest.raises(ComponentError, match=r"nothing at choices\.0\.text"):
        ask(lambda _: text("b"), response_path="choices.0.text")


def test_a_server_that_is_not_there_and_a_field_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat.time, "sleep", lambda _: None)
    write(tmp_path / "d.jsonl", [{"query": "a"}])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    keys = {"type": "api", "model": "m", "dataset_path": "d.jsonl", "export_path": "out"}
    with pytest.raises(ComponentError, match="after 2 tries: ConnectionError"):
        run_component(tmp_path, INFER, {**keys, "max_retry_num": 1, "model_params": {"base_url": url}})
    with pytest.raises(ComponentError, match="row 0 has no prompt; set func_kwargs"):
        run_component(tmp_path, INFER, {**keys, "func_kwargs": {"query_key": "prompt"}})


def test_keys_stand_in_no_configuration_and_vllm_is_named_where_it_lacks() -> None:
    api, vllm = component_of(INFER, "api"), component_of(INFER, "vllm")
    assert api and vllm
    told = list(api.check(Draft({"extra_configs": {"model_params": {"api_key": "x"}}})))
    assert told == [("extra_configs.model_params.api_key", "is a key in a file; remove it, and set OPENAI_API_KEY")]
    ((key, reason),) = vllm.check(Draft({}))
    assert (key, reason.split(";")[0]) == ("extra_configs.type", "the package vllm is not installed")


def test_vllm_is_asked_as_its_interface_wants_and_runs_no_code_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class LLM:  # vLLM's own takes these
        def __init__(self, model: str, *, tensor_parallel_size: int = 1, **more: Any) -> None:
            asked.append((model, tensor_parallel_size, more))

        def chat(self, messages: Any, sampling_params: Any) -> list[Any]:
            said = f"{messages[-1]['content']} at {sampling_params.temperature}"
            return [SimpleNamespace(outputs=[SimpleNamespace(text=said)])]

    played = ModuleType("vllm")
    played.__spec__ = ModuleSpec("vllm", None)
    played.LLM, played.SamplingParams = LLM, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", played)
    write(tmp_path / "d.jsonl", [{"query": "a"}, {"query": "b"}])
    (made,) = run_component(tmp_path, INFER, {
        "type": "vllm", "model": "org/model", "dataset_path": "d.jsonl", "export_path": "out",
        "model_params": {"max_model_len": 64, "trust_remote_code": True}, "sampling_params": {"temperature": 0.5},
    }).outputs  # fmt: skip
    assert asked == [("org/model", 1, {"max_model_len": 64})]
    assert [row["response"] for row in rows(made[0])] == ["a at 0.5", "b at 0.5"]


def evaluate(root: Path, kind: str, **keys: Any) -> Any:
    return run_component(root, EVALUATE_DATA, {"type": kind, **keys}).outputs


def test_squared_errors_and_replies_that_are_no_numbers(tmp_path: Path) -> None:
    a = write(
        tmp_path / "a.jsonl", [{"g": "0.5", "t": {"x": 1}}, {"g": "none", "t": {"x": 0}}, {"g": 2, "t": {"x": 1}}]
    )
    b = write(tmp_path / "b.jsonl", [{"g": "no", "t": {"x": 1}}])
    keys = {"predicted_value_key": "g", "ground_truth_value_key": "t.x"}
    results, best = evaluate(tmp_path, "mse", predicted_dataset_path=[a, b], **keys)
    assert [(r["mse"], r["format_error"]) for r in results] == [(0.625, 1), (None, 1)]
    assert best == 0.625
    with pytest.raises(ComponentError, match="a number in no row"):
        evaluate(tmp_path, "mse", predicted_dataset_path=b, **keys)
    with pytest.raises(ComponentError, match=r"no row of a\.jsonl has h"):
        evaluate(tmp_path, "mse", predicted_dataset_path=a, **{**keys, "predicted_value_key": "h"})


def test_accuracy_with_the_truth_in_another_file(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [{"l": 1}, {"l": "2"}, {}, {"l": "x"}])
    b = write(tmp_path / "b.jsonl", [{"t": "1"}, {"t": 2}, {"t": None}, {"t": "y"}])
    keys = {"predicted_label_key": "l", "ground_truth_label_key": "t"}
    results, best = evaluate(tmp_path, "accuracy", predicted_dataset_path=a, ground_truth_dataset_path=b, **keys)
    assert results == [{"pred_path": a, "gt_path": b, "accuracy": 0.5}]
    assert best == 0.5
    one = write(tmp_path / "one.jsonl", [{"t": 1}])
    with pytest.raises(ComponentError, match=r"has 4 rows and one\.jsonl 1"):
        evaluate(tmp_path, "accuracy", predicted_dataset_path=a, ground_truth_dataset_path=one, **keys)
    with pytest.raises(PoolError, match="no such pool"):
        evaluate(tmp_path, "accuracy", predicted_dataset_path="no.jsonl", **keys)
