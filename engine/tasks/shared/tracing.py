"""Running a model on tensors without content: what it holds at most, told without its weights."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter, tree_map_only

SMALL = 1 << 20  # numbers of a new tensor that is made with content
INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)


@contextmanager
def computed() -> Iterator[None]:
    """Within it, tensors have content as ever."""
    with _disable_current_modes():
        yield


class Known(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, what does not hang on weights is computed: token ids, sizes of images, masks, positions.

    Models ask for those as they go on. An operation that takes a tensor without content gives one. fake: the mode of
    those, which is on.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = fake

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [value for value in tree_iter((args, kwargs)) if isinstance(value, torch.Tensor)]
        bare = [isinstance(tensor, FakeTensor) for tensor in given]
        if bare and all(bare):
            return func(*args, **kwargs)
        if any(bare):
            if func in INDEXED:
                args = (args[0], list(_numbers(args[1])), *args[2:])
            elif func is torch.ops.aten.masked_select.default and not isinstance(args[1], FakeTensor):
                return args[0].new_empty(self._count(args[1], args[0].shape))
            args, kwargs = tree_map_only(torch.Tensor, self._without_content, (args, kwargs))
            return func(*args, **kwargs)
        if not given:
            made = func(*args, **kwargs)
            if any(isinstance(tensor, torch.Tensor) and tensor.numel() > SMALL for tensor in tree_iter(made)):
                return made
        return self._real(func, *args, **kwargs)

    def _real(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        with computed():
            return func(*args, **kwargs)

    def _count(self, mask: torch.Tensor, shape: torch.Size) -> int:
        """How many numbers of a tensor of such a shape the mask chooses."""
        with computed():
            whole = torch.broadcast_shapes(mask.shape, shape)  # type: ignore[no-untyped-call]
            return int(mask.expand(whole).sum())

    def _without_content(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if isinstance(tensor, FakeTensor) else self._fake.from_tensor(tensor)


def _numbers(indices: Any) -> Iterator[torch.Tensor | None]:
    """Indices of which masks are numbers of places, so that their count is known."""
    for index in indices:
        if index is not None and index.dtype is torch.bool and not isinstance(index, FakeTensor):
            with computed():
                yield from index.nonzero(as_tuple=True)
        else:
            yield index


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that operations within it make. now: of those that live; most: at any time.

    model: whose own tensors do not count, views of them included.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        own = (tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers()))
        self._live = {storage._cdata: 0 for storage in own}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._live.pop(key, 0)


def filled(model: Any, type_of: Callable[[torch.Tensor], torch.dtype]) -> Any:
    """The same model with tensors of the mode in place of those on meta. type_of: a weight's, as it is trained."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is None:
                continue
            if id(old) not in made:
                empty = torch.empty(old.shape, dtype=type_of(old), device="cpu")
                new = made[id(old)] = nn.Parameter(empty, requires_grad=old.requires_grad)
                if new.requires_grad:
                    new.register_post_accumulate_grad_hook(_forget)  # type: ignore[no-untyped-call]
            module._parameters[name] = made[id(old)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
    return model


def _forget(parameter: torch.Tensor) -> None:
    """Gradients are counted by themselves."""
    parameter.grad = None
