"""Writing faults into a tensor: only hit values are read, changed and written, whatever the memory layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftnas.faults import kernels
from ftnas.faults.codes import MECHANISMS, Effect, Reals, change_of
from ftnas.faults.events import Integers
from ftnas.faults.models import Fault
from ftnas.quantization import FloatWord, Number, stays_on_device
from ftnas.runtime import moved


def apply_(
    values: Tensor, fault: Fault, effect: Effect, *, number: Number, clean: Tensor, offsets: Integers | None = None
) -> int | Tensor:
    """Change the faulty ones of ``values``, which lie on the grid of ``number``, in place and outside autograd.

    Args:
        values: of any shape, type and memory layout without overlaps.
        fault: the model that ``effect`` came from.
        effect: elements in logical order of ``values``.
        number: format of the values.
        clean: the fault-free values, for models that look at all of them.
        offsets: of the elements, from ``storage_offsets``, where they are known already.

    Returns:
        How many codes (of analogue faults, values) are now another; of values on a GPU a tensor, for which nobody
        waits.
    """
    if offsets is None:
        offsets = storage_offsets(effect.element, values.shape, values.stride())
    apply = _apply_there_ if stays_on_device(values) else _apply_here_
    return apply(values, offsets, fault, effect, number=number, clean=clean)


def _apply_here_(
    values: Tensor, offsets: Integers, fault: Fault, effect: Effect, *, number: Number, clean: Tensor
) -> int:
    """Do it in one loop where it comes down to masks or a sum, else with arrays, which begin sooner than tensors."""
    mechanism, flat = MECHANISMS[type(fault)], flat_storage(values)
    if (counted := _change_in_one_loop_(flat, offsets, fault, effect, number)) is not None:
        _note_change_(flat)
        return counted
    before = _read(flat, offsets)
    if mechanism.analogue:
        after = mechanism.change(fault, before, effect.numbers, number, clean)
        changed = after != before
    else:
        channel = _channel(effect.element, values) if number.per_channel else None
        codes = number.encode_at(before, channel)
        faulty = mechanism.change(fault, codes, effect.numbers, number, clean)
        after, changed = number.decode_at(faulty, channel), faulty != codes
    _write_(flat, offsets, after)
    return int(np.count_nonzero(changed))


def _change_in_one_loop_(flat: Tensor, offsets: Integers, fault: Fault, effect: Effect, number: Number) -> int | None:
    """Do it if ``fault`` masks codes or adds to them, and if the format is simple; else return ``None``."""
    change = change_of(fault)
    if change is None or not _is_array(flat):
        return None
    if isinstance(number, FloatWord):
        words = flat.numpy().view(np.int32)
        return kernels.change_words_(words, offsets, effect.numbers, change) if number.bits == 32 else None
    if not isinstance(number.scale, float):
        return None
    return kernels.change_codes_(flat.numpy(), offsets, effect.numbers, change, number.scale, number.low, number.high)


def _read(flat: Tensor, offsets: Integers) -> Reals:
    """Return the values ``[k]`` of ``flat`` at ``offsets`` as float32."""
    if _is_array(flat):
        array: Reals = flat.numpy().take(offsets)
        return array
    values: Reals = flat.index_select(0, torch.from_numpy(offsets).to(flat.device)).float().cpu().numpy()
    return values


def _write_(flat: Tensor, offsets: Integers, values: Reals) -> None:
    """Put float32 ``values`` ``[k]`` into ``flat`` at ``offsets``, and let autograd know."""
    if _is_array(flat):
        flat.numpy()[offsets] = values
        _note_change_(flat)
    else:
        flat.index_copy_(0, torch.from_numpy(offsets).to(flat.device), torch.from_numpy(values).to(flat))


def _note_change_(flat: Tensor) -> None:
    """Let autograd know that the values of ``flat`` were changed behind its back."""
    if not flat.is_inference():
        torch.autograd.graph.increment_version(flat)


def _is_array(flat: Tensor) -> bool:
    return flat.is_cpu and flat.dtype == torch.float32


@torch.no_grad()
def _apply_there_(
    values: Tensor, offsets: Integers, fault: Fault, effect: Effect, *, number: Number, clean: Tensor
) -> Tensor:
    """Do it with tensors where ``values`` are: the host says what fails, and never looks at a value."""
    mechanism, device, flat = MECHANISMS[type(fault)], values.device, flat_storage(values)
    index, numbers = (moved(torch.from_numpy(array), device) for array in (offsets, effect.numbers))
    before = flat.index_select(0, index).float()
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
    return moved(torch.from_numpy(storage_offsets(element, values.shape, values.stride())), values.device)


def storage_offsets(element: Integers, shape: Sequence[int], strides: Sequence[int]) -> Integers:
    """Return where in ``flat_storage`` of a tensor its logical ``element`` ``[k]`` lie."""
    sizes, exponents, merged_strides = _merged_dimensions(tuple(shape), tuple(strides))
    if len(sizes) == 1 and merged_strides[0] == 1:
        return element
    return kernels.storage_offsets(element, sizes, exponents, merged_strides)


@lru_cache(maxsize=1024)
def _merged_dimensions(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[Integers, Integers, Integers]:
    """Return size, its exponent (-1: no power of two) and stride of the dimensions, joined where they are one run."""
    merged: list[tuple[int, int]] = []
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    sizes, merged_strides = np.array(merged or [(1, 1)]).T.copy()
    exponents = [size.bit_length() - 1 if size & (size - 1) == 0 else -1 for size in sizes.tolist()]
    return sizes, np.array(exponents), merged_strides
