"""The state of a training that is not at its end: weights and AdamW's moments, as safetensors, bit for bit.

Names are `weight.NAME`, `mean.NAME` and `square.NAME` (AdamW's first and second moments; in 8 bits other names, EIGHT);
the file's metadata holds the steps that are done. `beside.NAME` are tensors of the task's own, as a moving average.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from engine.base.durable import written_whole
from engine.tasks.shared.sharded import is_first

if TYPE_CHECKING:
    import torch

MOMENTS = {"mean": "exp_avg", "square": "exp_avg_sq"}
# the same in 8 bits, as bitsandbytes keeps them: with the values that the bits stand for, and a scale for each part
EIGHT = {"mean8": "state1", "square8": "state2"}
EIGHT |= {f"{kind}{n}": f"{key}{n}" for kind, key in (("map", "qmap"), ("scale", "absmax")) for n in (1, 2)}


def pause(
    file: str,
    step: int,
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    place: int | None = None,
    whole: Callable[[str, torch.Tensor], torch.Tensor] = lambda _, tensor: tensor,
    beside: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> None:
    """Write the state after `step` steps, complete or not at all. place: of the member, when parameters are stacked.

    whole: from a parameter's name and this rank's part of it, or of a moment, to all of it; the first rank writes.
    Without room for it the training is none the worse, so that is no error.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    content: dict[str, torch.Tensor] = {}

    def keep(kind: str, name: str, tensor: torch.Tensor) -> None:
        own = whole(name, tensor.detach() if place is None else tensor[place].detach())
        if is_first():
            content[f"{kind}.{name}"] = own.cpu().contiguous()

    for name, p in parameters.items():
        keep("weight", name, p)
        own = optimizer.state.get(p, {})  # one that no loss has reached has none
        for kind, key in (MOMENTS | EIGHT).items():
            if key in own:
                keep(kind, name, own[key])
    if not is_first():
        return
    content |= {f"beside.{name}": tensor.cpu().contiguous() for name, tensor in beside.items()}
    try:
        with written_whole(Path(file)) as scratch:
            save_file(content, scratch, metadata={"step": str(step)})
    except (OSError, SafetensorError) as error:
        print(f"the state is not kept: {error}", file=sys.stderr)


def resume(
    files: Sequence[str],
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    part: Callable[[str, torch.Tensor], torch.Tensor] = lambda _, tensor: tensor,
    beside: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> int:
    """Put the states into the parameters, stacked when there are several files; the steps that are done.

    part: from a parameter's name and all of it, or of a moment, to this rank's part.
    Raises: ValueError when the states are not equally far, or of another model.
    """
    import torch
    from safetensors import safe_open

    opened = [safe_open(file, "pt") for file in files]
    steps = {int(f.metadata()["step"]) for f in opened}  # type: ignore[no-untyped-call]
    if len(steps) != 1:
        raise ValueError(f"the states of a pack must be equally far, not {sorted(steps)} steps")
    (step,) = steps
    there = [set(f.keys()) for f in opened]  # type: ignore[no-untyped-call]
    names = {f"weight.{name}" for name in parameters}
    if any(names != {name for name in held if name.startswith("weight.")} for held in there):
        raise ValueError(f"{files[0]} is the state of another model: its tensors have other names")

    def read(kind: str, name: str, like: torch.Tensor) -> torch.Tensor:
        found = [part(name, f.get_tensor(f"{kind}.{name}")) for f in opened]  # type: ignore[no-untyped-call]
        stacked = torch.stack(found)
        if like.shape not in (stacked.shape, stacked.shape[1:]):
            raise ValueError(f"{files[0]} is the state of another model: {name} is {tuple(stacked.shape[1:])} there")
        return stacked.reshape(like.shape).to(like.device)

    if {f"beside.{name}" for name in beside} != {name for name in there[0] if name.startswith("beside.")}:
        raise ValueError(f"{files[0]} is the state of another training: it holds other tensors beside the weights")
    with torch.no_grad():
        for name, tensor in beside.items():
            tensor.copy_(opened[0].get_tensor(f"beside.{name}"))  # type: ignore[no-untyped-call]
        for name, p in parameters.items():
            p.copy_(read("weight", name, p))
            if eight := {kind: key for kind, key in EIGHT.items() if f"{kind}.{name}" in there[0]}:
                tensors = {key: opened[0].get_tensor(f"{kind}.{name}") for kind, key in eight.items()}  # type: ignore[no-untyped-call]
                optimizer.state[p] = {key: tensor.to(p.device) for key, tensor in tensors.items()} | {"step": step}
            if any(f"mean.{name}" not in names for names in there):
                continue
            optimizer.state[p] = {key: read(kind, name, p) for kind, key in MOMENTS.items()}
            # as torch keeps it: beside the parameter where the optimizer is fused, else on the host
            where = p.device if optimizer.param_groups[0].get("fused") else torch.device("cpu")
            optimizer.state[p]["step"] = torch.tensor(float(step), device=where)
    return step
