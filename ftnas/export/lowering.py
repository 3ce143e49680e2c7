"""From a graph to integers only: grids, multipliers and shifts for everything that is float between layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftnas.errors import ExportError
from ftnas.export.graph import (
    INPUT,
    Add,
    Clamp,
    Concatenate,
    Convolve,
    Correct,
    Gather,
    Graph,
    Halve,
    Mean,
    Multiply,
    Node,
    Operation,
    Pad,
    Pool,
    Reals,
    Reshape,
    Scale,
    Slice,
    Zeros,
)
from ftnas.export.input_grid import input_scale
from ftnas.export.integer import LARGEST_INPUT, STORED, IntegerNet, IntegerNode, Rescale, window_counts
from ftnas.quantization import FixedPoint

Doubles = NDArray[np.float64]

# What lies on no grid of its own gets one this fine: an error of 2^-24 of its range, where 8 bits have 2^-8.
FINE = 2**23
# Sums of products stay exact in float64, in which the reference takes them.
SUMMED = 2**53
# A multiplier has so many bits at most, and with its code and the addend stays below 2^62.
MULTIPLIER_BITS, PRODUCT_BITS = 30, 61


@dataclass(frozen=True, slots=True)
class _Value:
    """Codes computed so far: their name, shape, what 1 stands for, and the largest magnitude."""

    name: str
    shape: tuple[int, ...]
    scale: float
    largest: int


def integer_net(graph: Graph, images: Reals) -> IntegerNet:
    """Return ``graph`` in integers only.

    Args:
        graph: any.
        images: for calibration ``[N, ...]``: the input's 16-bit grid reaches their largest magnitude, and meets
            evenly spaced pixels as well as one can.

    Raises:
        ExportError: a layer's sums of products are too large to be exact.
    """
    scale = input_scale(graph, images)
    lowering = _Lowering(_Value(INPUT, graph.input_shape, scale, LARGEST_INPUT))
    for node in graph.nodes:
        lowering.lower(node)
    logits = lowering.values[graph.output]
    nodes = tuple(lowering.nodes)
    return IntegerNet(graph.name, graph.input_shape, scale, nodes, logits.name, logits.scale, graph.facts)


class _Lowering:
    """Integer nodes written so far, and which of them has the value of each node of the graph."""

    def __init__(self, image: _Value) -> None:
        self.nodes: list[IntegerNode] = []
        self.values = {INPUT: image}

    def lower(self, node: Node) -> None:
        """Write ``node``; a grid that its result is rounded to comes last."""
        inputs = [self.values[name] for name in node.inputs]
        value = _LOWER[type(node.operation)](self, node, node.operation, inputs)
        if node.number is not None and not isinstance(node.operation, _ON_GRID):
            value = self.rescale(value, node, scale=float(_scale_of(node.number)[0]), number=node.number)
        self.values[node.name] = value

    def append(self, node: IntegerNode) -> _Value:
        """Add ``node`` under a name of its own."""
        if node.largest > STORED:
            raise ExportError(f"{node.path or node.name}: codes up to {node.largest} do not fit 32 bits")
        taken = {known.name for known in self.nodes}
        name, count = node.name, 1
        while name in taken:
            count += 1
            name = f"{node.name}_{count}"
        self.nodes.append(replace(node, name=name))
        return _Value(name, node.shape, node.scale, node.largest)

    def plain(self, node: Node, inputs: list[_Value], largest: int) -> _Value:
        """Add an operation that keeps the scale."""
        names = tuple(value.name for value in inputs)
        scale = next((value.scale for value in inputs if value.largest), 1.0)
        return self.append(IntegerNode(node.name, node.operation, names, node.shape, scale, largest, path=node.path))

    def rescale(self, value: _Value, node: Node, *, scale: float, number: FixedPoint | None = None) -> _Value:
        """Bring ``value`` to another scale, and to the codes of ``number``."""
        low, high = (-STORED, STORED) if number is None else (number.low, number.high)
        factor = np.array([value.scale / scale])
        step = _rescale(factor, np.zeros(1), bounds=[value.largest], low=low, high=high, path=node.path or node.name)
        largest = min(max(-low, high), math.ceil(value.largest * value.scale / scale) + 1)
        name = f"{node.name}_grid"
        return self.append(IntegerNode(name, step, (value.name,), value.shape, scale, largest, path=node.path))

    def at_most(self, value: _Value, node: Node, largest: int) -> _Value:
        """Return ``value`` on a coarser grid if its codes exceed ``largest``."""
        if value.largest <= largest:
            return value
        halvings = math.ceil(math.log2((value.largest + 1) / largest))
        return self.rescale(value, node, scale=math.ldexp(value.scale, halvings))

    def aligned(self, values: list[_Value], node: Node) -> list[_Value]:
        """Return ``values`` on one grid, of which the grid that ``node`` is rounded to is a part."""
        held = [value for value in values if value.largest]
        if not held:
            return values
        reference = min(v.scale for v in held) if node.number is None else float(_scale_of(node.number)[0])
        scale = _common_scale(held, reference)
        return [v if v.scale == scale or not v.largest else self.rescale(v, node, scale=scale) for v in values]


def _common_scale(values: list[_Value], reference: float) -> float:
    """Return ``reference`` divided by a power of two: the smallest on whose grid all ``values`` lie, or a fine one.

    Where scales are powers of two, as published, half of a step is common, and must be neither more nor less.
    """
    peak = max(value.scale * value.largest for value in values)
    halvings = math.floor(math.log2(FINE * reference / peak))
    for count in range(halvings):
        if all((value.scale / math.ldexp(reference, -count)).is_integer() for value in values):
            return math.ldexp(reference, -count)
    return math.ldexp(reference, -halvings)


def _layer(lowering: _Lowering, node: Node, operation: Convolve | Multiply, inputs: list[_Value]) -> _Value:
    x, path = lowering.at_most(inputs[0], node, FINE), node.path or node.name
    codes = operation.weight.codes
    bounds = [int(total) * x.largest for total in np.abs(codes.astype(np.int64)).reshape(len(codes), -1).sum(1)]
    if max(bounds) >= SUMMED:
        raise ExportError(f"{path}: sums of products up to {max(bounds)} are too large to be exact")
    zero = np.zeros(len(codes))
    gain = _doubles(operation.gain, zero + 1)
    factor = gain * x.scale * _scale_of(operation.weight.number)
    offset = gain * _doubles(operation.bias, zero) + _doubles(operation.offset, zero)
    scale, low, high = _grid(node.number, factor, offset, bounds)
    step = _rescale(factor / scale, offset / scale, bounds=bounds, low=low, high=high, path=path)
    largest = max(-low, high)
    return lowering.append(
        IntegerNode(node.name, operation, (x.name,), node.shape, scale, largest, rescale=step, path=node.path)
    )


def _scale(lowering: _Lowering, node: Node, operation: Scale, inputs: list[_Value]) -> _Value:
    (x,) = inputs
    factor, offset = _doubles(operation.gain, np.zeros(0)) * x.scale, _doubles(operation.offset, np.zeros(0))
    bounds = [x.largest] * len(factor)
    scale, low, high = _grid(node.number, factor, offset, bounds)
    step = _rescale(factor / scale, offset / scale, bounds=bounds, low=low, high=high, path=node.path or node.name)
    return lowering.append(IntegerNode(node.name, step, (x.name,), node.shape, scale, max(-low, high), path=node.path))


def _grid(number: FixedPoint | None, factor: Doubles, offset: Doubles, bounds: list[int]) -> tuple[float, int, int]:
    """Return scale, lowest and highest code of ``factor * code + offset`` for codes up to ``bounds``."""
    if number is not None:
        return float(_scale_of(number)[0]), number.low, number.high
    peak = float((np.abs(factor) * np.array(bounds, np.float64) + np.abs(offset)).max())
    return (peak or 1.0) / FINE, -FINE, FINE


def _rescale(factor: Doubles, offset: Doubles, *, bounds: list[int], low: int, high: int, path: str) -> Rescale:
    """Return integers that compute ``factor * code + offset`` per channel, for codes up to ``bounds``."""
    rows = [_fixed(*row, path) for row in zip(factor.tolist(), offset.tolist(), bounds, strict=True)]
    multiplier, addend, shift = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return Rescale(multiplier, addend, shift, low, high)


def _fixed(factor: float, offset: float, bound: int, path: str) -> tuple[int, int, int]:
    """Return multiplier, addend and shift, with as many bits as 64-bit sums allow."""
    bits = min(MULTIPLIER_BITS, PRODUCT_BITS - 1 - bound.bit_length())
    shift = bits - math.frexp(factor)[1]
    if offset:
        shift = min(shift, PRODUCT_BITS - 1 - math.frexp(offset)[1])
    if shift < 0:
        raise ExportError(f"{path}: results of {factor:.3g} steps for each step of a sum are too large for integers")
    shift = min(shift, PRODUCT_BITS)
    return round(math.ldexp(factor, shift)), round(math.ldexp(offset, shift)), shift


def _add(lowering: _Lowering, node: Node, operation: Add, inputs: list[_Value]) -> _Value:
    terms = lowering.aligned(inputs, node)
    if len(terms) == 1:
        return terms[0]
    return lowering.plain(node, terms, sum(term.largest for term in terms))


def _concatenate(lowering: _Lowering, node: Node, operation: Concatenate, inputs: list[_Value]) -> _Value:
    parts = lowering.aligned(inputs, node)
    return lowering.plain(node, parts, max(part.largest for part in parts))


def _clamp(lowering: _Lowering, node: Node, operation: Clamp, inputs: list[_Value]) -> _Value:
    (x,) = inputs
    ends = [end for end in (operation.low, operation.high) if math.isfinite(end)]
    if any(end % x.scale for end in ends) and x.largest < FINE:
        x = lowering.rescale(x, node, scale=math.ldexp(x.scale, -math.floor(math.log2(FINE / max(x.largest, 1)))))
    low = -STORED if operation.low == -math.inf else round(operation.low / x.scale)
    high = STORED if operation.high == math.inf else round(operation.high / x.scale)
    largest = max(abs(min(max(code, low), high)) for code in (-x.largest, x.largest))
    return lowering.plain(replace(node, operation=Clamp(low, high)), [x], largest)


def _pool(lowering: _Lowering, node: Node, operation: Pool, inputs: list[_Value]) -> _Value:
    (x,) = inputs
    if operation.kind == "max":
        return lowering.plain(node, [x], x.largest)
    counts = window_counts(operation, x.shape[1:], node.shape[1:])
    return _total(lowering, node, x, math.lcm(*set(counts.ravel().tolist())))


def _mean(lowering: _Lowering, node: Node, operation: Mean, inputs: list[_Value]) -> _Value:
    return _total(lowering, node, inputs[0], math.prod(inputs[0].shape[1:]))


def _total(lowering: _Lowering, node: Node, x: _Value, multiple: int) -> _Value:
    """Write a sum in place of an average: exact, as the scale takes the division."""
    x = lowering.at_most(x, node, STORED // multiple)
    scale, largest = x.scale / multiple, x.largest * multiple
    return lowering.append(
        IntegerNode(node.name, node.operation, (x.name,), node.shape, scale, largest, multiple=multiple, path=node.path)
    )


def _kept(lowering: _Lowering, node: Node, operation: Operation, inputs: list[_Value]) -> _Value:
    return lowering.plain(node, inputs, inputs[0].largest)


def _zeros(lowering: _Lowering, node: Node, operation: Zeros, inputs: list[_Value]) -> _Value:
    return lowering.plain(node, [], 0)


def _codes(lowering: _Lowering, node: Node, operation: Halve | Correct, inputs: list[_Value]) -> _Value:
    """Write what reads codes of the node's own grid and gives such."""
    value, number = inputs[0], node.number
    if number is None:
        raise TypeError(f"{node.name}: codes have a grid")
    names, largest = tuple(x.name for x in inputs), max(-number.low, number.high)
    return lowering.append(
        IntegerNode(node.name, operation, names, node.shape, value.scale, largest, number=number, path=node.path)
    )


# What brings its result to its grid by itself.
_ON_GRID = Convolve | Multiply | Scale | Halve | Correct

_LOWER: Mapping[type, Callable[[_Lowering, Node, Any, list[_Value]], _Value]] = {
    Add: _add,
    Clamp: _clamp,
    Concatenate: _concatenate,
    Convolve: _layer,
    Correct: _codes,
    Gather: _kept,
    Halve: _codes,
    Mean: _mean,
    Multiply: _layer,
    Pad: _kept,
    Pool: _pool,
    Reshape: _kept,
    Scale: _scale,
    Slice: _kept,
    Zeros: _zeros,
}


def _scale_of(number: FixedPoint) -> Doubles:
    """Return the scales, one or one for each channel, as the float32 that torch computes with."""
    scales = number.scale if isinstance(number.scale, tuple) else (number.scale,)
    return np.array(scales, np.float32).astype(np.float64)


def _doubles(reals: Reals | None, otherwise: Doubles) -> Doubles:
    return otherwise if reals is None else reals.astype(np.float64)
