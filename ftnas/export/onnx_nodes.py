"""The nodes of a net as ONNX nodes, integers and roundings spelled out.

The package onnx is handed in, since it may not be installed (see ``onnx_file``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from ftnas.export.onnx_protection import write_protection
from ftnas.quantization import FixedPoint

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass
class Writer:
    """ONNX nodes and constants of ``graph``, as far as they are written.

    ``onnx``: the package.
    """

    onnx: Any
    graph: Graph
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._shapes = {INPUT: self.graph.input_shape} | {node.name: node.shape for node in self.graph.nodes}
        self._numbers: dict[str, FixedPoint | None] = {}

    def write(self, node: Node) -> None:
        """Write what ``node`` computes, and its rounding."""
        number = self._numbers[node.name] = node.number or self._passed_on(node)
        if number is None:
            self._compute(node, node.name)
        else:
            self._compute(node, f"{node.name}.real")
            self._round(f"{node.name}.real", number, node.name)

    def values(self) -> dict[str, Any]:
        """Return the type of every value of the graph by its name, the input's too."""
        kind, describe = self.onnx.TensorProto.FLOAT, self.onnx.helper.make_tensor_value_info
        return {name: describe(name, kind, ["batch", *shape]) for name, shape in self._shapes.items()}

    def _passed_on(self, node: Node) -> FixedPoint | None:
        """Return the grid of a node's input where the node only picks from its values.

        To round them again changes nothing. It spares onnxruntime (1.31) from writing that rounding itself when it
        optimises, with another integer type than that of the zero, which it then refuses to load.
        """
        match node.operation:
            case Reshape() | Slice() | Gather() | Pool("max"):
                return self._numbers.get(node.inputs[0])
        return None

    def _compute(self, node: Node, name: str) -> None:
        """Write the nodes whose result is ``name``: what ``node`` computes before it is rounded."""
        inputs = node.inputs
        match node.operation:
            case Convolve() as convolve:
                self._convolve(node, convolve, name)
            case Multiply() as multiply:
                self._multiply(node, multiply, name)
            case Add():
                self._sum(inputs, name)
            case Clamp(low, high):
                self._clamp(inputs, low, high, name)
            case Pool() as pool:
                self._pool(node, pool, name)
            case Mean(keep):
                axes = self.integers(f"{name}.axes", range(2, 1 + len(self._shapes[inputs[0]])))
                self.add("ReduceMean", [*inputs, axes], name, keepdims=int(keep))
            case Concatenate(axis):
                self.add("Concat", inputs, name, axis=axis + 1)
            case Slice() as part:
                self._slice(inputs, part, name)
            case Pad(amounts):
                self.add("Pad", [*inputs, self.integers(f"{name}.amounts", _ends([(0, 0), *amounts]))], name)
            case Reshape():
                # A 0 stands for the size that is there: the batch.
                self.add("Reshape", [*inputs, self.integers(f"{name}.shape", [0, *node.shape])], name)
            case Scale() as scale:
                shape = (-1,) + (1,) * (len(node.shape) - 1)
                self._scale(inputs[0], scale.gain.reshape(shape), scale.offset.reshape(shape), name)
            case Zeros():
                self._zeros(node, name)
            case Gather() | Halve() | Correct():
                write_protection(self, node, name)

    def _round(self, real: str, number: FixedPoint, name: str) -> None:
        """Write the rounding of the value ``real`` to the grid of ``number``."""
        container = _container(number)
        scale = self.constant(f"{name}.scale", np.array(number.scale, np.float32))
        zero = self.constant(f"{name}.zero", np.zeros((), container))
        narrow = number.bits < 8 * container.itemsize
        if narrow and container.itemsize == 2:  # onnxruntime cannot clip 16-bit integers, and the result is the same
            real = self._clip(real, np.array(number.ends, np.float32), f"{name}.clipped")
        codes = self.add("QuantizeLinear", [real, scale, zero], f"{name}.codes")
        if narrow and container.itemsize == 1:
            codes = self._clip(codes, np.array([number.low, number.high], container), f"{name}.clipped")
        self.add("DequantizeLinear", [codes, scale, zero], name)

    def _weight(self, weight: Weight, name: str, *, transposed: bool = False) -> str:
        """Write the integers of ``weight`` and return the name of its values."""
        codes = weight.codes.T if transposed else weight.codes
        stored = self._codes(codes, weight.number, f"{name}.weight.codes")
        scale = self.constant(f"{name}.weight.scale", np.array(weight.number.scale, np.float32))
        axis = {"axis": codes.ndim - 1 if transposed else 0} if weight.number.per_channel else {}
        return self.add("DequantizeLinear", [stored, scale], f"{name}.weight", **axis)

    def _codes(self, codes: Array, number: FixedPoint, name: str) -> str:
        """Write ``codes`` in the narrowest type that ONNX has for them."""
        if number.bits > 4:
            return self.constant(name, codes.astype(_container(number)))
        kind = self.onnx.TensorProto.INT4 if number.signed else self.onnx.TensorProto.UINT4
        self.constants[name] = self.onnx.helper.make_tensor(name, kind, codes.shape, codes.flatten().tolist())
        return name

    def _convolve(self, node: Node, operation: Convolve, name: str) -> None:
        inputs = [*node.inputs, self._weight(operation.weight, node.name)]
        place = self._before(operation, node, name)
        geometry = {"strides": operation.stride, "pads": _ends(operation.padding), "dilations": operation.dilation}
        self.add("Conv", inputs, place, group=operation.groups, **geometry)
        self._finish(place, operation, node, (-1,) + (1,) * (len(node.shape) - 1), name)

    def _multiply(self, node: Node, operation: Multiply, name: str) -> None:
        place, is_vector = self._before(operation, node, name), len(node.shape) == 1
        inputs = [*node.inputs, self._weight(operation.weight, node.name, transposed=not is_vector)]
        if is_vector:
            self.add("Gemm", inputs, place, transB=1)
        else:
            self.add("MatMul", inputs, place)
        self._finish(place, operation, node, (-1,), name)

    @staticmethod
    def _before(operation: Convolve | Multiply, node: Node, name: str) -> str:
        """Return what to call the product of ``node``: ``name``, unless bias or batch norm follow it."""
        is_last = operation.bias is None and operation.gain is None
        return name if is_last else f"{node.name}.product"

    def _finish(self, product: str, operation: Convolve | Multiply, node: Node, shape: Shape, name: str) -> None:
        """Write bias and batch norm of a layer, each broadcast from ``shape``.

        The bias is a node of its own: onnxruntime rounds one inside a convolution to 32-bit integers, and every tenth
        image of a net of the digits then has other logits.
        """
        gain, offset = operation.gain, operation.offset
        if operation.bias is not None:
            bias = self.constant(f"{node.name}.bias", operation.bias.reshape(shape))
            product = self.add("Add", [product, bias], name if gain is None else f"{node.name}.biased")
        if gain is not None and offset is not None:
            self._scale(product, gain.reshape(shape), offset.reshape(shape), name)

    def _scale(self, real: str, gain: Array, offset: Array, name: str) -> None:
        """Write ``gain * real + offset``."""
        product = self.add("Mul", [real, self.constant(f"{name}.gain", gain)], f"{name}.scaled")
        self.add("Add", [product, self.constant(f"{name}.offset", offset)], name)

    def _sum(self, terms: Sequence[str], name: str) -> None:
        """Write a sum from left to right, as torch adds."""
        if len(terms) == 1:
            # An identity would be optimised away, and onnxruntime merges two roundings that meet into a third.
            self.add("Sum", terms, name)
            return
        total = terms[0]
        for index, term in enumerate(terms[1:], start=2):
            total = self.add("Add", [total, term], name if index == len(terms) else f"{name}.first_{index}")

    def _clamp(self, inputs: Sequence[str], low: float, high: float, name: str) -> None:
        if (low, high) == (0, math.inf):
            self.add("Relu", inputs, name)
        else:
            self._clip(inputs[0], np.array([low, high], np.float32), name)

    def _clip(self, value: str, ends: Array, name: str) -> str:
        low, high = self.constant(f"{name}.low", ends[0]), self.constant(f"{name}.high", ends[1])
        return self.add("Clip", [value, low, high], name)

    def _pool(self, node: Node, pool: Pool, name: str) -> None:
        """Write a pooling; a last window that is cut off becomes one that reaches into more padding."""
        wide = self._padding(node, pool)
        window = {"kernel_shape": pool.kernel, "strides": pool.stride}
        if pool.kind == "max":
            self.add("MaxPool", node.inputs, name, pads=_ends(wide), **window)
        elif pool.count_padding and wide != pool.padding:
            # Only the padding that was asked for counts; so it becomes part of the image, and the rest does not count.
            amounts = self.integers(f"{name}.amounts", _ends([(0, 0), (0, 0), *pool.padding]))
            padded = self.add("Pad", [*node.inputs, amounts], f"{name}.padded")
            rest = [(0, after - own) for (_, after), (_, own) in zip(wide, pool.padding, strict=True)]
            self.add("AveragePool", [padded], name, pads=_ends(rest), count_include_pad=0, **window)
        else:
            counted = int(pool.count_padding)
            self.add("AveragePool", node.inputs, name, pads=_ends(wide), count_include_pad=counted, **window)

    def _padding(self, node: Node, pool: Pool) -> tuple[tuple[int, int], ...]:
        """Return the padding that lets every window of the result lie inside."""
        sizes = zip(self._shapes[node.inputs[0]][1:], node.shape[1:], pool.kernel, pool.stride, strict=True)
        reach = [(count - 1) * stride + kernel - size for size, count, kernel, stride in sizes]
        return tuple(
            (before, max(after, end - before)) for (before, after), end in zip(pool.padding, reach, strict=True)
        )

    def _slice(self, inputs: Sequence[str], part: Slice, name: str) -> None:
        numbers = {"start": part.start, "stop": part.stop, "axis": part.axis + 1, "step": part.step}
        written = [self.integers(f"{name}.{what}", [number]) for what, number in numbers.items()]
        self.add("Slice", [*inputs, *written], name)

    def _zeros(self, node: Node, name: str) -> None:
        batch = self.add("Shape", [*(node.inputs or (INPUT,))], f"{name}.batch", start=0, end=1)
        shape = self.add("Concat", [batch, self.integers(f"{name}.rest", node.shape)], f"{name}.shape", axis=0)
        zero = self.onnx.numpy_helper.from_array(np.zeros(1, np.float32))
        self.add("ConstantOfShape", [shape], name, value=zero)

    def integers(self, name: str, numbers: Sequence[int]) -> str:
        """Write an array of 64-bit integers and return its name."""
        return self.constant(name, np.array(numbers, np.int64))

    def constant(self, name: str, values: Array | np.generic) -> str:
        """Write an array and return its name."""
        self.constants[name] = self.onnx.numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Write one ONNX node and return the name of its result."""
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output


def _container(number: FixedPoint) -> np.dtype[Any]:
    """Return the narrowest whole-byte type that holds the codes of ``number``."""
    return np.dtype(f"{'int' if number.signed else 'uint'}{8 if number.bits <= 8 else 16}")


def _ends(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Return ``padding`` as ONNX has it: before every dimension, then after every dimension."""
    return [before for before, _ in padding] + [after for _, after in padding]
