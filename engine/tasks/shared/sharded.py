"""One training on several devices: FSDP2 over the ranks of a worker, a process for each device.

Outside of `spread` every rank holds the whole model. Within it a rank holds its share of every weight, gradient and
moment, and trains its share of each batch. Batches, losses and results are those of one device, up to rounding.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.base.errors import TrialError
from engine.tasks.shared.procedure import repeated_blocks, the_device

if TYPE_CHECKING:
    import torch


TOWER = re.compile("vision|visual")  # in the names of modules that see


@dataclass
class _Place:
    """rank: of this process among `count`. moved: when its training went on last, by `time.monotonic`; None: none."""

    rank: int = 0
    count: int = 1
    moved: float | None = None


_place = _Place()


@contextmanager
def together(rank: int, count: int) -> Iterator[None]:
    """Within the block this process is a rank of so many; `torch.distributed` is ready where it is one of several."""
    before = _place.rank, _place.count
    _place.rank, _place.count = rank, count
    try:
        yield
    finally:
        _place.rank, _place.count = before
        _place.moved = None


def ranks() -> int:
    """How many devices this trial has."""
    return _place.count


def rank() -> int:
    """Which of them this process is."""
    return _place.rank


def is_first() -> bool:
    """True for the rank that evaluates and writes, and where there is but one."""
    return _place.rank == 0


def moved() -> float | None:
    """When the training of this process went on last, by `time.monotonic`; None while it does not train with others."""
    return _place.moved


def _bounds(rows: int, rank: int) -> tuple[int, int]:
    return rows * rank // _place.count, rows * (rank + 1) // _place.count


def share(rows: int) -> slice:
    """The rows of a batch that this rank trains. Raises: TrialError when there are fewer than ranks."""
    if rows < _place.count:
        raise TrialError(
            f"a batch of {rows} cannot be shared by {_place.count} devices; lower devices_per_trial, or raise "
            "train.batch_size"
        )
    return slice(*_bounds(rows, _place.rank))


def pieces(rows: int, micro: int) -> Iterator[slice]:
    """This rank's share of a batch in pieces of about `micro` rows, equally many on every rank."""
    if _place.count == 1:
        for at in range(0, rows, micro):
            yield slice(at, min(at + micro, rows))
        return
    own = share(rows)
    size, fewest = own.stop - own.start, rows // _place.count
    number = min(fewest, -(-rows // _place.count) // micro + bool(-(-rows // _place.count) % micro))
    for piece in range(number):
        _place.moved = time.monotonic()
        yield slice(own.start + size * piece // number, own.start + size * (piece + 1) // number)


def summed(value: float) -> float:
    """The sum of the ranks' values."""
    if _place.count == 1:
        return value
    import torch

    total = torch.tensor([value], dtype=torch.float64, device=the_device())
    torch.distributed.all_reduce(total)
    return float(total)


def agreed(value: bool) -> bool:
    """What the first rank says."""
    return summed(value and is_first()) > 0


def gathered(part: torch.Tensor, rows: int) -> torch.Tensor:
    """(rows, …) of the whole batch, from each rank's `share` of it; without gradients."""
    if _place.count == 1:
        return part
    import torch

    bounds = [_bounds(rows, rank) for rank in range(_place.count)]
    own = part.new_zeros((max(stop - start for start, stop in bounds), *part.shape[1:]))
    own[: len(part)] = part.detach()
    found = [torch.empty_like(own) for _ in bounds]
    torch.distributed.all_gather(found, own)
    return torch.cat([some[: stop - start] for some, (start, stop) in zip(found, bounds, strict=True)])


def call(model: Any, function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(model, *inputs)`, as the model's forward where it is spread, which fetches the weights for it."""
    if _place.count == 1:
        return function(model, *inputs)
    model.forward = partial(function, model)
    try:
        return model(*inputs)
    finally:
        del model.forward


class Trained:
    """What is trained of a model. parameters: by its names, as an optimizer takes them."""

    def __init__(self, model: Any) -> None:
        self.parameters: dict[str, Any] = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def clip(self, limit: float) -> None:
        """Clip the norm of all gradients."""
        import torch

        torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit)

    def whole(self, _name: str, part: torch.Tensor) -> torch.Tensor:
        """A tensor like a parameter, as it is on one device. part: as the optimizer has it."""
        return part

    def part(self, _name: str, whole: torch.Tensor) -> torch.Tensor:
        """What of such a tensor the optimizer has."""
        return whole


class _Sharded(Trained):
    """The same while FSDP2 holds the model: `parameters` are plain tensors that share their memory with its shards.

    Parameters of one number are not sharded: each rank has them whole.
    """

    def __init__(self, model: Any) -> None:
        import torch
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        _place.moved = time.monotonic()
        self._model, self._before = model, [(m, type(m), _kept(m), set(m.__dict__)) for m in model.modules()]
        self._own = dict(model.named_parameters())
        single = {p for p in self._own.values() if p.numel() == 1}
        mesh = init_device_mesh(the_device().type, (_place.count,))
        for module in [*_blocks(model), model]:
            sharded: Any = fully_shard(module, mesh=mesh, ignored_params=single)
            sharded.set_gradient_divide_factor(1.0)  # each rank's loss is its part of a sum
            sharded.set_force_sum_reduction_for_comms(True)
        if _has_tower(model):
            sharded.set_reduce_scatter_unused_params(True, recurse=False)
        self._shards = {n: p for n, p in model.named_parameters() if p not in single}
        for name in self._shards:
            self._own[name].data = self._own[name].data.new_empty(0)
        self.parameters = {
            name: torch.nn.Parameter(self._shards[name].to_local().detach()) if name in self._shards else own
            for name, own in self._own.items() if own.requires_grad
        }  # fmt: skip

    def clip(self, limit: float) -> None:
        """Take the gradients over from FSDP2, add up those of what is not sharded, and clip their norm."""
        import torch

        squares = torch.zeros(2, dtype=torch.float64, device=the_device())  # of shards, of the others
        for name, parameter in self.parameters.items():
            if name in self._shards:
                shard = self._shards[name]
                parameter.grad, shard.grad = None if shard.grad is None else shard.grad.to_local(), None
            else:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                torch.distributed.all_reduce(parameter.grad)
            if parameter.grad is not None:
                squares[int(name not in self._shards)] += parameter.grad.double().square().sum()
        torch.distributed.all_reduce(squares[:1])
        factor = (limit / (squares.sum().sqrt() + 1e-6)).clamp(max=1).float()
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def whole(self, name: str, part: torch.Tensor) -> torch.Tensor:
        """See Trained; every rank asks for it."""
        from torch.distributed.tensor import DTensor

        _place.moved = time.monotonic()
        shard = self._shards.get(name)
        if shard is None or part.dim() == 0:
            return part
        made: Any = DTensor.from_local(
            part, shard.device_mesh, shard.placements, shape=shard.shape, stride=shard.stride()
        )
        return made.full_tensor()  # type: ignore[no-any-return]

    def part(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """See Trained."""
        from torch.distributed.tensor import distribute_tensor

        shard = self._shards.get(name)
        if shard is None:
            return whole
        made: Any = distribute_tensor(whole.to(the_device()), shard.device_mesh, shard.placements, src_data_rank=None)
        return made.to_local()  # type: ignore[no-any-return]

    def restore(self) -> None:
        """Give every rank the whole model back, as it was before but for what it has learned."""
        from torch.distributed._composable_state import _module_state_mapping  # or no model could be sharded twice

        for name, shard in self._shards.items():
            self._own[name].data = self.whole(name, shard.to_local().detach())
        for module, kind, kept, names in self._before:
            module.__class__ = kind
            module.__dict__.update(kept)
            for name in set(module.__dict__) - names:
                del module.__dict__[name]
            _module_state_mapping.pop(module, None)
        _place.moved = None


def _kept(module: Any) -> dict[str, Any]:
    """Copies of what FSDP2 changes of a module: its parameters and hooks."""
    return {
        name: value.copy() for name, value in module.__dict__.items()
        if isinstance(value, dict) and (name == "_parameters" or name.endswith(("_hooks", "_kwargs", "_called")))
    }  # fmt: skip


def _blocks(model: Any) -> list[Any]:
    """The modules that are sharded one by one: the layers that it repeats, unless they share a weight.

    The layers of a tower beside a language model go with the rest: a rank whose rows have no images does not pass them,
    and all ranks must fetch the same.
    """
    owners = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    aside = {id(m) for name, m in model.named_modules() if _has_tower(model) and TOWER.search(name)}
    return [
        block for block in repeated_blocks(model)
        if id(block) not in aside and any(True for _ in block.parameters())
        and all(owners[id(p)] == 1 for p in block.parameters())
    ]  # fmt: skip


def _has_tower(model: Any) -> bool:
    """True for a language model that may see images."""
    names = [name for name, _ in model.named_modules()]
    return any(name.endswith("lm_head") for name in names) and any(TOWER.search(name) for name in names)


@contextmanager
def spread(model: Any) -> Iterator[Trained]:
    """Within the block the model is spread over the ranks, where there are several."""
    if _place.count == 1:
        yield Trained(model)
        return
    over = _Sharded(model)
    yield over
    over.restore()
