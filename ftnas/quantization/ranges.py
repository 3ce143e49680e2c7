"""Where a range ends."""

from __future__ import annotations

import torch
from torch import Tensor

from ftnas.distributed import largest_
from ftnas.quantization.choices import Range
from ftnas.quantization.host import stays_on_device
from ftnas.quantization.rounding import power_of_two_above, powers_of_two_above

SMALLEST_RANGE = 1e-5


def end_of(limits: Range, peak: float) -> float:
    """Return where a range ends that must reach ``peak``."""
    return power_of_two_above(peak) if limits.is_power_of_two else max(peak, SMALLEST_RANGE)


def ends_of(limits: Range, peaks: Tensor) -> Tensor:
    """Return where ranges end that must reach ``peaks`` ``[...]``, as a tensor that stays where they are."""
    return powers_of_two_above(peaks) if limits.is_power_of_two else peaks.clamp_min(SMALLEST_RANGE)


def peak_of(values: Tensor, *, signed: bool) -> Tensor:
    """Return the largest magnitude, or the largest value where the numbers have no sign.

    Two passes without a copy: half the time of ``abs().amax()``, a thirtieth of the infinity norm's.
    """
    values = values.detach()
    return torch.maximum(values.amax(), values.amin().abs()) if signed else values.amax()


def start_(limit: Tensor, values: Tensor, *, signed: bool = True) -> None:
    """Begin a learned range at the largest magnitude, and again where training drove it below zero."""
    stays = stays_on_device(limit)
    if not stays and float(limit.detach()) > 0:
        return
    peak = largest_(peak_of(values, signed=signed)).clamp_min(SMALLEST_RANGE).to(limit.dtype)
    with torch.no_grad():
        limit.copy_(torch.where(limit > 0, limit, peak) if stays else peak)


def follow_(limit: Tensor, peak: Tensor, momentum: float, *, nothing: float) -> None:
    """Move the running ``limit`` towards ``peak``, all the way where it is at most ``nothing``, as before the first."""
    if stays_on_device(limit):
        limit.lerp_(peak, torch.where(limit <= nothing, 1.0, momentum).to(limit.dtype))
    else:
        limit.lerp_(peak, 1.0 if float(limit) <= nothing else momentum)
