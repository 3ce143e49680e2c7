"""Writing faults into a tensor: only hit values are read, changed and written, whatever the memory layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftnas.faults.codes import MECHANISMS, Effect
from ftnas.faults.events import Integers
from ftnas.faults.models import Fault
from ftnas.quantization import Number, stays_on_device
from ftnas.runtime import moved


def apply_(values: Tensor, fault: Fault, effect: Effect, *, number: Number, clean: Tensor) -> int | Tensor:
    """Change the faulty ones of ``values``, which lie on the grid of ``number``, in place and outside autograd.

    Args:
        values: of any shape, type and memory layout without overlaps.
        fault: the model that ``effect`` came from.
        effect: elements in logical order of ``values``.
        number: format of the values.
        clean: the fault-free values, for models that look at all of them.

    Returns:
        How many codes (of analogue faults, values) are now another; of values on a GPU a tensor, for which nobody
        waits.
    """
    mechanism = MECHANISMS[type(fault)]
    with torch.no_grad():
        flat = flat_storage(values)
        index = storage_index(effect.element, values)
        if stays_on_device(values):
            return _apply_there_(values, flat, index, fault, effect, number=number, clean=clean)
        # Few values, many small steps: numpy takes a tenth of the time that torch takes to begin each of them.
        before = flat.index_select(0, index).float().cpu().numpy()
        if mechanism.analogue:
            after = mechanism.change(fault, before, effect.numbers, number, clean)
            changed = after != before
        else:
            channel = _channel(effect.element, values) if number.per_channel else None
            codes = number.encode_at(before, channel)
            faulty = mechanism.change(fault, codes, effect.numbers, number, clean)
            after, changed = number.decode_at(faulty, channel), faulty != codes
        flat.index_copy_(0, index, torch.from_numpy(after).to(flat))
        return int(np.count_nonzero(changed))


def _apply_there_(
    values: Tensor, flat: Tensor, index: Tensor, fault: Fault, effect: Effect, *, number: Number, clean: Tensor
) -> Tensor:
    """Do the same with tensors where ``values`` are: the host says what fails, and never looks at a value."""
    mechanism, device = MECHANISMS[type(fault)], values.device
    before, numbers = flat.index_select(0, index).float(), moved(torch.from_numpy(effect.numbers), device)
    if mechanism.analogue:
        after: Tensor = mechanism.change(fault, before, numbers, number, clean)
        changed = after != before
    else:
        # Of a number with one scale the channel says nothing.
        channel = moved(torch.from_numpy(_channel(effect.element, values)), device) if number.per_channel else None
        codes = number.encode(before, channel)
        faulty = mechanism.change(fault, codes, numbers, number, clean)
        after, changed = number.decode(faulty, channel), faulty != codes
    flat.index_copy_(0, index, after.to(flat.dtype))
    return changed.sum()


def _channel(element: Integers, values: Tensor) -> Integers:
    """Return the index in dimension 0 of each element."""
    return element // (values.numel() // values.shape[0])


def replace_value(weight: Tensor, faulty: Tensor, *, masked: Sequence[Integers]) -> Tensor:
    """Return ``faulty``; its gradient reaches ``weight``, but as 0 at the elements ``masked``."""
    if not (weight.requires_grad and torch.is_grad_enabled()):
        return faulty
    elements = [moved(torch.from_numpy(element), weight.device) for element in masked]
    replaced: Tensor = _Replaced.apply(weight, faulty, elements)  # type: ignore[no-untyped-call]
    return replaced


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, faulty: Tensor, masked: list[Tensor]) -> Tensor:
        ctx.masked = masked
        return faulty

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0]
        if ctx.masked:
            gradient = gradient.clone(memory_format=torch.contiguous_format)
        for element in ctx.masked:
            gradient.view(-1).index_fill_(0, element, 0.0)
        return gradient, None, None


def flat_storage(values: Tensor) -> Tensor:
    """Return the memory that ``values`` spans, as a tensor ``[extent]`` that shares it and its version counter."""
    if values.is_contiguous():
        return values.detach().view(-1)
    extent = 1 + sum((size - 1) * stride for size, stride in zip(values.shape, values.stride(), strict=True))
    return values.detach().as_strided((extent,), (1,))


def storage_index(element: Integers, values: Tensor) -> Tensor:
    """Return where in ``flat_storage(values)`` the logical ``element`` ``[k]`` lie, on the device of ``values``."""
    if not values.is_contiguous():
        element = _offsets(element, _merged_dimensions(values.shape, values.stride()))
    return moved(torch.from_numpy(element), values.device)


def _merged_dimensions(shape: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Return (size, stride) of the dimensions, neighbours joined where they are one run: fewer divisions later."""
    merged: list[tuple[int, int]] = []
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    return merged or [(1, 1)]


def _offsets(element: Integers, dimensions: Sequence[tuple[int, int]]) -> Integers:
    """Return the memory offset of each element; ``dimensions`` outermost first."""
    offset, rest = np.zeros_like(element), element
    for size, stride in reversed(dimensions[1:]):
        outer = rest // size
        offset += (rest - outer * size) * stride
        rest = outer
    return offset + rest * dimensions[0][1]
