"""A frozen model that a worker keeps on its device, so that trials of adapters load it once.

Each trial gets modules of its own, whose weights are the kept ones. One model is kept at a time.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.settings.study import Study
from engine.tasks.shared.procedure import frozen_dtype, the_device
from engine.tasks.shared.sharded import ranks
from engine.tasks.shared.weights import Weights

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class _Kept:
    """key: what it was loaded from, and how. version: of its weights, which a change of one of them raises."""

    key: tuple[str, ...]
    model: Any
    version: int


_kept: list[_Kept] = []


def frozen_base(weights: Weights, study: Study, **options: Any) -> Any:
    """A frozen model on this worker's device, to put adapters on; loaded where it is not the one that is kept.

    options: of `Weights.load`. Several devices of a trial keep none, as each shall hold its part of it only.
    Raises: StudyError.
    """
    import torch

    if ranks() > 1:
        let_go()
        return _loaded(weights, study, options)
    key = (weights.key, str(frozen_dtype(study)), repr(sorted(options.items())), str(the_device()))
    if not _kept or _kept[0].key != key or _version(_kept[0].model) != _kept[0].version:
        let_go()
        model = _loaded(weights, study, options)
        _kept.append(_Kept(key, model, _version(model)))
    model = _kept[0].model
    return copy.deepcopy(model, {id(p): torch.nn.Parameter(p.detach(), False) for p in model.parameters()})


def _loaded(weights: Weights, study: Study, options: dict[str, Any]) -> Any:
    import torch

    with torch.random.fork_rng():  # a trial's own draws are the same whether it loads or not
        model = weights.load(**options).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(frozen_dtype(study))
    return model.to(the_device())


def _version(model: nn.Module) -> int:
    return sum(parameter._version for parameter in model.parameters())


def let_go() -> None:
    """Give the memory of the kept model back."""
    import torch

    if _kept:
        _kept.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
