"""ONNX operators that become layers, and pools."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from ftnas.importing import layers as made
from ftnas.importing.onnx_plan import PREVIOUS, Input, Node, Part

_MAX_POOLS: Mapping[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOLS: Mapping[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def convolution(node: Node) -> list[Part]:
    """Return a convolution, behind a padding where its own is uneven."""
    weight, bias = node.constant(1, "weight"), None if node.input(2) is None else node.constant(2, "bias")
    size = weight.dim() - 2
    strides, dilations = node.get("strides", [1] * size), node.get("dilations", [1] * size)
    begin, end = _padding(node, weight.shape[2:], strides, dilations)
    before, source = _padded(node, begin, end, value=0.0, may_stay=begin == end)
    layer = made.convolution(
        weight, bias, stride=strides, padding=[0] * size if before else begin, dilation=dilations,
        groups=node.get("group", 1),
    )  # fmt: skip
    return [*before, Part(layer, (source,))]


def gemm(node: Node) -> list[Part]:
    """Return a linear layer."""
    if node.get("transA", 0):
        raise ValueError("transA must be 0")
    weight = node.constant(1, "matrix") * node.get("alpha", 1.0)
    weight = weight if node.get("transB", 0) else weight.t().contiguous()
    bias = None if node.input(2) is None else node.constant(2, "bias") * node.get("beta", 1.0)
    layer = made.linear(weight, None if bias is None else bias.flatten().expand(len(weight)))
    return [Part(layer, (node.input(0),))]


def matrix_product(node: Node) -> list[Part]:
    """Return a linear layer; its third input is the bias, where the reader has found one behind it."""
    bias = node.input(2)
    layer = made.linear(node.constant(1, "matrix").t().contiguous(), bias if isinstance(bias, Tensor) else None)
    return [Part(layer, (node.input(0),))]


def batch_norm(node: Node) -> list[Part]:
    """Return a batch norm."""
    if node.get("training_mode", 0) or not node.get("spatial", 1):
        raise ValueError("it is in training mode, or not per channel")
    gain, offset, mean, variance = (node.constant(i, "statistics") for i in range(1, 5))
    dimensions = len(node.shape())
    layer = made.batch_norm(
        mean, variance, gain, offset, epsilon=node.get("epsilon", 1e-5), dimensions=dimensions
    )  # fmt: skip
    return [Part(layer, (node.input(0),))]


def max_pool(node: Node) -> list[Part]:
    """Return a max pool, behind a padding where its own is uneven."""
    if node.outputs > 1 or node.get("storage_order", 0):
        raise ValueError("the indices of a max pool are not read")
    kernel, strides, dilations, begin, end = _window(node)
    fits = begin == end and all(2 * p <= k for p, k in zip(begin, kernel, strict=True))
    before, source = _padded(node, begin, end, value=-math.inf, may_stay=fits)
    pool = _MAX_POOLS[len(kernel)]
    padding = [0] * len(kernel) if before else begin
    return [*before, Part(pool, (source, kernel, strides, padding, dilations, bool(node.get("ceil_mode", 0))))]


def average_pool(node: Node) -> list[Part]:
    """Return an average pool, behind a padding where its own is uneven."""
    kernel, strides, dilations, begin, end = _window(node)
    if any(d != 1 for d in dilations):
        raise ValueError(f"dilations {dilations}; allowed are ones")
    whole, ceil = bool(node.get("count_include_pad", 0)), bool(node.get("ceil_mode", 0))
    fits = begin == end and all(2 * p <= k for p, k in zip(begin, kernel, strict=True))
    if not fits and (ceil or not whole):
        raise ValueError(f"pads {begin} and {end} without count_include_pad; allowed are equal ones")
    before, source = _padded(node, begin, end, value=0.0, may_stay=fits)
    padding = [0] * len(kernel) if before else begin
    return [*before, Part(_AVERAGE_POOLS[len(kernel)], (source, kernel, strides, padding, ceil, whole))]


def _window(node: Node) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Return kernel, strides, dilations and the padding before and after of a pool."""
    kernel = list(node.attributes["kernel_shape"])
    strides, dilations = node.get("strides", [1] * len(kernel)), node.get("dilations", [1] * len(kernel))
    return kernel, strides, dilations, *_padding(node, kernel, strides, dilations)


def _padding(
    node: Node, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the padding before and after, for each spatial dimension."""
    size, automatic = len(kernel), node.get("auto_pad", "NOTSET")
    if automatic == "NOTSET":
        pads = node.get("pads", [0] * 2 * size)
        return list(pads[:size]), list(pads[size:])
    if automatic == "VALID":
        return [0] * size, [0] * size
    totals = [
        max((-(-length // s) - 1) * s + (k - 1) * d + 1 - length, 0)
        for length, k, s, d in zip(node.shape()[2:], kernel, strides, dilations, strict=True)
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (small, large) if automatic == "SAME_UPPER" else (large, small)


def _padded(
    node: Node, begin: Sequence[int], end: Sequence[int], *, value: float, may_stay: bool
) -> tuple[list[Part], Input]:
    """Return a padding of its own where the operation cannot have it, and what the operation reads."""
    if may_stay:
        return [], node.input(0)
    flat = [amount for pair in zip(reversed(begin), reversed(end), strict=True) for amount in pair]
    return [Part(F.pad, (node.input(0), flat, "constant", value))], PREVIOUS
