"""Redundancy and what corrects it as ONNX nodes: on codes, as whole numbers in float, but for a bitwise vote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ftnas.export.graph import Correct, Gather, Halve, Node
from ftnas.networks.correction import Method
from ftnas.networks.correction import Rule as RuleName
from ftnas.quantization import FixedPoint, half_range

if TYPE_CHECKING:
    from ftnas.export.onnx_nodes import Writer

__all__ = ["write_protection"]


def write_protection(writer: Writer, node: Node, name: str) -> None:
    """Write the nodes whose result is ``name``: the values of ``node``, which gathers, halves or corrects."""
    operation, number = node.operation, node.number
    if isinstance(operation, Gather):
        writer.add("Gather", [node.inputs[0], writer.integers(f"{name}.channels", operation.channels)], name, axis=1)
        return
    if number is None or not isinstance(operation, Halve | Correct):
        raise TypeError(f"{node.name}: codes have a grid")
    sums = _Codes(writer, node.name)
    codes = [sums.codes(value, number) for value in node.inputs]
    changed = (
        _halved(sums, codes[0], operation, node, number)
        if isinstance(operation, Halve)
        else _merged(sums, codes, operation, node, number)
    )
    writer.add("Mul", [changed, sums.number(float(np.array(number.scale, np.float32)))], name)


class _Codes:
    """Arithmetic on codes, each result under a name of its own."""

    def __init__(self, writer: Writer, name: str) -> None:
        self._writer, self._name, self._count = writer, name, 0

    def __call__(self, operator: str, *inputs: str | float, **attributes: Any) -> str:
        """Write ``operator`` on values and numbers, and return the name of its result."""
        names = [value if isinstance(value, str) else self.number(value) for value in inputs]
        return self._writer.add(operator, names, self._fresh(), **attributes)

    def number(self, value: float) -> str:
        """Write a constant."""
        return self._writer.constant(self._fresh(), np.array(value, np.float32))

    def by_channel(self, numbers: Sequence[float], dimensions: int) -> str:
        """Write a constant for each channel of a value of so many ``dimensions``."""
        shape = (-1,) + (1,) * (dimensions - 1)
        return self._writer.constant(self._fresh(), np.array(numbers, np.float32).reshape(shape))

    def gathered(self, value: str, channels: Sequence[int]) -> str:
        """Write the selection of ``channels``."""
        return self._writer.add(
            "Gather", [value, self._writer.integers(self._fresh(), channels)], self._fresh(), axis=1
        )

    def codes(self, value: str, number: FixedPoint) -> str:
        """Write the codes of ``value``."""
        return self("Round", self("Div", value, float(np.array(number.scale, np.float32))))

    def cast(self, value: str, kind: str) -> str:
        """Write a change of type."""
        return self("Cast", value, to=getattr(self._writer.onnx.TensorProto, kind))

    def _fresh(self) -> str:
        self._count += 1
        return f"{self._name}.step_{self._count}"


def _halved(sums: _Codes, codes: str, operation: Halve, node: Node, number: FixedPoint) -> str:
    channels, dimensions = range(node.shape[0]), len(node.shape)
    highest = [number.high - (channel in operation.channels) for channel in channels]
    shares = [0.5 if channel in operation.channels else 1.0 for channel in channels]
    capped = sums("Min", codes, sums.by_channel(highest, dimensions))
    return sums("Ceil" if operation.upper else "Floor", sums("Mul", capped, sums.by_channel(shares, dimensions)))


def _merged(sums: _Codes, codes: list[str], operation: Correct, node: Node, number: FixedPoint) -> str:
    """Write the merge of the protected channels, and put them where they belong."""
    count, chosen = node.shape[0], operation.channels
    every = list(chosen) == list(range(count))
    own = codes[0] if every else sums.gathered(codes[0], chosen)
    limits = [sums.by_channel(limit, len(node.shape)) for limit in operation.limits]
    merged = _MERGES[operation.method, operation.rule](sums, [own, *codes[1:]], number, limits)
    if every:
        return merged
    place = {channel: count + index for index, channel in enumerate(chosen)}
    both = sums("Concat", codes[0], merged, axis=1)
    return sums.gathered(both, [place.get(channel, channel) for channel in range(count)])


def _masked(sums: _Codes, half: str, other: str, number: FixedPoint) -> str:
    low, high = half_range(number)
    if not number.signed:
        return sums("Where", sums("Greater", half, high), sums("Sub", half, high + 1), half)
    size = high + 1
    rest = sums("Where", sums("Less", half, 0), sums("Add", half, 2 * size), sums("Sub", half, size))
    near = sums("Less", sums("Mul", sums("Sub", rest, other), 2), size)
    repaired = sums("Where", near, rest, sums("Sub", rest, size))
    beyond = sums("Or", sums("Less", half, low), sums("Greater", half, high))
    return sums("Where", beyond, repaired, half)


def _both_masked(sums: _Codes, codes: Sequence[str], number: FixedPoint) -> tuple[str, str]:
    upper, lower = codes
    return _masked(sums, upper, lower, number), _masked(sums, lower, upper, number)


def _sum_or_smaller(sums: _Codes, near: str, upper: str, lower: str) -> str:
    return sums("Where", near, sums("Add", upper, lower), sums("Mul", sums("Min", upper, lower), 2))


def _smaller_half(sums: _Codes, codes: Sequence[str], number: FixedPoint, limits: Sequence[str]) -> str:
    upper, lower = _both_masked(sums, codes, number)
    apart = sums("Sub", upper, lower)
    near = sums("Or", sums("Equal", apart, 0), sums("Equal", apart, 1))
    return _sum_or_smaller(sums, near, upper, lower)


def _smaller_near_half(sums: _Codes, codes: Sequence[str], number: FixedPoint, limits: Sequence[str]) -> str:
    upper, lower = _both_masked(sums, codes, number)
    near = sums("LessOrEqual", sums("Abs", sums("Sub", upper, lower)), limits[0])
    return _sum_or_smaller(sums, near, upper, lower)


def _masked_sum(sums: _Codes, codes: Sequence[str], number: FixedPoint, limits: Sequence[str]) -> str:
    return sums("Add", *_both_masked(sums, codes, number))


def _plain_sum(sums: _Codes, codes: Sequence[str], number: FixedPoint, limits: Sequence[str]) -> str:
    return sums("Clip", sums("Add", *codes), number.low, number.high)


def _majority(sums: _Codes, codes: Sequence[str], number: FixedPoint, limits: Sequence[str]) -> str:
    one, two, three = (sums.cast(code, "INT32") for code in codes)
    pairs = [sums("BitwiseAnd", *pair) for pair in ((one, two), (one, three), (two, three))]
    return sums.cast(sums("BitwiseOr", sums("BitwiseOr", pairs[0], pairs[1]), pairs[2]), "FLOAT")


def _median(sums: _Codes, codes: Sequence[str], number: FixedPoint, limits: Sequence[str]) -> str:
    one, two, three = codes
    return sums("Max", sums("Min", one, two), sums("Min", sums("Max", one, two), three))


def _zeroed(sums: _Codes, codes: Sequence[str], number: FixedPoint, limits: Sequence[str]) -> str:
    beyond = sums("Or", sums("Less", codes[0], limits[0]), sums("Greater", codes[0], limits[1]))
    return sums("Where", beyond, 0, codes[0])


_Merge = Callable[[_Codes, Sequence[str], FixedPoint, Sequence[str]], str]

_MERGES: Mapping[tuple[Method, RuleName], _Merge] = {
    ("split", "min"): _smaller_half,
    ("split", "mean"): _masked_sum,
    ("split", "sum"): _plain_sum,
    ("split_weights", "min"): _smaller_near_half,
    ("split_weights", "mean"): _masked_sum,
    ("split_weights", "sum"): _plain_sum,
    ("duplicate_min", "min"): lambda sums, codes, number, limits: sums("Min", *codes),
    ("duplicate_min", "mean"): lambda sums, codes, number, limits: sums("Floor", sums("Mul", sums("Add", *codes), 0.5)),
    ("tmr", "majority"): _majority,
    ("tmr", "median"): _median,
    ("guard", "zero"): _zeroed,
    ("guard", "clip"): lambda sums, codes, number, limits: sums("Min", sums("Max", codes[0], limits[0]), limits[1]),
}
