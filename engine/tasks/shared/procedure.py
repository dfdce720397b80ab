"""How a training goes on its device: precision, attention, checkpointing of activations, optimiser, compiled blocks.

All of it follows from the study and the device by the rules here, so that the trials of a comparison do not differ. On
a CPU the rules say fp32 and torch's own defaults.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from engine.base.errors import MachineError, StudyError
from engine.settings.model import TrainSection
from engine.settings.study import Study

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["fp32", "tf32", "bf16"]
T = TypeVar("T")
DETERMINISTIC = {"strict": True}  # until a kernel is missing
LOG = logging.getLogger("djsb")


@dataclass(frozen=True)
class Procedure:
    """What is the same for all trials of a study on devices of one kind.

    precision: of products. frozen: type of weights that are not trained; trained ones are fp32. checkpointing: of
    activations. optimizer: with its kernels. compiled: the model's blocks are. micro_batch: rows at once; None: all.
    """

    precision: Precision = "fp32"
    frozen: Literal["fp32", "bf16"] = "fp32"
    attention: str = "sdpa"
    checkpointing: bool = False
    optimizer: str = "adamw"
    compiled: bool = False
    micro_batch: int | None = None


_now: dict[str, Procedure] = {}  # by the kind of device; torch's own flags are the process's as well


def the_device() -> torch.device:
    """The device of this worker. Raises: MachineError where it was given a GPU that torch does not see."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("DJSB_DEVICE", "").startswith("gpu"):
        raise MachineError(f"{os.environ['DJSB_DEVICE']}: {unseen()}")
    return torch.device("cpu")


def unseen() -> str:
    """Why torch sees no GPU, and what to do."""
    import torch

    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return f"torch {torch.__version__} is built without CUDA; install one that has it, or set CUDA_VISIBLE_DEVICES="
    return "torch sees no GPU; check the driver (nvidia-smi), or set CUDA_VISIBLE_DEVICES= to train on the CPU"


def precision_of(study: Study, device: torch.device) -> Precision:
    """`train.precision`; auto: bf16 on a GPU that has it, tf32 on an older one, fp32 on a CPU."""
    import torch

    if study.train.precision != "auto":
        return study.train.precision
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "tf32"


def procedure_of(study: Study, device: torch.device) -> Procedure:
    """How the study's trials are trained on a device of this kind."""
    precision, train = precision_of(study, device), study.train
    return Procedure(
        precision=precision,
        frozen="bf16" if precision == "bf16" else "fp32",
        checkpointing=train.activation_checkpointing == "on",
        optimizer=train.optimizer + (" fused" if _is_fused(train, device) else ""),
        compiled=train.compile == "on" and device.type == "cuda",
        micro_batch=train.micro_batch,
    )


def begin(study: Study, device: torch.device | None = None) -> Procedure:
    """Set what holds for the whole process; called before a model is built. Raises: StudyError, MachineError."""
    import torch

    device = device or the_device()
    if study.train.optimizer == "adamw8bit" and find_spec("bitsandbytes") is None:
        raise StudyError("train.optimizer adamw8bit needs bitsandbytes; install with: pip install 'djsb[adam8]'")
    found = _now[device.type] = procedure_of(study, device)
    torch.set_float32_matmul_precision("highest" if found.precision == "fp32" else "high")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = found.precision != "fp32"
        torch.backends.cudnn.benchmark = False  # it would choose kernels by the clock
    return found


def current(device: torch.device) -> Procedure:
    """What `begin` has set for a device of this kind, or its defaults."""
    return _now.get(device.type) or Procedure(precision="fp32" if device.type == "cpu" else "bf16")


def autocast(device: torch.device, keep: bool = True) -> torch.autocast:
    """bf16 where the procedure says so. keep: weights stay as they were cast until the block's end."""
    import torch

    enabled = current(device).precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=keep)


def as_trained(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function of a tensor in the precision of the training."""

    def run(given: torch.Tensor) -> torch.Tensor:
        with autocast(given.device):
            return function(given)

    return run


def load_dtype(study: Study) -> Any:
    """The `dtype` of `from_pretrained`: fp32, or with bf16 that of the file, and bf16 where adapters are trained.

    `settle` makes trained weights fp32.
    """
    import torch

    if precision_of(study, the_device()) != "bf16":
        return torch.float32
    return torch.bfloat16 if study.lora.rank else "auto"


def frozen_dtype(study: Study) -> torch.dtype:
    """The type of a model that no trial of the study trains."""
    import torch

    return torch.bfloat16 if precision_of(study, the_device()) == "bf16" else torch.float32


def settle(model: nn.Module, study: Study) -> None:
    """Give each weight its type by whether it is trained, and the model its checkpointing and its compiled blocks.

    Called when it is settled what is trained. An update is too small a part of a weight for bf16, so trained ones are
    fp32.
    """
    import torch

    found = procedure_of(study, next(model.parameters()).device)
    frozen = torch.bfloat16 if found.frozen == "bf16" else torch.float32
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else frozen)
    apply_checkpointing(model, found.checkpointing)
    if found.compiled:
        for block in repeated_blocks(model):
            block.compile()


def apply_checkpointing(model: Any, on: bool) -> None:
    """Have activations made again in the backward pass, block by block; the gradients stay the same.

    model: of transformers, diffusers or peft. Raises: StudyError where it cannot.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if on == any(getattr(module, "gradient_checkpointing", False) for module in inner.modules()):
        return
    if hasattr(inner, "activation_checkpointing_enable") and on:
        inner.activation_checkpointing_enable({"use_reentrant": False})
    elif hasattr(inner, "activation_checkpointing_disable"):
        inner.activation_checkpointing_disable()
    elif hasattr(inner, "mid_block") and not inner._supports_gradient_checkpointing:  # diffusers' UNet3DConditionModel
        for block in [*inner.down_blocks, inner.mid_block, *inner.up_blocks]:
            _made_again(block, on)
    elif hasattr(inner, "enable_gradient_checkpointing"):
        inner.enable_gradient_checkpointing() if on else inner.disable_gradient_checkpointing()
    else:
        raise StudyError(f"train.activation_checkpointing: a {type(inner).__name__} has none; set it to off")


def _made_again(block: Any, on: bool) -> None:
    """Have a block that has no checkpointing of its own make its activations again, or no longer."""
    from torch.utils.checkpoint import checkpoint

    block.gradient_checkpointing = on
    if on:
        block.forward = partial(checkpoint, type(block).forward.__get__(block), use_reentrant=False)
    else:
        block.__dict__.pop("forward", None)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The layers that a model repeats: the members of its lists of two or more modules of one class, the outermost."""
    from torch import nn

    if isinstance(model, nn.ModuleList) and len(model) > 1 and len({type(m) for m in model}) == 1:
        return list(model)
    return [block for child in model.children() for block in repeated_blocks(child)]


def _is_fused(train: TrainSection, device: torch.device) -> bool:
    return train.optimizer == "adamw" and device.type == "cuda"


def described(model: nn.Module, study: Study, device: torch.device) -> dict[str, Any]:
    """The procedure as it is kept with a trial. model: whose attention it is."""
    inner: Any = model
    attention = getattr(getattr(inner, "config", None), "_attn_implementation", None) or "sdpa"
    return {**asdict(procedure_of(study, device)), "attention": attention, "kernels": _kernels(study, device)}


def _kernels(study: Study, device: torch.device) -> str:
    """How operations are launched, and why so.

    CUDA graphs are not taken: one keeps its buffers as long as the model lives, beside evaluation and the next trial.
    """
    if device.type != "cuda":
        return "one by one: a CPU"
    why = {
        "on": "compiled blocks, without CUDA graphs, whose buffers would stay",
        "off": "one by one: train.compile is off",
        "auto": "one by one: no timing says that compiled blocks make a trial shorter",
    }
    return why[study.train.compile]


def strictly(backward: Callable[[T], torch.Tensor], batch: T, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """`backward` of a batch with deterministic kernels only; where one does not exist, from then on with a warning.

    Under a warning alone, attention of a masked batch takes a kernel whose gradients differ from run to run.
    """
    import torch

    if not torch.cuda.is_available() or DETERMINISTIC["strict"] is False:
        return backward(batch)
    torch.set_deterministic_debug_mode("error")
    try:
        return backward(batch)
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        LOG.warning("training is not bit for bit the same each time: %s", str(error).split(".")[0])
        DETERMINISTIC["strict"] = False
    finally:
        torch.set_deterministic_debug_mode("warn")
    optimizer.zero_grad(set_to_none=True)
    return backward(batch)


def make_optimizer(
    study: Study, parameters: Iterable[torch.Tensor] | list[dict[str, Any]], device: torch.device, **options: Any
) -> torch.optim.Optimizer:
    """AdamW of the study: fused on a GPU; with its moments in 8 bits where the study says so.

    parameters: or groups of `decayed`. options: in place of those of `adamw`.
    """
    import torch

    values = adamw(study) | options
    if study.train.optimizer == "adamw8bit":
        import bitsandbytes

        eight: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(list(parameters), **values)
        return eight
    fused: dict[str, Any] = {"fused": True} if _is_fused(study.train, device) else {}
    return torch.optim.AdamW(parameters, **fused | values)


def decayed(study: Study, parameters: Iterable[torch.Tensor], axes: int = 0) -> list[Any]:
    """The parameters, or with `train.decay: matrices` two groups: norms, biases and scales have no weight decay.

    axes: that stand before a parameter's own, as the members of a pack.
    """
    every = list(parameters)
    if study.train.decay == "all":
        return every
    matrices, others = ([p for p in every if (p.dim() - axes >= 2) is is_one] for is_one in (True, False))
    return [{"params": matrices}] * bool(matrices) + [{"params": others, "weight_decay": 0.0}] * bool(others)


def adamw(study: Study) -> dict[str, Any]:
    """The keyword arguments of AdamW: CLIP's betas and eps."""
    train = study.train
    return {"lr": train.learning_rate, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": train.weight_decay}
