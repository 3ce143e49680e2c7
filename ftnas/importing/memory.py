"""Somebody else's operations, held to a share of the memory: what each would return is known before it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

LARGEST = 2**28  # bytes of one result: 64 million numbers, an image of 3x224x224 in 64 channels 20 times over
LARGEST_INPUT = 2**26


def check_shape(shape: Sequence[int]) -> None:
    """Refuse a shape of images that no data set has.

    Raises:
        ValueError: it has no values, or more bytes than ``LARGEST_INPUT``.
    """
    if not shape or min(shape) < 1 or 4 * math.prod(shape) > LARGEST_INPUT:
        raise ValueError(f"images {list(shape)}: allowed are up to {LARGEST_INPUT} bytes")


@contextmanager
def bounded_results() -> Iterator[None]:
    """Refuse every operation in the block whose result has more bytes than ``LARGEST``, before it is computed.

    The operation is first asked on tensors without memory what it would return; those that cannot be asked, since
    their result depends on values, select from what is there.

    Raises:
        ValueError: an operation would return more; it is named.
    """
    with _Bounded():  # type: ignore[no-untyped-call]
        yield


class _Bounded(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        size = _bytes_of(func, args, options)
        if size > LARGEST:
            raise ValueError(f"{func} would return {size} bytes; allowed are {LARGEST}")
        return func(*args, **options)


def _bytes_of(func: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> int:
    """Return how much memory the results would take, without what they share with the arguments."""
    args, options = tree_map_only(Tensor, _shape_of, (args, options))
    there = {_memory(leaf) for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)}
    if "device" in options or not there:  # what makes tensors out of nothing
        options["device"] = "meta"
    try:
        found = func(*args, **options)
    except Exception:  # it fails in its own words when it is run, or it has no such answer
        return 0
    made = {_memory(leaf): leaf.untyped_storage().nbytes() for leaf in tree_leaves(found) if isinstance(leaf, Tensor)}
    return sum(size for memory, size in made.items() if memory not in there)


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _shape_of(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
