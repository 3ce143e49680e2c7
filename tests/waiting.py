"""A watch for operations at which the host would wait for a GPU, on tensors of the CPU that stand for a GPU's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from ftnas.quantization import left_on_device

# What needs a value, or a size that values decide.
WAITS = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique_dim", "unique_consecutive",
    "unique_dim_consecutive", "_unique", "_unique2", "argwhere", "bincount", "repeat_interleave.Tensor",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
READS = {
    method.__name__: method
    for method in (Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__bool__, Tensor.__float__,
                   Tensor.__int__, Tensor.__index__)
}  # fmt: skip


class _There:
    """Tensors that stand for a GPU's: what they are given, and all that is computed of them. None is ever freed."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._kept: dict[int, Tensor] = {}
        self.add(tensors)

    def add(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            if tensor.numel():
                self._kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)

    def has(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.numel() > 0 and value.untyped_storage().data_ptr() in self._kept


class _Operations(TorchDispatchMode):
    def __init__(self, there: _There, waits: list[str]) -> None:
        super().__init__()
        self._there, self._waits = there, waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        there = [self._there.has(tensor) for tensor in given]
        name = func.__name__.removesuffix(".default")
        if any(there) and self._waits_at(name, given, there):
            self._waits.append(name)
        found = func(*args, **(kwargs or {}))
        if any(there):
            self._there.add(leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor))
        return found

    @staticmethod
    def _waits_at(name: str, given: list[Tensor], there: list[bool]) -> bool:
        short = name.partition(".")[0]
        if short == "copy_":
            return there[1] and not there[0]  # from the GPU to the host
        by_mask = short in INDEXING and any(tensor.dtype in (torch.bool, torch.uint8) for tensor in given[1:])
        return name in WAITS or short in WAITS or by_mask


class _Methods(TorchFunctionMode):
    def __init__(self, there: _There, waits: list[str]) -> None:
        super().__init__()
        self._there, self._waits = there, waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func in READS.values() and self._there.has(args[0]):
            self._waits.append(func.__name__)
            if func is Tensor.cpu:  # which on the CPU returns the same tensor, and here has to be one of the host's
                with _disable_current_modes():
                    return args[0].detach().clone()
        elif (
            func is Tensor.to
            and self._there.has(args[0])
            and any(arg == "cpu" for arg in args[1:] if isinstance(arg, str))
        ):
            self._waits.append("to cpu")
        return func(*args, **(kwargs or {}))


@contextmanager
def noting_waits(*models: nn.Module, tensors: Iterable[Tensor] = (), on_gpu: bool = True) -> Iterator[list[str]]:
    """Yield a list of the operations of the block at which the host would wait.

    Args:
        models: whose parameters and buffers are on the GPU.
        tensors: that are, too.
        on_gpu: compute as on a GPU, not as on the CPU.
    """
    waits: list[str] = []
    there = _There([*tensors, *(value for model in models for value in (*model.parameters(), *model.buffers()))])
    with _operating(on_gpu), _Methods(there, waits), _Operations(there, waits):
        yield waits


@contextmanager
def _operating(on_gpu: bool) -> Iterator[None]:
    if on_gpu:
        with left_on_device():
            yield
    else:
        yield


def waits_of(work: Callable[[], object], *models: nn.Module, tensors: Iterable[Tensor] = ()) -> list[str]:
    """Return the operations at which ``work`` would wait."""
    with noting_waits(*models, tensors=tensors) as waits:
        work()
    return waits
