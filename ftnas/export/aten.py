"""The operations of torch that stand between quantised layers, as nodes of a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node as Step

from ftnas.export.graph import Add, Clamp, Concatenate, Gather, Mean, Pad, Pool, Reals, Reshape, Scale, Slice, Zeros
from ftnas.export.layers import batch_norm
from ftnas.export.writer import BATCH, Traced, Writer

Write = Callable[[Writer, Step], None]

ZERO, ONE = torch.zeros(()), torch.ones(())


def _argument(step: Step, place: int, name: str, default: Any) -> Any:
    return step.args[place] if len(step.args) > place else step.kwargs.get(name, default)


def _input(writer: Writer, step: Step) -> Traced:
    return writer.value(step, step.args[0])


def _same(writer: Writer, step: Step) -> None:
    """Let the result be the argument; a change of type is refused."""
    writer.shape(step)
    writer.values[step] = _input(writer, step)


def _nothing(writer: Writer, step: Step) -> None:
    """Write nothing: there is no result, or there are several, and whoever takes one of them writes it."""


def _clamp(writer: Writer, step: Step) -> None:
    _cut(writer, step, _argument(step, 1, "min", None), _argument(step, 2, "max", None))


def _hardtanh(writer: Writer, step: Step) -> None:
    _cut(writer, step, _argument(step, 1, "min_val", -1.0), _argument(step, 2, "max_val", 1.0))


def _cut(writer: Writer, step: Step, low: Any, high: Any) -> None:
    low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise writer.refusal(step, "has limits that are no numbers")
    writer.write(step, Clamp(float(low), float(high)), _input(writer, step))


def _add(writer: Writer, step: Step) -> None:
    _sum(writer, step, share=float(step.kwargs.get("alpha", 1)))  # type: ignore[arg-type]


def _subtract(writer: Writer, step: Step) -> None:
    _sum(writer, step, share=-float(step.kwargs.get("alpha", 1)))  # type: ignore[arg-type]


def _subtract_from(writer: Writer, step: Step) -> None:
    gain, offset = -float(_argument(step, 2, "alpha", 1)), float(step.args[1])  # type: ignore[arg-type]
    _scale(writer, step, _input(writer, step), gain=gain * ONE, offset=offset * ONE)


def _sum(writer: Writer, step: Step, *, share: float) -> None:
    """Write ``one + share * other``, where either may be a constant."""
    one, other = step.args[:2]
    first, second = writer.constant(one), writer.constant(other)
    if first is not None:
        _scale(writer, step, writer.value(step, other), gain=share * ONE, offset=first)
    elif second is not None:
        _scale(writer, step, writer.value(step, one), gain=ONE, offset=share * second)
    else:
        x, y = writer.value(step, one), writer.value(step, other)
        if x.shape != y.shape:
            raise writer.refusal(step, f"adds shapes {x.shape} and {y.shape}")
        writer.write(step, Add(), x, y if share == 1 else _scale(writer, step, y, gain=share * ONE, offset=ZERO))


def _multiply(writer: Writer, step: Step) -> None:
    one, other = step.args[:2]
    if writer.constant(other) is None:
        one, other = other, one
    factor = writer.constant(other)
    if factor is None:
        raise writer.refusal(step, "multiplies two features")
    _scale(writer, step, writer.value(step, one), gain=factor, offset=ZERO)


def _divide(writer: Writer, step: Step) -> None:
    divisor = writer.constant(step.args[1])
    if divisor is None or writer.constant(step.args[0]) is not None:
        raise writer.refusal(step, "divides by features")
    _scale(writer, step, _input(writer, step), gain=1 / divisor, offset=ZERO)


def _negative(writer: Writer, step: Step) -> None:
    _scale(writer, step, _input(writer, step), gain=-ONE, offset=ZERO)


def _batch_norm(writer: Writer, step: Step) -> None:
    weight, bias, mean, variance = (writer.constant(argument) for argument in step.args[1:5])
    gain, offset = batch_norm(weight, bias, mean, variance, eps=float(step.args[6]))  # type: ignore[arg-type]
    writer.write(step, Scale(gain, offset), _input(writer, step))


def _scale(writer: Writer, step: Step, x: Traced, *, gain: Tensor, offset: Tensor) -> Traced:
    """Write ``gain * x + offset``, each a number or one for each channel."""
    if writer.shape(step) != x.shape and any(part.numel() > 1 for part in (gain, offset)):
        raise writer.refusal(step, "changes the shape of a feature map")
    factors = _by_channel(writer, step, x, gain), _by_channel(writer, step, x, offset)
    return writer.write(step, Scale(*factors), x, shape=x.shape)


def _by_channel(writer: Writer, step: Step, x: Traced, factor: Tensor) -> Reals:
    """Return ``factor`` ``[C]``, if it differs by channel only."""
    shape = (1,) * (len(x.shape) + 1 - factor.dim()) + tuple(factor.shape)
    ones = (1,) * len(x.shape)
    if shape not in ((1, *ones), (1, x.shape[0], *ones[1:])):
        raise writer.refusal(step, f"takes numbers {tuple(factor.shape)}, which differ by more than the channel,")
    return np.broadcast_to(factor.float().reshape(-1).numpy(), x.shape[:1]).astype(np.float32)


def _max_pool(writer: Writer, step: Step) -> None:
    x = _input(writer, step)
    kernel, stride, padding = _window(step, x)
    if set(_each(_argument(step, 4, "dilation", 1), x)) != {1}:
        raise writer.refusal(step, "is dilated")
    writer.write(step, Pool("max", kernel, stride, padding, bool(_argument(step, 5, "ceil_mode", False))), x)


def _average_pool(writer: Writer, step: Step) -> None:
    x = _input(writer, step)
    kernel, stride, padding = _window(step, x)
    ceil, count = bool(_argument(step, 4, "ceil_mode", False)), bool(_argument(step, 5, "count_include_pad", True))
    if _argument(step, 6, "divisor_override", None) is not None:
        raise writer.refusal(step, "has a divisor of its own")
    writer.write(step, Pool("average", kernel, stride, padding, ceil, count), x)


Window = tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]


def _window(step: Step, x: Traced) -> Window:
    """Return kernel, stride and padding."""
    kernel = _each(step.args[1], x)
    stride = _each(_argument(step, 2, "stride", ()) or kernel, x)
    return kernel, stride, tuple((pad, pad) for pad in _each(_argument(step, 3, "padding", 0), x))


def _each(value: Any, x: Traced) -> tuple[int, ...]:
    """Return one integer for each spatial dimension of ``x``."""
    several = list(value) if isinstance(value, list | tuple) else [value]
    return tuple(map(int, several * (len(x.shape) - 1) if len(several) == 1 else several))


def _adaptive_average(writer: Writer, step: Step) -> None:
    if set(writer.shape(step)[1:]) == {1}:
        writer.write(step, Mean(keep=True), _input(writer, step))
    else:
        _adaptive(writer, step, "average")


def _adaptive_max(writer: Writer, step: Step) -> None:
    _adaptive(writer, step, "max")


def _adaptive(writer: Writer, step: Step, kind: Literal["max", "average"]) -> None:
    x = _input(writer, step)
    sizes = list(zip(x.shape[1:], writer.shape(step)[1:], strict=True))
    if any(size % wanted for size, wanted in sizes):
        raise writer.refusal(step, f"pools {x.shape[1:]} in windows of several sizes")
    kernel = tuple(size // wanted for size, wanted in sizes)
    writer.write(step, Pool(kind, kernel, kernel, tuple((0, 0) for _ in kernel)), x)


def _mean(writer: Writer, step: Step) -> None:
    x = _input(writer, step)
    over = {int(dimension) % (len(x.shape) + 1) for dimension in _argument(step, 1, "dim", None) or ()}
    if len(x.shape) < 2 or over != set(range(2, len(x.shape) + 1)):
        raise writer.refusal(step, "is over other dimensions than all spatial ones")
    writer.write(step, Mean(bool(_argument(step, 2, "keepdim", False))), x)


def _concatenate(writer: Writer, step: Step) -> None:
    parts = [writer.value(step, part) for part in step.args[0]]  # type: ignore[union-attr]
    writer.write(step, Concatenate(_axis(writer, step, parts[0], _argument(step, 1, "dim", 0))), *parts)


def _axis(writer: Writer, step: Step, x: Traced, dimension: int) -> int:
    """Return the index of ``dimension`` without the batch."""
    axis = dimension % (len(x.shape) + 1) - 1
    if axis < 0:
        raise writer.refusal(step, "works along the batch")
    return axis


def _slice(writer: Writer, step: Step) -> None:
    x, dimension, by = _input(writer, step), int(_argument(step, 1, "dim", 0)), int(_argument(step, 4, "step", 1))
    size = (BATCH, *x.shape)[dimension]
    chosen = range(size)[slice(_argument(step, 2, "start", None), _argument(step, 3, "end", None), by)]
    if len(chosen) == size:
        _same(writer, step)
    else:
        writer.write(step, Slice(_axis(writer, step, x, dimension), chosen.start, chosen.stop, by), x)


def _item(writer: Writer, step: Step) -> None:
    """Take one of several results: the first, or a part of a split."""
    source, index = step.args
    if not isinstance(source, Step) or not isinstance(index, int):
        raise writer.refusal(step, "is unknown")
    if str(source.target).startswith("aten.split"):
        _part(writer, step, source, index)
    elif index == 0:
        writer.values[step] = writer.value(step, source)
    else:
        raise writer.refusal(source, "is asked for more than its values")


def _part(writer: Writer, step: Step, source: Step, index: int) -> None:
    x, dimension = writer.value(source, source.args[0]), int(_argument(source, 2, "dim", 0))
    sizes = [int(part.shape[dimension]) for part in source.meta["val"]]
    start = sum(sizes[:index])
    writer.write(step, Slice(_axis(writer, source, x, dimension), start, start + sizes[index]), x)


def _pad(writer: Writer, step: Step) -> None:
    x = _input(writer, step)
    edges: list[int] = list(step.args[1])  # type: ignore[arg-type]
    if _argument(step, 2, "mode", "constant") != "constant" or _argument(step, 3, "value", None):
        raise writer.refusal(step, "pads with something else than zeros")
    pairs = list(zip(edges[::2], edges[1::2], strict=True))
    if not any(edges):
        _same(writer, step)
        return
    if len(pairs) > len(x.shape) or min(edges, default=0) < 0:
        raise writer.refusal(step, f"pads by {edges}")
    # torch has the last dimension first.
    writer.write(step, Pad(tuple(reversed(pairs + [(0, 0)] * (len(x.shape) - len(pairs))))), x)


def _reshape(writer: Writer, step: Step) -> None:
    x = _input(writer, step)
    if writer.shape(step) == x.shape:
        _same(writer, step)
    else:
        writer.write(step, Reshape(), x)


def _zeros(writer: Writer, step: Step) -> None:
    writer.write(step, Zeros())


def _index_select(writer: Writer, step: Step) -> None:
    x, channels = _input(writer, step), writer.constant(step.args[2])
    if channels is None or _axis(writer, step, x, step.args[1]) != 0:  # type: ignore[arg-type]
        raise writer.refusal(step, "selects something else than channels")
    writer.write(step, Gather(tuple(int(channel) for channel in channels.tolist())), x)


_RESHAPING = (
    "_unsafe_view.default reshape.default squeeze.default squeeze.dim squeeze.dims unsqueeze.default view.default"
)

# By the names that torch.export gives; what is not here is named in an error.
OPERATORS: Mapping[str, Write] = {
    **{f"aten.adaptive_avg_pool{rank}d.default": _adaptive_average for rank in (1, 2, 3)},
    **{f"aten.adaptive_max_pool{rank}d.default": _adaptive_max for rank in (1, 2, 3)},
    **{f"aten.avg_pool{rank}d.default": _average_pool for rank in (1, 2, 3)},
    **{f"aten.max_pool{rank}d.default": _max_pool for rank in (1, 2, 3)},
    **{f"aten.{name}": _reshape for name in _RESHAPING.split()},
    "<built-in function getitem>": _item,
    "aten._assert_tensor_metadata.default": _nothing,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
    "aten.add.Tensor": _add,
    "aten.alias.default": _same,
    "aten.cat.default": _concatenate,
    "aten.clamp.default": _clamp,
    "aten.clamp_max.default": lambda writer, step: _cut(writer, step, None, step.args[1]),
    "aten.clamp_min.default": _clamp,
    "aten.clip.default": _clamp,
    "aten.clone.default": _same,
    "aten.div.Tensor": _divide,
    "aten.hardtanh.default": _hardtanh,
    "aten.index_select.default": _index_select,
    "aten.mean.dim": _mean,
    "aten.mul.Tensor": _multiply,
    "aten.neg.default": _negative,
    "aten.new_zeros.default": _zeros,
    "aten.pad.default": _pad,
    "aten.relu.default": lambda writer, step: _cut(writer, step, 0.0, None),
    "aten.relu6.default": lambda writer, step: _cut(writer, step, 0.0, 6.0),
    "aten.rsub.Scalar": _subtract_from,
    "aten.slice.Tensor": _slice,
    "aten.split.Tensor": _nothing,
    "aten.split_with_sizes.default": _nothing,
    "aten.sub.Tensor": _subtract,
    "aten.zeros_like.default": _zeros,
}
