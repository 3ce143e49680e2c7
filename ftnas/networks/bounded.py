"""Nets that a file describes: counted before there is any memory for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from ftnas.errors import ModelError

LARGEST = 2**28  # numbers in a net, weights and statistics together: 1 GiB of float32
SMALL = 2**22  # that a net may have in any case: what does not fit is told apart better when it is there

Model = TypeVar("Model", bound=nn.Module)


def bounded(build: Callable[[], Model], *, most: int = LARGEST) -> Model:
    """Return what ``build`` builds, if that has no more than ``most`` numbers; it is tried without memory first.

    Raises:
        ModelError: the net has more, or sizes that no tensor has.
    """
    try:
        with torch.device("meta"):
            numbers = sum(tensor.numel() for tensor in build().state_dict().values())
    except (OverflowError, RuntimeError) as error:
        raise ModelError(f"the net has sizes that no tensor has ({error})") from None
    if numbers > max(most, SMALL):
        raise ModelError(f"the net has {numbers} numbers; allowed are {most}")
    return build()
