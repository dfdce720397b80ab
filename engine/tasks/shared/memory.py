"""What a training takes of a GPU's memory, forecast without weights: counted sizes, and one traced step.

Weights, gradients and moments are counted. Activations are the most that a forward and a backward pass of a micro-batch
hold at once; they are run on tensors without content (tracing.py), so a model of any size is traced in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from engine.base.amounts import format_bytes
from engine.tasks.shared.fitting import USED, candidates, changed
from engine.tasks.shared.procedure import Procedure, apply_checkpointing, procedure_of, repeated_blocks, the_device
from engine.tasks.shared.tracing import Known, Peak, filled

if TYPE_CHECKING:
    from engine.settings.study import Study
    from engine.tasks.shared.weights import Weights

ADAPTERS = 16  # rank that is tried where adapters would make a training fit
MOMENTS = {"adamw": 8.0, "adamw8bit": 2 + 2 * 4 / 256}  # bytes a trained weight; in 8 bits with a scale for every 256


@dataclass(frozen=True)
class Shell:
    """A task's model on the device meta; what is trained of it requires gradients.

    loss: of so many rows, by a model like it. rows: of a batch. adapters: it has low-rank weights.
    """

    model: Any
    loss: Callable[[Any, int], torch.Tensor]
    rows: int
    adapters: bool = False


def without_weights(weights: Weights) -> Any:
    """The model of a checkpoint on the device meta, by its configuration."""
    import transformers

    library, _, name = weights.kind.rpartition(".")
    maker: Any = getattr(import_module(library), name)
    if library == "diffusers":
        with torch.device("meta"):
            return maker.from_config(maker.load_config(weights.folder, local_files_only=True))
    reader = transformers.AutoConfig if library == "transformers" else maker.config_class
    config = reader.from_pretrained(weights.folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return maker.from_config(config) if name.startswith("Auto") else maker(config)


def image_text(model: Any, side: int, text: int, rows: int, adapters: bool = False) -> Shell:
    """A Shell of a model that reads an image of `side` pixels, then `text` tokens."""

    def loss(like: Any, number: int) -> torch.Tensor:
        inner = like.get_base_model() if hasattr(like, "get_base_model") else like
        seen = inner.get_image_features(pixel_values=torch.empty(number, 3, side, side))
        seen = getattr(seen, "pooler_output", seen)
        seen = torch.cat(list(seen)) if isinstance(seen, tuple | list) else seen
        words = inner.get_input_embeddings()(torch.zeros(number, text, dtype=torch.long))
        inputs = torch.cat([seen.reshape(number, -1, words.shape[-1]).to(words.dtype), words], 1)
        labels = torch.zeros(inputs.shape[:2], dtype=torch.long)
        found: torch.Tensor = inner(inputs_embeds=inputs, labels=labels, use_cache=False).loss
        return found

    return Shell(model, loss, rows, adapters)


def language(model: Any, length: int, rows: int, adapters: bool = False) -> Shell:
    """A Shell of a causal language model on sequences of `length` tokens."""

    def loss(like: Any, number: int) -> torch.Tensor:
        ids = torch.zeros(number, length, dtype=torch.long)
        found: torch.Tensor = like(input_ids=ids, labels=ids, use_cache=False).loss
        return found

    return Shell(model, loss, rows, adapters)


@dataclass(frozen=True)
class Memory:
    """Bytes on each device. gathered: weights that several devices fetch from each other at a time."""

    weights: int
    gradients: int
    moments: int
    activations: int
    gathered: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.moments + self.activations + self.gathered

    def fits(self, memory: int) -> bool:
        """True on a device of so many bytes."""
        return self.total <= USED * memory

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in asdict(self).items() if size)
        return f"{format_bytes(self.total)} ({parts})"


@dataclass(frozen=True)
class Way:
    """How a model is trained, as far as its memory hangs on it. micro: rows at once on each device."""

    micro: int
    procedure: Procedure
    devices: int = 1


def forecast(shell: Shell, way: Way) -> Memory:
    """What each device takes."""
    sizes = list(_sizes(shell.model, way.procedure))
    trained = sum(p.numel() for p, _ in sizes if p.requires_grad)
    moments = MOMENTS[way.procedure.optimizer.split()[0]]
    share = way.devices
    return Memory(
        weights=sum(size for _, size in sizes) // share,
        gradients=4 * trained // share,
        moments=int(moments * trained) // share,
        activations=activations(shell, way.micro, way.procedure),
        gathered=_gathered(shell.model, way.procedure) if way.devices > 1 else 0,
    )


def _sizes(model: nn.Module, procedure: Procedure) -> Iterator[tuple[nn.Parameter, int]]:
    """Each weight with its bytes."""
    for parameter in model.parameters():
        yield parameter, parameter.numel() * _type(parameter, procedure).itemsize


def _type(parameter: torch.Tensor, procedure: Procedure) -> torch.dtype:
    is_frozen = not parameter.requires_grad
    return torch.bfloat16 if is_frozen and procedure.frozen == "bf16" else torch.float32


def _gathered(model: nn.Module, procedure: Procedure) -> int:
    """What is whole on each device at a time: weights outside of the blocks, a block and the next; a block's gradients.

    So FSDP2 has it, which fetches one block ahead.
    """
    blocks = repeated_blocks(model)
    inside = {p for block in blocks for p in block.parameters()}
    rest = sum(size for p, size in _sizes(model, procedure) if p not in inside)
    largest = max((sum(size for _, size in _sizes(block, procedure)) for block in blocks), default=0)
    gradients = max((sum(4 * p.numel() for p in block.parameters() if p.requires_grad) for block in blocks), default=0)
    return rest + 2 * largest + gradients


@lru_cache(32)
def activations(shell: Shell, micro: int, procedure: Procedure) -> int:
    """Bytes at most that a forward and a backward pass of `micro` rows hold, gradients of weights aside."""
    with FakeTensorMode() as fake:
        model = filled(shell.model, lambda weight: _type(weight, procedure))
        apply_checkpointing(model, procedure.checkpointing)
        model.train()
        with Known(fake), Peak(model) as peak:
            bf16 = procedure.precision == "bf16"
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
                loss = shell.loss(model, micro)
            loss.backward()  # type: ignore[no-untyped-call]
            del loss
    apply_checkpointing(shell.model, False)
    most: int = peak.most
    return most


def way_of(study: Study, procedure: Procedure, rows: int, devices: int = 1) -> Way:
    """How the study says that it trains batches of so many rows."""
    share = max(1, -(-rows // devices))
    return Way(min(share, study.train.micro_batch or share), procedure, devices)


def fitted(shell: Shell, study: Study, procedure: Procedure, memory: int, devices: int = 1) -> Way | None:
    """The way that fits on devices of so many bytes: rows at once are halved, activations made again; None: none does.

    Only what the study leaves open is chosen: `train.activation_checkpointing: auto`, and the rows at once.
    """
    for candidate in candidates(study, max(1, -(-shell.rows // devices))):
        checkpointing = candidate.train.activation_checkpointing == "on"
        micro = candidate.train.micro_batch or 1
        way = Way(micro, replace(procedure, checkpointing=checkpointing), devices)
        one, two = (forecast(shell, replace(way, micro=rows)) for rows in (1, 2))  # traced once
        each = two.activations - one.activations
        if replace(one, activations=one.activations + (micro - 1) * each).fits(memory):
            return way
    return None


def remedies(shells: Callable[[Study], Shell | None], study: Study, procedure: Procedure, memory: int) -> list[str]:
    """What would make a training fit that does not, the least change first. shells: the shell of a changed study.

    Raises nothing: where nothing of it helps, the list is empty.
    """
    found = []
    lora = study.lora.model_copy(update={"rank": ADAPTERS})
    eight = replace(procedure, optimizer="adamw8bit")
    ways = {
        "train.optimizer: adamw8bit": (study, eight, 1),
        f"lora.rank: {ADAPTERS}": (study.model_copy(update={"lora": lora}), procedure, 1),
        **{f"{n} devices a trial": (study, procedure, n) for n in (2, 4, 8)},
    }
    for words, (other, how, devices) in ways.items():
        if "lora" in words and study.lora.rank:
            continue
        free = changed(other, activation_checkpointing="auto")
        shell = shells(other)
        if shell and (way := fitted(shell, free, how, memory, devices)):
            with_it = " with train.activation_checkpointing: on" if way.procedure.checkpointing else ""
            found.append(f"{words}{with_it}, {way.micro} rows at once")
            if "devices" in words:
                break
    return found


def advice_of(shells: Callable[[Study], Shell | None], study: Study, memory: int) -> str:
    """What would make a training fit that does not. shells: the model without weights, of a study."""
    told = remedies(shells, study, procedure_of(study, the_device()), memory)
    return "by its forecast these would: " + "; ".join(told) if told else "use a GPU with more memory"
