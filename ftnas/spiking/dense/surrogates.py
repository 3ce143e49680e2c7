"""Spikes with a gradient: a step forward, a smooth slope backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

SurrogateName = Literal["fast_sigmoid", "triangle", "arctan"]

# (distance from the threshold [...], slope) -> derivative that stands in for that of the step, 1 at the threshold.
SURROGATES: Mapping[SurrogateName, Callable[[Tensor, float], Tensor]] = {
    # SuperSpike (Zenke and Ganguli, 2018, eq. 5), which snntorch calls fast_sigmoid, too.
    "fast_sigmoid": lambda x, slope: (1 + slope * x.abs()).square().reciprocal(),
    # The triangle of Q-SNNs (Wei et al., 2024) and of Bellec et al. (2018).
    "triangle": lambda x, slope: (1 - slope * x.abs()).clamp_min(0),
    "arctan": lambda x, slope: (1 + (math.pi / 2 * slope * x).square()).reciprocal(),
}


def spike(distance: Tensor, *, surrogate: SurrogateName, slope: float) -> Tensor:
    """Return 1 where ``distance``, membrane minus threshold, is above 0, else 0; the gradient is the surrogate's."""
    spikes: Tensor = _Spike.apply(distance, surrogate, slope)  # type: ignore[no-untyped-call]
    return spikes


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, distance: Tensor, surrogate: SurrogateName, slope: float) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.surrogate, ctx.slope = surrogate, slope
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (distance,) = ctx.saved_tensors
        return gradients[0] * SURROGATES[ctx.surrogate](distance, ctx.slope), None, None
