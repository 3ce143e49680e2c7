"""Tensors without values, for outputs that nobody will read.

Whatever an operation does to a blank gives a blank, at the price of a function call. Its shape is that of the tensor
it stands for and may be wrong after the first operation, which does no harm while nobody reads values. Who reads
them all the same gets an error or, in the end, a blank: never a wrong number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ftnas.errors import CampaignError

# What may be asked of a tensor without its values.
_PROPERTIES = ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_cuda", "is_sparse", "is_quantized")
_METHODS = ("size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "is_complex", "__len__")
_FACTS = frozenset(
    [*(getattr(Tensor, name).__get__ for name in _PROPERTIES), *(getattr(Tensor, name) for name in _METHODS)]
)
# What would be no tensor, and so has to have values.
_VALUES = frozenset(
    getattr(Tensor, name)
    for name in ("item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__", "__iter__")
)


class Blank(Tensor):
    """A tensor without values."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Answer questions about shape and kind, refuse those about values, and return a blank for the rest."""
        if func in _FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        if func in _VALUES:
            raise CampaignError("values of an output were read that no pass without faults reads")
        return next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Blank))


def blank_like(tensor: Tensor) -> Blank:
    """Return a blank of the shape, type and device of ``tensor``, which takes no memory."""
    # Not a number, should an extension in another language reach behind the blank.
    value = torch.full((), math.nan, dtype=tensor.dtype, device=tensor.device)
    blank: Blank = value.expand(tensor.shape).as_subclass(Blank)
    return blank
