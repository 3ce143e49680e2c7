"""Where the ends of ranges are known: on the host as numbers, or on the device, so that no step has to wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# A variable of the module, which torch.compile reads; a ContextVar it cannot.
_LEFT = False


def stays_on_device(values: Tensor) -> bool:
    """Return whether numbers of a training step that ``values`` decide are tensors: on a GPU, and in a graph.

    On the CPU a number is read for nothing, and a tensor of one takes longer to work with.
    """
    return _LEFT or values.is_cuda or torch.compiler.is_compiling()


@contextmanager
def left_on_device() -> Iterator[None]:
    """Work in the block as on a GPU, whatever the device is."""
    global _LEFT
    before, _LEFT = _LEFT, True
    try:
        yield
    finally:
        _LEFT = before
