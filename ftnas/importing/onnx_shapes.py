"""ONNX operators that move values and compute none; on constants they compute shapes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ftnas.importing.network import Value
from ftnas.importing.onnx_plan import PREVIOUS, Node, Part, same

_TYPES: Mapping[int, torch.dtype] = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool}


def concatenate(node: Node) -> list[Part]:
    """Return the joining of its inputs along an axis."""
    return [Part(torch.cat, (list(node.inputs), node.get("axis", 0)))]


def flatten(node: Node) -> list[Part]:
    """Return the flattening of all but the images."""
    axis = node.get("axis", 1)
    if axis % len(node.shape()) != 1:
        raise ValueError(f"axis {axis}; allowed is 1")
    return [Part(torch.flatten, (node.input(0), 1))]


def reshape(node: Node) -> list[Part]:
    """Return the same values in another shape, the batch free."""
    wanted, shape = node.integers("shape", 1), node.shape()
    if wanted is None:
        raise ValueError("its shape is missing")
    keeps = not node.get("allowzero", 0)  # whether 0 stands for the size that is there
    sizes = [shape[i] if size == 0 and keeps else size for i, size in enumerate(wanted)]
    if isinstance(node.input(0), Value):
        # The batch is free, whatever the file says of it.
        whole = torch.empty(shape, device="meta").reshape(sizes).shape
        if whole[0] != node.batch:
            raise ValueError(f"shape {list(whole)} for {node.batch} images; allowed is one that keeps them apart")
        sizes = [-1, *whole[1:]]
    return [Part(torch.reshape, (node.input(0), sizes))]


def squeeze(node: Node) -> list[Part]:
    """Return its input without axes of size 1."""
    rank = len(node.shape())
    axes = node.integers("axes", 1)
    if axes is None:
        axes = [axis for axis, size in enumerate(node.shape()) if size == 1 and axis]
    return [Part(torch.squeeze, (node.input(0), tuple(axis % rank for axis in axes)))]


def unsqueeze(node: Node) -> list[Part]:
    """Return its input with more axes of size 1."""
    axes = node.integers("axes", 1) or []
    rank = len(node.shape()) + len(axes)
    parts: list[Part] = []
    for axis in sorted(axis % rank for axis in axes):
        parts.append(Part(torch.unsqueeze, (PREVIOUS if parts else node.input(0), axis)))
    return parts


def transpose(node: Node) -> list[Part]:
    """Return its input with its axes in another order."""
    order = node.get("perm", list(reversed(range(len(node.shape())))))
    return [Part(torch.permute, (node.input(0), order))]


def identity(node: Node) -> list[Part]:
    """Return its input as it is."""
    return [Part(same, (node.input(0),))]


def dropout(node: Node) -> list[Part]:
    """Return its input as it is, since a net is read in evaluation mode."""
    if node.input(2) is not None and bool(node.constant(2, "training mode")):
        raise ValueError("it is in training mode")
    return identity(node)


def pad(node: Node) -> list[Part]:
    """Return its input with a border."""
    rank, amounts = len(node.shape()), node.integers("pads", 1)
    if amounts is None or len(amounts) != 2 * rank or node.input(3) is not None:
        raise ValueError(f"pads {amounts} of some axes; allowed are those of all {rank}")
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    mode = node.get("mode", "constant")
    if mode not in modes:
        raise ValueError(f"mode {mode}; allowed are {', '.join(modes)}")
    pairs = [(amounts[axis], amounts[axis + rank]) for axis in range(rank)]
    first = 2 if pairs[:2] == [(0, 0)] * 2 else 0
    flat = [amount for pair in reversed(pairs[first:]) for amount in pair]
    value = node.number("value", 2) if mode == "constant" else None
    return [Part(F.pad, (node.input(0), flat, modes[mode], value))]


def slices(node: Node) -> list[Part]:
    """Return every so many indices of some axes, one part for each."""
    starts, ends = node.integers("starts", 1), node.integers("ends", 2)
    if starts is None or ends is None:
        raise ValueError("its starts or ends are missing")
    axes, steps = node.integers("axes", 3) or list(range(len(starts))), node.integers("steps", 4) or [1] * len(starts)
    parts: list[Part] = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        source = PREVIOUS if parts else node.input(0)
        if step > 0:
            parts.append(Part(torch.ops.aten.slice.Tensor, (source, axis, start, end, step)))
        elif isinstance(source, Tensor):  # as torch turns the pads of its own order round
            chosen = range(source.shape[axis])[start : max(end, -source.shape[axis] - 1) : step]
            parts.append(Part(torch.index_select, (source, axis, torch.tensor(list(chosen)))))
        else:
            raise ValueError(f"steps {steps}; allowed are positive ones")
    return parts


def split(node: Node) -> list[Part]:
    """Return the pieces along an axis."""
    axis = node.get("axis", 0)
    size = node.shape()[axis]
    sizes = node.integers("split", 1) or [
        min(-(-size // node.outputs), size - i * -(-size // node.outputs)) for i in range(node.outputs)
    ]
    return [Part(torch.split, (node.input(0), sizes, axis))]


def gather(node: Node) -> list[Part]:
    """Return one index of an axis, or several."""
    index, axis = node.constant(1, "index"), node.get("axis", 0)
    if index.dim() == 0:
        return [Part(torch.select, (node.input(0), axis, int(index)))]
    if index.dim() != 1:
        raise ValueError(f"an index of {index.dim()} dimensions; allowed are 0 and 1")
    return [Part(torch.index_select, (node.input(0), axis, index % node.shape()[axis]))]


def shape_of(node: Node) -> list[Part]:
    """Return the shape of its input, a constant."""
    sizes = node.shape()[node.get("start", 0) : node.get("end", None)]
    return [Part(torch.tensor, (list(sizes),))]


def fill(node: Node) -> list[Part]:
    """Return a constant of one value."""
    value = node.get("value", torch.zeros(1))
    return [Part(torch.full, (node.integers("input", 0), value.item()))]


def cast(node: Node) -> list[Part]:
    """Return its input in another type, which for features is what they have."""
    if node.get("to", None) not in _TYPES:
        raise ValueError(f"a cast to type {node.get('to', None)} of ONNX")
    if isinstance(node.input(0), Value) and node.get("to", None) != 1:
        raise ValueError("a cast of features; allowed is float32")
    return [Part(Tensor.to, (node.input(0), _TYPES[node.get("to", None)]))]
