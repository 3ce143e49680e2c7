"""Which functions of ``inference.c`` compute a node, and with which arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from ftnas.errors import ExportError
from ftnas.export.c_memory import Memory
from ftnas.export.c_protection import limit_names, merge_name
from ftnas.export.graph import (
    Add,
    Clamp,
    Concatenate,
    Convolve,
    Correct,
    Gather,
    Halve,
    Mean,
    Multiply,
    Pad,
    Pool,
    Reshape,
    Slice,
    Weight,
    Zeros,
)
from ftnas.export.integer import STORED, IntegerNode, Rescale
from ftnas.quantization import FixedPoint

Shape: TypeAlias = tuple[int, ...]
# Functions, each with its arguments.
Calls: TypeAlias = Iterator[tuple[Any, ...]]


class Call(NamedTuple):
    """A function of ``inference.c`` and its arguments, in C."""

    function: str
    arguments: tuple[str, ...]


class Place(NamedTuple):
    """What the calls need to know of the whole net: its prefix, where values lie, and their shapes."""

    prefix: str
    memory: Memory
    shapes: Mapping[str, Shape]

    def at(self, value: str) -> str:
        """Return the address of ``value``."""
        return f"memory + {self.memory.offsets[value]}"

    def map(self, value: str, node: IntegerNode) -> tuple[str, str]:
        """Return the address and the dimensions of ``value``, which ``node`` reads or writes."""
        return self.at(value), _macro("MAP", *as_map(self.shapes[value], node))

    def count(self, value: str) -> int:
        """Return how many codes ``value`` has."""
        return math.prod(self.shapes[value])


def calls_of(place: Place, node: IntegerNode) -> list[Call]:
    """Return the calls that compute ``node``."""
    calls = _CALLS[type(node.operation)](place, node, node.operation)
    return [Call(function, tuple(map(str, arguments))) for function, *arguments in calls]


def as_map(shape: Shape, node: IntegerNode) -> tuple[int, int, int]:
    """Return channels, height and width: a vector has maps of one value, a signal maps of one row."""
    if len(shape) > 3:
        place = node.path or node.name
        raise ExportError(f"{place}: the C program has maps of two dimensions at most, here is one of {shape}")
    height, width = (1, 1, *shape[1:])[-2:]
    return shape[0], height, width


def _struct(name: str, *entries: object) -> str:
    return f"(struct {name}){_braced(*entries)}"


def _macro(name: str, *entries: object) -> str:
    return f"{name}({', '.join(map(str, entries))})"


def _braced(*entries: object) -> str:
    return "{" + ", ".join(_braced(*entry) if isinstance(entry, tuple) else str(entry) for entry in entries) + "}"


def _rescale(place: Place, node: IntegerNode, step: Rescale | None) -> str:
    if step is None:
        raise ValueError(f"{node.name}: a layer needs the way to its next grid")
    return _macro("RESCALE", f"{place.prefix}_{node.name}", len(step.multiplier), _end(step.low), _end(step.high))


def _end(code: float) -> str:
    """Return a limit in C, where that of 32 bits has a name."""
    return {-STORED: "-INT32_MAX", STORED: "INT32_MAX"}.get(int(code), str(int(code)))


def _weight(place: Place, node: IntegerNode, weight: Weight) -> str:
    return _macro("NARROW" if weight.number.bits <= 8 else "WIDE", f"{place.prefix}_{node.name}")


def _convolve(place: Place, node: IntegerNode, operation: Convolve) -> Calls:
    window = _window(operation.weight.codes.shape[2:], operation.stride, operation.padding, operation.dilation)
    weight, step = _weight(place, node, operation.weight), _rescale(place, node, node.rescale)
    maps = (*place.map(node.inputs[0], node), *place.map(node.name, node))
    yield "convolve", *maps, weight, operation.groups, window, step


def _multiply(place: Place, node: IntegerNode, operation: Multiply) -> Calls:
    outputs, inputs = operation.weight.codes.shape
    (x,) = node.inputs
    weight, step = _weight(place, node, operation.weight), _rescale(place, node, node.rescale)
    yield "multiply", place.at(x), place.count(x) // inputs, inputs, place.at(node.name), outputs, weight, step


def _rescale_values(place: Place, node: IntegerNode, operation: Rescale) -> Calls:
    channels = node.shape[0]
    positions, step = place.count(node.name) // channels, _rescale(place, node, operation)
    yield "rescale_values", place.at(node.inputs[0]), place.at(node.name), channels, positions, step


def _add(place: Place, node: IntegerNode, operation: Add) -> Calls:
    for index, term in enumerate(node.inputs):
        yield "add_values" if index else "copy_values", place.at(term), place.at(node.name), place.count(term)


def _clamp(place: Place, node: IntegerNode, operation: Clamp) -> Calls:
    ends = _end(operation.low), _end(operation.high)
    yield "clamp_values", place.at(node.inputs[0]), place.at(node.name), place.count(node.name), *ends


def _pool(place: Place, node: IntegerNode, operation: Pool) -> Calls:
    window = _window(operation.kernel, operation.stride, operation.padding, (1,) * len(operation.kernel))
    maps = (*place.map(node.inputs[0], node), *place.map(node.name, node))
    if operation.kind == "max":
        yield "pool_max", *maps, window
    else:
        yield "pool_sum", *maps, window, int(operation.count_padding), node.multiple


def _mean(place: Place, node: IntegerNode, operation: Mean) -> Calls:
    (x,) = node.inputs
    channels, *size = as_map(place.shapes[x], node)
    whole = _struct("window", tuple(size), (1, 1), (0, 0), (0, 0), (1, 1))
    result = place.at(node.name), _macro("MAP", channels, 1, 1)
    yield "pool_sum", *place.map(x, node), *result, whole, 0, node.multiple


def _concatenate(place: Place, node: IntegerNode, operation: Concatenate) -> Calls:
    start, axis = [0, 0, 0], _axis(node, operation.axis)
    for part in node.inputs:
        yield "place", *place.map(part, node), *place.map(node.name, node), *start
        start[axis] += place.shapes[part][operation.axis]


def _slice(place: Place, node: IntegerNode, operation: Slice) -> Calls:
    start, step, axis = [0, 0, 0], [1, 1, 1], _axis(node, operation.axis)
    start[axis], step[axis] = operation.start, operation.step
    triples = (f"(const int[3]){_braced(*three)}" for three in (start, step))
    yield "take", *place.map(node.inputs[0], node), *place.map(node.name, node), *triples


def _pad(place: Place, node: IntegerNode, operation: Pad) -> Calls:
    start = [0, 0, 0]
    for axis, (before, _) in enumerate(operation.amounts):
        start[_axis(node, axis)] = before
    yield "zero_values", place.at(node.name), place.count(node.name)
    yield "place", *place.map(node.inputs[0], node), *place.map(node.name, node), *start


def _reshape(place: Place, node: IntegerNode, operation: Reshape) -> Calls:
    yield "copy_values", place.at(node.inputs[0]), place.at(node.name), place.count(node.name)


def _zeros(place: Place, node: IntegerNode, operation: Zeros) -> Calls:
    yield "zero_values", place.at(node.name), place.count(node.name)


def _gather(place: Place, node: IntegerNode, operation: Gather) -> Calls:
    x, y = place.at(node.inputs[0]), place.at(node.name)
    yield "gather_values", x, y, *_channels(place, node, len(operation.channels)), _positions(place, node)


def _halve(place: Place, node: IntegerNode, operation: Halve) -> Calls:
    x, y = place.at(node.inputs[0]), place.at(node.name)
    chosen = _channels(place, node, len(operation.channels))
    highest = _number(node).high - 1
    yield "copy_values", x, y, place.count(node.name)
    yield "halve_values", y, *chosen, _positions(place, node), highest, int(operation.upper)


def _correct(place: Place, node: IntegerNode, operation: Correct) -> Calls:
    table, number = f"{place.prefix}_{node.name}", _number(node)
    whole, *copies = (place.at(name) for name in node.inputs)
    second, third = [*copies, "0", "0"][:2]
    chosen = _channels(place, node, len(operation.channels))
    grid = _struct("grid", number.low, number.high)
    yield "copy_values", whole, place.at(node.name), place.count(node.name)
    yield (
        "merge_values", place.at(node.name), second, third, *chosen, _positions(place, node),
        merge_name(operation), grid, *limit_names(table, operation),
    )  # fmt: skip


def _channels(place: Place, node: IntegerNode, count: int) -> tuple[str, int]:
    return f"{place.prefix}_{node.name}_channels", count


def _positions(place: Place, node: IntegerNode) -> int:
    return place.count(node.name) // node.shape[0]


def _number(node: IntegerNode) -> FixedPoint:
    if node.number is None:
        raise ValueError(f"{node.name}: codes have a grid")
    return node.number


def _axis(node: IntegerNode, axis: int) -> int:
    """Return which of channel, row and column ``axis`` of the value of ``node`` is."""
    return 2 if len(node.shape) == 2 and axis == 1 else axis


def _window(kernel: Shape, stride: Shape, padding: tuple[tuple[int, int], ...], dilation: Shape) -> str:
    """Return the ``struct window``; a signal's has one row."""
    before, after = tuple(first for first, _ in padding), tuple(last for _, last in padding)
    parts = zip((1, 1, 0, 0, 1), (kernel, stride, before, after, dilation), strict=True)
    return _struct("window", *((row, *part)[-2:] for row, part in parts))


_CALLS: Mapping[type, Callable[[Place, IntegerNode, Any], Calls]] = {
    Add: _add,
    Clamp: _clamp,
    Concatenate: _concatenate,
    Convolve: _convolve,
    Correct: _correct,
    Gather: _gather,
    Halve: _halve,
    Mean: _mean,
    Multiply: _multiply,
    Pad: _pad,
    Pool: _pool,
    Rescale: _rescale_values,
    Reshape: _reshape,
    Slice: _slice,
    Zeros: _zeros,
}
