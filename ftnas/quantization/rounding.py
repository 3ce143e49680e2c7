"""Snapping tensors to a grid, with gradients: straight-through, or learned range."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ftnas.quantization.formats import FixedPoint, FloatWord, Number


def power_of_two_above(limit: float) -> float:
    """Return the smallest power of two at or above ``limit`` (at least 1e-5, as arXiv 2003.10375's quantiser)."""
    mantissa, exponent = math.frexp(max(limit, 1e-5))
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)


def powers_of_two_above(limits: Tensor) -> Tensor:
    """Return ``power_of_two_above`` of each of ``limits``, as float32.

    A float32's exponent goes up by one where adding all ones to its fraction carries, which is where that is not 0.
    """
    pattern = limits.detach().float().clamp_min(1e-5).view(torch.int32)
    return ((pattern + 0x7FFFFF) & 0x7F800000).view(torch.float32)


def snap_(x: Tensor, number: Number) -> Tensor:
    """Round ``x`` to the values of ``number`` in place; safe on the output of a convolution, batch norm or sum.

    It writes through a detached alias, so autograd's graph stays that of ``x``: the gradient passes straight through,
    nothing is saved, and a backward pass that needs the value from before raises. About 5 % of a training step, where
    torch's own operator costs 50 %; a custom autograd function costs a small layer 25 us more.
    """
    if isinstance(number, FloatWord):
        return _to_word_(x, number)
    scale = number.scale_of(x)
    x.detach().div_(scale).clamp_(number.low, number.high).round_().mul_(scale)
    return x


def snap(x: Tensor, number: Number) -> Tensor:
    """Return ``x`` rounded to the values of ``number``; gradients pass straight through."""
    return snap_(x.clone(), number)


def _to_word_(x: Tensor, number: FloatWord) -> Tensor:
    """Round ``x`` to the word of ``number`` in place, which changes nothing where that is its own type."""
    if x.dtype != number.dtype:
        x.detach().copy_(x.detach().to(number.dtype))
    return x


class _SnapLearned(torch.autograd.Function):
    """Quantise with a trainable range end (LSQ, arXiv 1902.08153, section 2.1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: Tensor, number: FixedPoint, values: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.number, ctx.scale, ctx.values = number, number.scale_of(x), values
        snapped: Tensor = (x / ctx.scale).clamp(number.low, number.high).round() * ctx.scale
        return snapped

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (x,) = ctx.saved_tensors
        low, high = ctx.number.low, ctx.number.high
        ratio = x / ctx.scale
        inside = (ratio >= low) & (ratio <= high)
        slope = torch.where(inside, ratio.round() - ratio, ratio.clamp(low, high))
        gradient = gradients[0]
        # LSQ's step-size gradient scale, 1 / sqrt(N * high), keeps range and weight updates in proportion.
        towards_scale = (gradient * slope).sum() / math.sqrt(ctx.values * high)
        return gradient * inside, towards_scale / (high + 1), None, None


def snap_learned(x: Tensor, limit: Tensor, number: FixedPoint, *, parts: int = 1) -> Tensor:
    """Return ``x`` on the grid of ``number``, whose range ends at the trainable scalar ``limit``.

    Args:
        x: the values.
        limit: the end of their range.
        number: the grid.
        parts: of how many such tensors the batch is made, where several processes share it.
    """
    snapped: Tensor = _SnapLearned.apply(x, limit, number, parts * x.numel())  # type: ignore[no-untyped-call]
    return snapped
