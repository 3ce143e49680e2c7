"""How a layer stores its weight and its output, where that is not simply as they are: halves, and bounds.

A storage stands between what a layer computes and what a tap sees: the halves are what a fault can hit, and a bound
is checked after it has. The halves are our construction in the spirit of arXiv 2306.09973, whose own is not public.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ftnas.quantization.formats import FixedPoint, Number

if TYPE_CHECKING:
    from ftnas.quantization.quantized_layer import QuantizedLayer


class Storage(nn.Module):
    """What happens to the numbers of a layer on their way into memory and out of it; this one leaves all as it is.

    Attributes:
        faulty: whether the weights are those of a faulty chip, so that even without further faults copies differ.
    """

    faulty = False

    def weight(self, weight: Tensor, number: Number) -> Tensor:
        """Return what is stored of ``weight``, whose values are of ``number``."""
        return weight

    def read(self, stored: Tensor, clean: Tensor) -> Tensor:
        """Return what is read of ``stored``, which faults may have changed from ``clean``."""
        return stored

    def product(self, y: Tensor, layer: QuantizedLayer) -> Tensor:
        """Return what ``layer`` computes instead of ``y``, neither on a grid."""
        return y

    def output(self, y: Tensor, number: Number) -> Tensor:
        """Return what is stored of ``y``, whose values are of ``number``; ``y`` may be changed in place."""
        return y

    def unseen(self, y: Tensor, number: Number) -> Tensor:
        """Return what is read in the end where nothing can fail, so that nobody sees what is stored."""
        return self.output(y, number)


class _OfChannels(Storage):
    """A storage that concerns some channels of a layer, or all where ``channels`` is ``None``.

    ``upper``: which of two halves it is.
    """

    channels: Tensor | None

    def __init__(self, *, upper: bool, channels: Tensor | None) -> None:
        super().__init__()
        self.upper = upper
        self.register_buffer("channels", channels, persistent=False)

    def _own(self, x: Tensor, dimension: int) -> Tensor:
        return x if self.channels is None else x.index_select(dimension, self.channels)

    def _with(self, x: Tensor, own: Tensor, dimension: int, slope: float) -> Tensor:
        """Return ``x`` with the values ``own`` in its channels, whose gradient there is ``slope`` of what arrives."""
        if x.requires_grad and slope != 1:
            factor = x.new_ones(x.shape[dimension])
            factor[slice(None) if self.channels is None else self.channels] = slope
            x = x * factor.view([-1 if axis == dimension else 1 for axis in range(x.dim())])
        held = x.detach()
        if self.channels is None:
            held.copy_(own)
        else:
            held.index_copy_(dimension, self.channels, own)
        return x


class CodeHalf(_OfChannels):
    """Half of each output code: the larger one rounds up, the smaller one down, so that both add up to the code.

    Codes end one below the format's highest, since half of that would be beyond half of the range.
    """

    def output(self, y: Tensor, number: Number) -> Tensor:
        """Return ``y`` ``[N, C, ...]`` with halves in the channels concerned."""
        number = fixed_point(number)
        codes = (self._own(y.detach(), 1) / number.scale_of(y)).round_().clamp_(max=number.high - 1)
        return self._with(y, half_of(codes, upper=self.upper).mul_(number.scale_of(y)), 1, 0.5)

    def unseen(self, y: Tensor, number: Number) -> Tensor:
        """Return ``y`` whole, cut off where halves are."""
        if self.faulty:
            return self.output(y, number)
        number = fixed_point(number)
        highest = self._own(y.detach(), 1).clamp(max=float(number.decode(torch.tensor(number.high - 1))))
        return self._with(y, highest, 1, 1.0)


class WeightHalf(_OfChannels):
    """Half of each weight: odd codes are rounded up and down in turn, so that the halves of a sum stay near each other.

    The bias, and what batch norm adds, are halved with them; batch norm is that of evaluation. Outputs end where half
    of their range does. Beside rounding, the two halves of an output add up to it. The weights of a faulty chip are
    halves already.
    """

    def weight(self, weight: Tensor, number: Number) -> Tensor:
        """Return ``weight`` ``[out, ...]`` with halves in the channels concerned."""
        number = fixed_point(number)
        if self.faulty:
            return weight
        scale = number.scale_of(weight)
        whole = weight.detach()
        own = half_of_weights(self._own(whole / scale, 0).round_(), upper=self.upper)
        scale = self._own(scale, 0) if isinstance(scale, Tensor) else scale
        return self._with(weight.clone(), own * scale, 0, 0.5)

    def product(self, y: Tensor, layer: QuantizedLayer) -> Tensor:
        """Return ``y`` ``[N, C, ...]``, which holds whole biases, with half of them in the channels concerned."""
        constant = layer.constant() / 2
        if self.channels is not None:
            constant = torch.zeros_like(constant).index_copy(0, self.channels, constant[self.channels])
        return y - constant.view(-1, *[1] * (y.dim() - 2))

    def output(self, y: Tensor, number: Number) -> Tensor:
        """Return ``y`` ``[N, C, ...]``, cut off at half of the range in the channels concerned."""
        number = fixed_point(number)
        low, high = half_range(number)
        codes = (self._own(y.detach(), 1) / number.scale_of(y)).clamp_(low, high).round_()
        return self._with(y, codes.mul_(number.scale_of(y)), 1, 1.0)


class WeightBound(Storage):
    """Weights beyond the range of their output channel are faulty, and read as 0 (after SoftSNN, DAC 2022)."""

    def read(self, stored: Tensor, clean: Tensor) -> Tensor:
        """Return ``stored`` ``[out, ...]`` with 0 for what is below the lowest or above the highest of ``clean``."""
        if stored is clean:
            return stored
        flat = clean.detach().flatten(1)
        shape = (-1, *[1] * (clean.dim() - 1))
        low, high = flat.amin(1).view(shape), flat.amax(1).view(shape)
        return torch.where((stored < low) | (stored > high), torch.zeros_like(stored), stored)


def half_of(codes: Tensor, *, upper: bool) -> Tensor:
    """Return the larger or the smaller of the two halves of whole numbers ``codes``, of any type."""
    if codes.is_floating_point():
        return (codes * 0.5).ceil_() if upper else (codes * 0.5).floor_()
    return (codes + int(upper)) >> 1


def half_of_weights(codes: Tensor, *, upper: bool) -> Tensor:
    """Return one half of whole numbers ``codes`` ``[out, ...]``; each row's odd ones give the upper half 1 in turn."""
    odd = codes.remainder(2).flatten(1)
    turn = (odd.cumsum(1).remainder(2) * odd).view_as(codes)
    high = (codes - codes.remainder(2)) / 2 + turn
    return high if upper else codes - high


def half_range(number: FixedPoint) -> tuple[int, int]:
    """Return the lowest and the highest code that a half may have: its two top bits are equal, or its top bit is 0."""
    if number.signed:
        return -(1 << number.bits - 2), (1 << number.bits - 2) - 1
    return 0, (1 << number.bits - 1) - 1


def fixed_point(number: Number) -> FixedPoint:
    """Return ``number``, which has to be one of integers."""
    if not isinstance(number, FixedPoint):
        raise TypeError(f"halves are of integer codes, not of {number}")
    return number
