"""What one layer or operator costs, by formula: no module is built.

A multiply-accumulate is counted for convolutions and linear layers only. Every trained parameter is counted, with
affine batch norms and biases, but not a learned quantisation range: one number a layer that no chip stores as a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from ftnas.errors import SpaceError

Size = tuple[int, int]
"""Height and width of a feature map."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network asks of hardware for one image.

    Attributes:
        macs: multiply-accumulates of convolutions and linear layers.
        parameters: trained parameters, affine batch norms and biases among them.
        weight_bits: bits of the weights of convolutions and linear layers; biases and norms stay wide and apart.
    """

    macs: int = 0
    parameters: int = 0
    weight_bits: int = 0

    @property
    def flops(self) -> int:
        """Two for each multiply-accumulate, as arXiv 2003.10375 counts."""
        return 2 * self.macs

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.parameters + other.parameters, self.weight_bits + other.weight_bits)


@dataclass(frozen=True, slots=True)
class Work:
    """A cost before it is known how wide the weights are."""

    macs: int = 0
    parameters: int = 0
    weights: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.macs + other.macs, self.parameters + other.parameters, self.weights + other.weights)

    def at(self, bits: int) -> Cost:
        """Return the cost with weights of ``bits`` bits."""
        return Cost(self.macs, self.parameters, self.weights * bits)


def strided(size: Size, stride: int) -> Size:
    """Return the size after a padded layer of that stride: odd sizes round up."""
    return -(-size[0] // stride), -(-size[1] // stride)


def convolution(
    channels_in: int, channels_out: int, kernel: int, *, size: Size, groups: int = 1, extra: int = 0
) -> Work:
    """Return the work of a convolution whose output has ``size``.

    Args:
        extra: further parameters an output channel: 2 for an affine batch norm, 1 for a bias.
    """
    weights = channels_in // groups * kernel * kernel * channels_out
    return Work(weights * size[0] * size[1], weights + extra * channels_out, weights)


def linear(channels_in: int, channels_out: int) -> Work:
    """Return the work of a linear layer with bias."""
    weights = channels_in * channels_out
    return Work(weights, weights + channels_out, weights)


def factorized_reduce(channels_in: int, channels_out: int, *, size: Size, affine: bool) -> Work:
    """Return the work of two half-width 1x1 convolutions of stride 2 and one batch norm; ``size`` is the output's."""
    half, extra = channels_out // 2, 2 * affine
    first = convolution(channels_in, half, 1, size=size, extra=extra)
    return first + convolution(channels_in, channels_out - half, 1, size=size, extra=extra)


def _free(channels: int, size: Size, stride: int) -> Work:
    return Work()


def _skip(channels: int, size: Size, stride: int) -> Work:
    if stride == 1:
        return Work()
    return factorized_reduce(channels, channels, size=strided(size, stride), affine=True)


def _dense(kernel: int, channels: int, size: Size, stride: int) -> Work:
    return convolution(channels, channels, kernel, size=strided(size, stride), extra=2)


def _depthwise_pointwise(kernel: int, channels: int, size: Size, stride: int) -> Work:
    """Depthwise, then pointwise with the only batch norm; dilation changes no count."""
    out = strided(size, stride)
    depthwise = convolution(channels, channels, kernel, size=out, groups=channels)
    return depthwise + convolution(channels, channels, 1, size=out, extra=2)


def _separable(kernel: int, channels: int, size: Size, stride: int) -> Work:
    first = _depthwise_pointwise(kernel, channels, size, stride)
    return first + _depthwise_pointwise(kernel, channels, strided(size, stride), 1)


def _biased(channels: int, size: Size, stride: int) -> Work:
    return convolution(channels, channels, 1, size=strided(size, stride), extra=1)


Formula = Callable[[int, Size, int], Work]
"""(channels, input size, stride) -> work"""

FORMULAS: Mapping[str, Formula] = {
    "none": _free,
    "skip_connect": _skip,
    "max_pool_3x3": _free,
    "avg_pool_3x3": _free,
    "sep_conv_3x3": partial(_separable, 3),
    "sep_conv_5x5": partial(_separable, 5),
    "dil_conv_3x3": partial(_depthwise_pointwise, 3),
    "dil_conv_5x5": partial(_depthwise_pointwise, 5),
    "relu_conv_bn_3x3": partial(_dense, 3),
    "relu_conv_bn_5x5": partial(_dense, 5),
    "conv_1x1": _biased,
}


@lru_cache(maxsize=4096)
def operator_work(operator: str, channels: int, size: Size, stride: int) -> Work:
    """Return the work of an edge's operator on an input ``[channels, *size]``.

    Raises:
        SpaceError: there is no such operator.
    """
    if operator not in FORMULAS:
        raise SpaceError(f"unknown operator {operator!r}; choose from {', '.join(FORMULAS)}")
    return FORMULAS[operator](channels, size, stride)
