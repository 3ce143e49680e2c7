"""The ONNX operators that ftnas reads: what of torch each becomes. Knows nothing of the ``onnx`` package."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ftnas.importing import onnx_layers, onnx_shapes
from ftnas.importing.onnx_plan import Node, Part
from ftnas.importing.onnx_shapes import identity


def _global_pool(function: Callable[..., Tensor]) -> Callable[[Node], list[Part]]:
    def plan(node: Node) -> list[Part]:
        return [Part(function, (node.input(0), list(range(2, len(node.shape()))), True))]

    return plan


def _reduce_mean(node: Node) -> list[Part]:
    rank = len(node.shape())
    axes = sorted(axis % rank for axis in node.integers("axes", 1) or range(rank))
    if 0 in axes:
        raise ValueError("a mean over the images of a batch")
    return [Part(torch.mean, (node.input(0), axes, bool(node.get("keepdims", 1))))]


def _clip(node: Node) -> list[Part]:
    low, high = node.number("min", 1), node.number("max", 2)
    return identity(node) if low is None and high is None else [Part(torch.clamp, (node.input(0), low, high))]


def _elementwise(function: Callable[..., Tensor], *attributes: tuple[str, float]) -> Callable[[Node], list[Part]]:
    """Return the plan of ``function``, given the ``attributes`` (name, default) after its inputs."""

    def plan(node: Node) -> list[Part]:
        return [Part(function, (*node.inputs, *(node.get(name, default) for name, default in attributes)))]

    return plan


def _hard_sigmoid(x: Tensor, slope: float, shift: float) -> Tensor:
    return (x * slope + shift).clamp(0, 1)


def _gelu(node: Node) -> list[Part]:
    return [Part(_GELUS[node.get("approximate", "none")], (node.input(0),))]


def _tanh_gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _divide(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _total(*terms: Tensor) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _softmax(node: Node) -> list[Part]:
    if len(node.shape()) != 2:
        raise ValueError(f"a softmax of {len(node.shape())} dimensions; allowed is one of logits")
    return [Part(torch.softmax, (node.input(0), 1))]


_GELUS: Mapping[str, Callable[..., Tensor]] = {"none": F.gelu, "tanh": _tanh_gelu}

OPERATIONS: Mapping[str, Callable[[Node], list[Part]]] = {
    "Conv": onnx_layers.convolution,
    "Gemm": onnx_layers.gemm,
    "MatMul": onnx_layers.matrix_product,
    "BatchNormalization": onnx_layers.batch_norm,
    "Relu": _elementwise(torch.relu),
    "Clip": _clip,
    "LeakyRelu": _elementwise(F.leaky_relu, ("alpha", 0.01)),
    "Elu": _elementwise(F.elu, ("alpha", 1.0)),
    "Sigmoid": _elementwise(torch.sigmoid),
    "HardSigmoid": _elementwise(_hard_sigmoid, ("alpha", 0.2), ("beta", 0.5)),
    "HardSwish": _elementwise(F.hardswish),
    "Tanh": _elementwise(torch.tanh),
    "Gelu": _gelu,
    "Softmax": _softmax,
    "Add": _elementwise(torch.add),
    "Sub": _elementwise(torch.sub),
    "Mul": _elementwise(torch.mul),
    "Div": _elementwise(_divide),
    "Sum": _elementwise(_total),
    "Neg": _elementwise(torch.neg),
    "MaxPool": onnx_layers.max_pool,
    "AveragePool": onnx_layers.average_pool,
    "GlobalAveragePool": _global_pool(torch.mean),
    "GlobalMaxPool": _global_pool(torch.amax),
    "ReduceMean": _reduce_mean,
    "Concat": onnx_shapes.concatenate,
    "Flatten": onnx_shapes.flatten,
    "Reshape": onnx_shapes.reshape,
    "Squeeze": onnx_shapes.squeeze,
    "Unsqueeze": onnx_shapes.unsqueeze,
    "Transpose": onnx_shapes.transpose,
    "Identity": identity,
    "Dropout": onnx_shapes.dropout,
    "Pad": onnx_shapes.pad,
    "Slice": onnx_shapes.slices,
    "Split": onnx_shapes.split,
    "Gather": onnx_shapes.gather,
    "Shape": onnx_shapes.shape_of,
    "ConstantOfShape": onnx_shapes.fill,
    "Cast": onnx_shapes.cast,
}
