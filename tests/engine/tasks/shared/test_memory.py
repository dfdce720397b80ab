"""The memory forecast: against what a training really saves, and for models of today's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.forecast import FAMILIES, beside
from engine.settings.study import Study
from engine.tasks.shared.memory import Memory, Shell, Way, activations, fitted, forecast, language, remedies
from engine.tasks.shared.procedure import Procedure, apply_checkpointing

FP32 = Procedure()
ERROR = 0.1  # by which the traced peak may be above what is saved: what operations hold for a moment


def llama(layers: int = 4, width: int = 128) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
            num_attention_heads=4, max_position_embeddings=256, tie_word_embeddings=True,
        )
    )  # fmt: skip


def shell(rows: int = 8, **size: int) -> Shell:
    with torch.device("meta"):
        return language(llama(**size), 128, rows)


def saved(model: Any, rows: int) -> int:
    """Bytes of what a real forward pass saves for its backward pass, weights aside."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        language(model, 128, rows).loss(model, rows)
    return sum(sizes.values())


@pytest.mark.parametrize("rows", [1, 8])
def test_traced_activations_are_those_that_a_training_saves(rows: int) -> None:
    measured = saved(llama().train(), rows)
    assert measured <= activations(shell(), rows, FP32) <= (1 + ERROR) * measured


def test_checkpointing_takes_less_and_is_traced_too() -> None:
    made = shell(layers=8)
    kept, again = (activations(made, 8, Procedure(checkpointing=on)) for on in (False, True))
    assert again < kept / 3


def test_checkpointing_leaves_every_gradient_as_it_is() -> None:
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        model = llama().train()
        apply_checkpointing(model, on)
        ids = torch.arange(64).reshape(2, 32)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_weights_gradients_and_moments_are_counted_and_shared() -> None:
    made = shell()
    number = sum(p.numel() for p in made.model.parameters())
    one, four = forecast(made, Way(1, FP32)), forecast(made, Way(1, FP32, 4))
    assert (one.weights, one.gradients, one.moments, one.gathered) == (4 * number, 4 * number, 8 * number, 0)
    assert (four.weights, four.gradients, four.moments) == (number, number, 2 * number)
    assert four.activations == one.activations and 0 < four.gathered < one.weights


def test_frozen_weights_take_two_bytes_and_moments_in_eight_bits_two() -> None:
    made = shell()
    made.model.requires_grad_(False)
    made.model.model.norm.weight.requires_grad_(True)
    number, trained = sum(p.numel() for p in made.model.parameters()), made.model.model.norm.weight.numel()
    found = forecast(made, Way(1, Procedure("bf16", "bf16", optimizer="adamw8bit")))
    assert found.weights == 2 * (number - trained) + 4 * trained
    assert found.gradients == 4 * trained and 2 * trained <= found.moments <= 2.1 * trained


def study(**train: Any) -> Study:
    return Study.model_validate(
        {"name": "s", "dataset": {"path": "x"}, "ops": {}, "train": {"batch_size": 64, **train}}
    )


def test_what_fits_is_halved_first_and_checkpointed_below_a_few_rows() -> None:
    made = shell(64, layers=8)

    def fit(memory: float, **train: Any) -> tuple[int, bool] | None:
        way = fitted(made, study(**train), FP32, int(memory))
        return way and (way.micro, way.procedure.checkpointing)

    whole = forecast(made, Way(64, FP32)).total / 0.9
    assert fit(1.01 * whole) == (64, False)
    assert fit(whole / 2) == (32, False) or fit(whole / 2) == (16, False)
    fixed = forecast(made, Way(8, FP32)).total / 0.9
    assert fit(0.9 * fixed) is not None and fit(0.9 * fixed)[1] is True  # type: ignore[index]
    assert fit(0.9 * fixed, activation_checkpointing="off") == (4, False)
    assert fit(1e6) is None


def test_remedies_name_what_would_fit() -> None:
    big = shell(2, layers=6)
    needed = forecast(big, Way(1, Procedure(checkpointing=True)))
    weights = (needed.weights + needed.gradients + needed.moments) / 0.9
    told = remedies(
        lambda _: shell(2, layers=6), study(batch_size=2), FP32, int(0.8 * weights + needed.activations / 0.9)
    )
    assert any(line.startswith("train.optimizer: adamw8bit") for line in told)
    assert any("devices a trial" in line for line in told)


@pytest.mark.parametrize(
    "name", [n if n in ("qwen2_5_vl", "wan-2.1") else pytest.param(n, marks=pytest.mark.long) for n in FAMILIES]
)
def test_every_family_is_forecast_as_its_training_allocates(name: str, tmp_path: Path) -> None:
    """Tiny models: what they hold beside their layers, as masks and places of tokens, is a larger part than it is."""
    told, measured = beside(*FAMILIES[name](name, tmp_path / "model"), 4)
    assert 0.95 * measured <= told <= 1.35 * measured


def test_what_does_not_hang_on_weights_is_computed_in_a_trace() -> None:
    """A model may ask how many tokens a mask chooses, and how long a list of sizes is."""
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    from engine.tasks.shared.tracing import Known

    with FakeTensorMode() as fake, Known(fake):
        weight = torch.empty(1 << 11, 1 << 10)
        ids = torch.tensor([3, 0, 3, 1])
        mask = ids == 3
        assert isinstance(weight, FakeTensor) and int(mask.sum()) == 2
        rows = weight[ids]
        assert rows.shape == (4, 1 << 10) and rows[mask].shape == (2, 1 << 10)
        assert torch.masked_select(rows, mask[:, None]).shape == (2 << 10,)
        assert [part.shape[0] for part in rows.split(torch.tensor([1, 3]).tolist())] == [1, 3]
        rows[mask] = 0.0
        filled = rows.masked_scatter(mask[:, None], weight[:2])
    assert isinstance(filled, FakeTensor) and filled.shape == (4, 1 << 10)


@pytest.mark.parametrize("name", ["LLaVA-1.5-7B", pytest.param("InternVL3-8B", marks=pytest.mark.long)])
def test_models_of_seven_and_eight_billion_weights_are_forecast(name: str) -> None:
    from benchmarks.forecast import shell as large

    full = forecast(large(name, False), Way(1, Procedure("bf16", "bf16", checkpointing=True)))
    lora: Memory = forecast(large(name, True), Way(1, Procedure("bf16", "bf16", checkpointing=True)))
    assert 100e9 < full.total < 130e9  # 16 bytes of each trained weight, and activations
    assert 14e9 < lora.total < 24e9
