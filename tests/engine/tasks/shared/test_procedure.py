"""How a training goes on its device: what the rules say, and that they are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.base.errors import MachineError, StudyError
from engine.settings.study import Study
from engine.tasks.contract import Job, Report
from engine.tasks.shared import batches
from engine.tasks.shared.fitting import candidates, fit_memory, pays
from engine.tasks.shared.procedure import begin, make_optimizer, procedure_of, repeated_blocks, the_device
from engine.tasks.shared.training import Course, accumulate, fit

CPU = torch.device("cpu")


def study(**train: Any) -> Study:
    return Study.model_validate({"name": "s", "dataset": {"path": "x"}, "ops": {}, "train": {"batch_size": 8, **train}})


@pytest.fixture(autouse=True)
def as_before() -> Any:
    yield
    begin(study(), CPU)
    batches._room["resident"] = True


def two_layers() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 128), torch.nn.Tanh(), torch.nn.Linear(128, 8))


def trained(model: Any, own: Study, **job: Any) -> dict[str, Any]:
    """Four steps; how it said that it was trained."""
    facts: dict[str, Any] = {}
    begin(own, CPU)
    parts = Course(8, int(job.pop("samples", 32)) // 8, 4)

    def loss(rows: Any) -> torch.Tensor:
        made = torch.Generator().manual_seed(int(rows[0]))
        inputs = torch.randn(8, 8, generator=made)
        return accumulate(CPU, 8, 4, lambda at: (model(inputs[at]) - inputs[at]).float().square().sum() / 8)

    report = Report(lambda *_: None, describe=lambda trial, told: facts.update(told, trial=trial))
    order = iter([[1], [2], [3], [4]])
    assert fit(model, own, Job("t", "", 32, 0, None, "", **job), report, parts, order=order, inputs=iter, backward=loss)  # type: ignore[arg-type]
    return facts


def test_on_a_cpu_all_is_as_torch_has_it() -> None:
    found = procedure_of(study(), CPU)
    assert (found.precision, found.frozen, found.checkpointing, found.compiled) == ("fp32", "fp32", False, False)
    optimizer = make_optimizer(study(), two_layers().parameters(), CPU)
    assert type(optimizer) is torch.optim.AdamW and optimizer.param_groups[0]["fused"] is None


def test_in_bf16_trained_weights_are_fp32_and_frozen_ones_bf16_and_the_trial_says_so() -> None:
    model = two_layers()
    model[0].requires_grad_(False)
    facts = trained(model, study(precision="bf16"))
    assert {name: p.dtype for name, p in model.named_parameters()} == {
        "0.weight": torch.bfloat16, "0.bias": torch.bfloat16, "2.weight": torch.float32, "2.bias": torch.float32,
    }  # fmt: skip
    assert (facts["trial"], facts["precision"], facts["frozen"]) == ("t", "bf16", "bf16")
    assert facts["optimizer"] == "adamw" and facts["checkpointing"] is False
    assert facts["kernels"] == "one by one: a CPU"


def test_bf16_differs_from_fp32_by_its_rounding_only() -> None:
    weights = {}
    for precision in ("fp32", "bf16"):
        model = two_layers()
        trained(model, study(precision=precision))
        weights[precision] = model[2].weight.detach()
    off = (weights["bf16"] - weights["fp32"]).abs().max()
    assert 0 < off < 0.02


def test_checkpointing_is_refused_where_a_model_has_none() -> None:
    with pytest.raises(StudyError, match="a Sequential has none"):
        trained(two_layers(), study(activation_checkpointing="on"))


def test_repeated_blocks_are_the_layers() -> None:
    from transformers import CLIPConfig, CLIPModel

    from engine.tasks.clip.model import PRESETS, clip_config

    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**clip_config(PRESETS["tiny"])))
    assert [type(b).__name__ for b in repeated_blocks(model)] == ["CLIPEncoderLayer"] * 2


def test_an_optimizer_in_eight_bits_is_refused_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.tasks.shared.procedure.find_spec", lambda _: None)
    with pytest.raises(StudyError, match=r"needs bitsandbytes; install with: pip install 'djsb\[adam8\]'"):
        begin(study(optimizer="adamw8bit"), CPU)


def test_an_optimizer_in_eight_bits_pauses_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    eight = study(optimizer="adamw8bit", learning_rate=0.01)
    whole, half, rest = two_layers(), two_layers(), two_layers()
    trained(whole, eight)
    assert trained(half, eight, samples=16, pause=str(tmp_path / "state"))["optimizer"] == "adamw8bit"
    trained(rest, eight, resume=str(tmp_path / "state"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), rest.parameters(), strict=True))
    assert not torch.equal(half[0].weight, rest[0].weight)


def test_a_worker_of_a_gpu_never_trains_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.runner.preflight import check_device

    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    check_device()  # of a CPU's worker
    monkeypatch.setenv("DJSB_DEVICE", "gpu3")
    for function in (check_device, the_device):
        with pytest.raises(MachineError, match=r"gpu3: torch .* built without CUDA|gpu3: torch sees no GPU"):
            function()


def test_rows_at_once_are_halved_before_anything_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_resident", {})
    tried = []

    def attempt(candidate: Study) -> bool:
        tried.append((candidate.train.micro_batch, candidate.train.activation_checkpointing))
        if len(tried) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return len(tried) == 3

    found = fit_memory(study(batch_size=64), 64, attempt, lambda: "")
    assert tried == [(64, "off"), (32, "off"), (16, "off")]
    assert (found.train.micro_batch, found.train.activation_checkpointing) == (16, "off")


def test_data_leave_the_device_before_fewer_rows_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batches._resident, (Path("x"), "cuda"), (torch.zeros(1), torch.zeros(1)))
    tried = []

    def attempt(candidate: Study) -> bool:
        tried.append(candidate.train.micro_batch)
        if batches._resident:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return True

    assert fit_memory(study(), 8, attempt, lambda: "").train.micro_batch == 8
    assert tried == [8, 8] and batches._room == {"resident": False}


def test_activations_are_made_again_before_few_rows_go_at_once_and_what_the_study_says_stands() -> None:
    def ways(rows: int, **train: Any) -> list[tuple[int | None, str]]:
        found = candidates(study(**train), rows)
        return [(c.train.micro_batch, c.train.activation_checkpointing) for c in found]

    assert ways(16) == [(16, "off"), (8, "off"), (16, "on"), (8, "on"), (4, "on"), (2, "on"), (1, "on")]
    assert ways(4) == [(4, "off"), (4, "on"), (2, "on"), (1, "on")]
    assert ways(4, activation_checkpointing="off") == [(4, "off"), (2, "off"), (1, "off")]
    assert ways(16, micro_batch=2) == [(2, "off"), (2, "on"), (1, "on")]


def test_what_never_fits_is_refused_with_advice_and_other_errors_are_no_lack_of_memory() -> None:
    def never(_: Study) -> bool:
        return False

    with pytest.raises(MachineError, match=r"does not fit the GPU, with 1 row at once either; use LoRA"):
        fit_memory(study(), 8, never, lambda: "use LoRA")

    def wrong(_: Study) -> bool:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        fit_memory(study(), 8, wrong, lambda: "")


def test_blocks_are_compiled_where_a_trial_gets_shorter_with_the_compilation_counted() -> None:
    assert pays(alone=1.0, compiled=0.5, cost=30, samples=100)
    assert not pays(alone=1.0, compiled=0.5, cost=30, samples=50)
    assert not pays(alone=1.0, compiled=0.97, cost=0, samples=1000)
