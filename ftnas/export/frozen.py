"""A graph as a torch module of plain operations: integer weights, constant formats, nothing of ftnas in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    Pad,
    Pool,
    Reshape,
    Scale,
    Slice,
    Weight,
    Zeros,
)
from ftnas.export.protection import ProtectionStep
from ftnas.quantization import FixedPoint

_CONVOLUTIONS: Mapping[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAXIMA: Mapping[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGES: Mapping[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class FrozenNet(nn.Module):
    """What ``graph`` computes: images ``[N, ...]`` to logits ``[N, classes]``, every operation as torch has it.

    Weights are buffers of integers, decoded where they are used. On the CPU it repeats a net's own numbers to the bit;
    after ``double()``, and given float64, it computes in float64.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.protection = nn.ModuleDict(
            {
                node.name: ProtectionStep(node.operation, node.number)
                for node in graph.nodes
                if isinstance(node.operation, Gather | Halve | Correct)
            }
        )
        self.layers = nn.ModuleDict(
            {
                node.name: _Layer(node.operation)
                for node in graph.nodes
                if isinstance(node.operation, Convolve | Multiply | Scale)
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return self.values(images)[self.graph.output]

    def values(self, images: Tensor) -> dict[str, Tensor]:
        """Return every value by name, each ``[N, ...]``."""
        values = {INPUT: images}
        for node in self.graph.nodes:
            y = self.compute(node, values)
            values[node.name] = y if node.number is None else on_grid(y, node.number)
        return values

    def compute(self, node: Node, values: Mapping[str, Tensor]) -> Tensor:
        """Return what ``node`` makes of its inputs among ``values``, before it is rounded."""
        if node.name in self.layers:
            layer: Tensor = self.layers[node.name](values[node.inputs[0]])
            return layer
        if node.name in self.protection:
            protected: Tensor = self.protection[node.name]([values[name] for name in node.inputs])
            return protected
        if isinstance(node.operation, Zeros):
            return values[INPUT].new_zeros(values[INPUT].shape[0], *node.shape)
        return _computed(node, [values[name] for name in node.inputs])

    def before_rounding(self, node: Node, steps: Tensor) -> Tensor:
        """Return what the codes of ``node`` round from, if its input was so many real ``steps`` before rounding."""
        step: Any = self.protection[node.name]
        found: Tensor = step.before_rounding(steps)
        return found


def on_grid(y: Tensor, number: FixedPoint) -> Tensor:
    """Return ``y`` rounded to the values of ``number``, in the float type that it has."""
    return (y / number.scale_of(y)).clamp(number.low, number.high).round() * number.scale_of(y)


class _Layer(nn.Module):
    """A convolution, linear layer or batch norm with its numbers as buffers."""

    codes: Tensor
    scale: Tensor
    bias: Tensor | None
    gain: Tensor | None
    offset: Tensor | None

    def __init__(self, operation: Convolve | Multiply | Scale) -> None:
        super().__init__()
        self.operation = operation
        if not isinstance(operation, Scale):
            self.register_buffer("codes", _stored(operation.weight))
            scale = operation.weight.number.scale_of(self.codes)
            self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))
        for name in ("bias", "gain", "offset"):
            values = getattr(operation, name, None)
            self.register_buffer(name, None if values is None else torch.from_numpy(values).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer computes, not rounded."""
        y = self._product(x)
        if self.gain is None:
            return y
        # Torch's own batch norm, since it rounds a product and a sum once, which no two operations do.
        mean, variance = torch.zeros_like(self.gain), torch.ones_like(self.gain)
        return F.batch_norm(y, mean, variance, self.gain, self.offset, eps=0.0)

    def _product(self, x: Tensor) -> Tensor:
        if isinstance(self.operation, Scale):
            return x
        weight = self.codes.to(x.dtype) * self.scale
        if isinstance(self.operation, Multiply):
            return F.linear(x, weight, self.bias)
        operation = self.operation
        padding = [before for before, _ in operation.padding]
        if any(before != after for before, after in operation.padding):
            x, padding = F.pad(x, _edges(operation.padding)), [0] * len(padding)
        convolve = _CONVOLUTIONS[len(padding)]
        return convolve(x, weight, self.bias, operation.stride, padding, operation.dilation, operation.groups)


def _computed(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Return what an operation without numbers of its own makes of ``inputs``."""
    x = inputs[0]
    match node.operation:
        case Add():
            return _sum(inputs)
        case Clamp(0, math.inf):
            return F.relu(x)
        case Clamp(low, high):
            return x.clamp(low, high)
        case Pool() as pool:
            return _pooled(x, pool)
        case Mean(keep):
            return x.mean(tuple(range(2, x.dim())), keepdim=keep)
        case Concatenate(axis):
            return torch.cat(list(inputs), axis + 1)
        case Slice(axis, start, stop, step):
            return x[(slice(None),) * (axis + 1) + (slice(start, stop, step),)]
        case Pad(amounts):
            return F.pad(x, _edges(amounts))
        case Reshape():
            return x.reshape(x.shape[0], *node.shape)
    raise TypeError(f"{node.name}: {type(node.operation).__name__} has numbers of its own")


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0].clone()
    for term in terms[1:]:
        total = total + term
    return total


def _pooled(x: Tensor, pool: Pool) -> Tensor:
    rank, padding = len(pool.kernel), [before for before, _ in pool.padding]
    if pool.kind == "max":
        largest: Tensor = _MAXIMA[rank](x, pool.kernel, pool.stride, padding, ceil_mode=pool.ceil)
        return largest
    return _AVERAGES[rank](x, pool.kernel, pool.stride, padding, pool.ceil, pool.count_padding)


def _stored(weight: Weight) -> Tensor:
    """Return the codes in a type of 8 or 16 bits; their memory layout stays, since it decides how torch adds."""
    number = weight.number
    narrow = {(True, True): torch.int8, (True, False): torch.uint8, (False, True): torch.int16}
    kind = narrow.get((number.bits <= 8, number.signed), torch.int32)  # few operations know uint16
    return torch.from_numpy(weight.codes).to(kind)


def _edges(amounts: Sequence[tuple[int, int]]) -> list[int]:
    """Return padding as ``F.pad`` takes it: the last dimension first."""
    return [edge for pair in reversed(amounts) for edge in pair]
