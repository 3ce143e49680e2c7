"""A net in integers only, as small hardware computes it: the reference of the C program.

A value is an array of codes with one scale. What is stored fits 32 bits; products and sums are taken in 64, and
brought to the next grid by an integer multiplier and a shift, rounded half to even as the PyTorch net rounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ftnas.export.graph import (
    INPUT,
    Add,
    Clamp,
    Concatenate,
    Convolve,
    Correct,
    Gather,
    Halve,
    Mean,
    Multiply,
    Operation,
    Pad,
    Pool,
    Reals,
    Reshape,
    Slice,
    Zeros,
)
from ftnas.export.protection import Protecting, ProtectionStep
from ftnas.quantization import FixedPoint

Integers: TypeAlias = NDArray[np.int64]

# Images enter as 16-bit integers, and every other value is stored as one of 32.
LARGEST_INPUT, STORED = 2**15 - 1, 2**31 - 1
BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Rescale:
    """``clamp(round((code * multiplier + addend) / 2^shift), low, high)``, half to even.

    Multiplier, addend and shift ``[C]`` are those of each channel: of the first dimension without the batch, of the
    last behind a matrix product.
    """

    multiplier: Integers
    addend: Integers
    shift: Integers
    low: int
    high: int


@dataclass(frozen=True, slots=True, eq=False)
class IntegerNode:
    """One step in integers.

    Attributes:
        name: of the value computed.
        operation: read in integers. Of a layer only the weight's codes and the geometry count. A mean, and an average
            pooling, is a sum: that of a window of n values times ``multiple / n``.
        inputs: names of the values read; those of a sum or a concatenation have one scale.
        shape: of the value.
        scale: what a code of 1 stands for.
        largest: no code is larger in magnitude.
        rescale: what a layer's sums of products go through; ``None`` for other operations.
        multiple: of every window's number of values.
        number: the grid of codes that are halved or corrected.
        path: of the layer in the PyTorch net.
    """

    name: str
    operation: Operation | Rescale
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    scale: float
    largest: int
    rescale: Rescale | None = None
    multiple: int = 1
    number: FixedPoint | None = None
    path: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class IntegerNet:
    """A net of integers.

    Attributes:
        name: of the net.
        input_shape: of one image.
        input_scale: what an image's code of 1 stands for.
        nodes: in an order in which they can be computed.
        output: name of the value that holds the logits.
        scale: what a logit of 1 stands for.
        facts: of the graph.
    """

    name: str
    input_shape: tuple[int, ...]
    input_scale: float
    nodes: tuple[IntegerNode, ...]
    output: str
    scale: float
    facts: Mapping[str, str] = field(default_factory=dict)


def image_codes(net: IntegerNet, images: Reals) -> NDArray[np.int16]:
    """Return ``images`` ``[N, ...]`` as the codes that the net reads; what is beyond 16 bits saturates."""
    codes = np.rint(images.astype(np.float64) / net.input_scale)
    return codes.clip(-LARGEST_INPUT, LARGEST_INPUT).astype(np.int16)


def run(net: IntegerNet, images: Reals) -> Integers:
    """Return the integer logits ``[N, classes]`` of float ``images`` ``[N, ...]``."""
    codes = image_codes(net, images)
    batches = [codes[start : start + BATCH].astype(np.int64) for start in range(0, len(codes), BATCH)]
    return np.concatenate([run_values(net, batch)[net.output] for batch in batches])


def run_values(net: IntegerNet, codes: Integers) -> dict[str, Integers]:
    """Return every value by name, each ``[N, ...]``, for images given as ``codes`` ``[N, ...]``."""
    values = {INPUT: codes}
    for node in net.nodes:
        inputs = [values[name] for name in node.inputs]
        values[node.name] = _RUN[type(node.operation)](node, node.operation, inputs, len(codes))
    return values


def rounded_shift(value: Integers, shift: Integers) -> Integers:
    """Return ``value / 2^shift`` rounded half to even, for magnitudes below 2^62."""
    below_half = (np.int64(1) << shift >> 1) - (shift > 0)
    odd = (value >> shift) & (shift > 0)
    rounded: Integers = (value + below_half + odd) >> shift
    return rounded


def _rescaled(value: Integers, rescale: Rescale, axis: int) -> Integers:
    """Return ``value`` on its new grid; channels lie along ``axis``."""
    shape = [1] * value.ndim
    shape[axis] = -1
    multiplier, addend, shift = (part.reshape(shape) for part in (rescale.multiplier, rescale.addend, rescale.shift))
    return rounded_shift(value * multiplier + addend, shift).clip(rescale.low, rescale.high)


def _rescale(node: IntegerNode, operation: Rescale, inputs: list[Integers], count: int) -> Integers:
    return _rescaled(inputs[0], operation, 1)


def _convolve(node: IntegerNode, operation: Convolve, inputs: list[Integers], count: int) -> Integers:
    groups, codes = operation.groups, operation.weight.codes
    extent, positions = codes.shape[2:], node.shape[1:]
    # Integers below 2^53 are exact in float64, whose products are a hundred times faster.
    padded = _padded(inputs[0], operation.padding, 0).astype(np.float64)
    weight = codes.astype(np.float64).reshape(groups, len(codes) // groups, -1, *extent)
    products = np.zeros((count, groups, weight.shape[1], int(np.prod(positions))))
    for place in itertools.product(*map(range, extent)):
        window = padded[_window(place, positions, operation.stride, operation.dilation)]
        rows = window.reshape(count, groups, weight.shape[2], -1)
        at: tuple[slice | int, ...] = (slice(None), slice(None), slice(None), *place)
        factor = weight[at]
        products += factor * rows if weight.shape[2] == 1 else factor @ rows
    return _layer(node, products.reshape(count, *node.shape), 1)


def _multiply(node: IntegerNode, operation: Multiply, inputs: list[Integers], count: int) -> Integers:
    products = inputs[0].astype(np.float64) @ operation.weight.codes.T.astype(np.float64)
    return _layer(node, products, -1)


def _layer(node: IntegerNode, products: NDArray[np.float64], axis: int) -> Integers:
    if node.rescale is None:
        raise ValueError(f"{node.name}: a layer needs the way to its next grid")
    return _rescaled(products.astype(np.int64), node.rescale, axis)


def _add(node: IntegerNode, operation: Add, inputs: list[Integers], count: int) -> Integers:
    total: Integers = np.sum(inputs, axis=0)
    return total


def _clamp(node: IntegerNode, operation: Clamp, inputs: list[Integers], count: int) -> Integers:
    return inputs[0].clip(int(operation.low), int(operation.high))


def _pool(node: IntegerNode, operation: Pool, inputs: list[Integers], count: int) -> Integers:
    positions, x = node.shape[1:], inputs[0]
    if operation.kind == "max":
        largest: Integers = np.max(_pooled(x, operation, positions, -STORED - 1), axis=0)
        return largest
    factors = node.multiple // window_counts(operation, x.shape[2:], positions)
    total: Integers = np.sum(_pooled(x, operation, positions, 0), axis=0) * factors
    return total


def _pooled(x: Integers, pool: Pool, positions: tuple[int, ...], fill: int) -> Integers:
    """Return the values at each place of the window ``[places, N, C, ...]``."""
    padded = _padded(x, _whole_padding(pool, x.shape[2:], positions), fill)
    ones = (1,) * len(positions)
    places = itertools.product(*map(range, pool.kernel))
    return np.stack([padded[_window(place, positions, pool.stride, ones)] for place in places])


def window_counts(pool: Pool, size: tuple[int, ...], positions: tuple[int, ...]) -> Integers:
    """Return by how many values an average divides at each of ``positions``, for a map of ``size``."""
    inside = np.ones((1, 1, *size), np.int64)
    if pool.count_padding:  # a window that ``ceil`` adds counts the padding, and not what is beyond that
        inside = _padded(inside, pool.padding, 1)
    whole = Pool("average", pool.kernel, pool.stride, ((0, 0),) * len(size)) if pool.count_padding else pool
    counts: Integers = np.sum(_pooled(inside, whole, positions, 0), axis=0)[0, 0]
    return counts


def _whole_padding(pool: Pool, size: tuple[int, ...], positions: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the padding that the last window needs, which ``ceil`` may place beyond the pool's own."""
    windows = zip(positions, pool.stride, pool.kernel, strict=True)
    ends = [(count - 1) * step + extent for count, step, extent in windows]
    sides = zip(pool.padding, ends, size, strict=True)
    return tuple((before, max(0, end - before - length)) for (before, _), end, length in sides)


def _padded(x: Integers, padding: tuple[tuple[int, int], ...], fill: int) -> Integers:
    return np.pad(x, ((0, 0), (0, 0), *padding), constant_values=fill)


def _window(
    offset: tuple[int, ...], positions: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[slice, ...]:
    """Return where in ``[N, C, ...]`` the value at ``offset`` of each window lies."""
    places = zip(offset, positions, stride, dilation, strict=True)
    spatial = (slice(at * wide, at * wide + (count - 1) * step + 1, step) for at, count, step, wide in places)
    return slice(None), slice(None), *spatial


def _mean(node: IntegerNode, operation: Mean, inputs: list[Integers], count: int) -> Integers:
    total: Integers = np.sum(inputs[0], axis=tuple(range(2, inputs[0].ndim)), keepdims=operation.keep)
    return total


def _concatenate(node: IntegerNode, operation: Concatenate, inputs: list[Integers], count: int) -> Integers:
    return np.concatenate(inputs, operation.axis + 1)


def _slice(node: IntegerNode, operation: Slice, inputs: list[Integers], count: int) -> Integers:
    index = [slice(None)] * inputs[0].ndim
    index[operation.axis + 1] = slice(operation.start, operation.stop, operation.step)
    return inputs[0][tuple(index)]


def _pad(node: IntegerNode, operation: Pad, inputs: list[Integers], count: int) -> Integers:
    return np.pad(inputs[0], ((0, 0), *operation.amounts))


def _reshape(node: IntegerNode, operation: Reshape, inputs: list[Integers], count: int) -> Integers:
    return inputs[0].reshape(count, *node.shape)


def _zeros(node: IntegerNode, operation: Zeros, inputs: list[Integers], count: int) -> Integers:
    return np.zeros((count, *node.shape), np.int64)


def _protect(node: IntegerNode, operation: Protecting, inputs: list[Integers], count: int) -> Integers:
    found: Integers = (
        ProtectionStep(operation, node.number).on_codes([torch.from_numpy(codes) for codes in inputs]).numpy()
    )
    return found


_RUN: Mapping[type, Callable[[IntegerNode, Any, list[Integers], int], Integers]] = {
    Add: _add,
    Clamp: _clamp,
    Concatenate: _concatenate,
    Convolve: _convolve,
    Correct: _protect,
    Gather: _protect,
    Halve: _protect,
    Mean: _mean,
    Multiply: _multiply,
    Pad: _pad,
    Pool: _pool,
    Rescale: _rescale,
    Reshape: _reshape,
    Slice: _slice,
    Zeros: _zeros,
}
