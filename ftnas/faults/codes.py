"""What a failure does to a code. Codes are int32, in two's complement, handled only where something failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ftnas.errors import FaultError
from ftnas.faults.events import (
    BIT,
    END,
    FLIP,
    KIND,
    NEGATIVE_CELL,
    POSITIVE_CELL,
    REPLACE,
    SET,
    VALUE,
    WHOLE,
    WITHIN,
    Events,
    Integers,
    Words,
)
from ftnas.faults.kernels import ADD, AND, FLIPS, MASKS, OR, SUM, XOR, joined_numbers, looked_up
from ftnas.faults.models import (
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    DirectedFlip,
    Fault,
    Gaussian,
    Listed,
    LogNormal,
    MacBitBias,
    OutputPattern,
    RandomValue,
    StuckBit,
    StuckCell,
)
from ftnas.quantization import FixedPoint, Number, stays_on_device

Table = NDArray[np.int32]
Reals = NDArray[np.float32]


class Effect(NamedTuple):
    """Faulty values ``[m]``, distinct and ascending, and the int32 numbers ``[n, m]`` that change their codes."""

    element: Integers
    numbers: Table


@dataclass(frozen=True, slots=True)
class Mechanism:
    """What one fault model does to a value.

    Attributes:
        numbers: (fault, events, format, whole clean tensor) -> int32 ``[n, k]``, the numbers that events stand for.
        join: by what each of the n numbers of several events on one value become one (see ``joined_numbers``).
        change: (fault, codes ``[m]``, numbers ``[n, m]``, format, clean) -> faulty codes ``[m]``; or, where
            ``analogue``, the same with float values. Codes and numbers are arrays, or tensors where the values are.
        analogue: whether it changes values rather than codes.
        words: whether it makes sense for float words.
    """

    numbers: Callable[[Any, Events, Any, Tensor], Table]
    join: tuple[int, ...]
    change: Callable[[Any, Any, Any, Any, Tensor], Any]
    analogue: bool = False
    words: bool = True


def effect_of(fault: Fault, events: Events, number: Number, clean: Tensor) -> Effect:
    """Return what ``events`` come to for each value of ``clean``, whose format is ``number``.

    Raises:
        FaultError: the fault model knows no float words and ``number`` is one, or a bit lies beyond the format.
    """
    mechanism = MECHANISMS[type(fault)]
    if not (mechanism.words or isinstance(number, FixedPoint)):
        raise FaultError(f"{fault.name} needs fixed-point numbers, got {number}")
    numbers = mechanism.numbers(fault, events, number, clean)
    if (events.element[1:] != events.element[:-1]).all():
        return Effect(events.element, numbers)
    return Effect(*joined_numbers(events.element, numbers, np.array(mechanism.join, np.int32)))


def is_analogue(fault: Fault) -> bool:
    """Return whether ``fault`` varies values rather than breaks codes."""
    return MECHANISMS[type(fault)].analogue


def change_of(fault: Fault) -> int | None:
    """Return how ``fault`` changes fixed-point codes: ``MASKS``, ``FLIPS``, ``SUM``, or ``None`` if in no such way."""
    return None if looks_at_all(fault) else _CHANGES.get(MECHANISMS[type(fault)].change)


def reads_neighbours(fault: Fault, number: Number) -> bool:
    """Return whether what ``fault`` puts into float words depends on the values beside them (see ``_within``)."""
    return isinstance(fault, OutputPattern) and fault.value == "in_range" and not isinstance(number, FixedPoint)


def looks_at_all(fault: Fault) -> bool:
    """Return whether what ``fault`` does to an output depends on the largest value of the whole batch."""
    return isinstance(fault, MacBitBias) and fault.bias == "published"


def _flip_numbers(fault: BitFlip, events: Events, number: Number, clean: Tensor) -> Table:
    return looked_up(_bit_table(number.bits, number.signed), events.what)


@cache
def _bit_table(bits: int, signed: bool) -> Table:
    """Return each event's bit as a mask; that of the sign bit has all higher bits too, so that the sign extends."""
    return np.where((bits - 1 == BIT) & signed, np.int32(-(1 << bits - 1)), _ONE_BIT)[None]


def _flip(fault: BitFlip, codes: Words, masks: Table, number: Number, clean: Tensor) -> Words:
    changed: Words = codes ^ masks[0]
    return changed


def _masks(fault: Fault, events: Events, number: Number, clean: Tensor) -> Table:
    """Return what the code keeps, what is set in it, and what flips in it afterwards."""
    numbers: Table = looked_up(_mask_table(number.bits, number.signed), events.what)
    kind = KIND[events.what]
    if kind.max(initial=0) < REPLACE:
        return numbers
    for replaced, codes in ((REPLACE, _replacing), (WITHIN, _within), (END, _ends)):
        chosen = kind == replaced
        if chosen.any():
            numbers[0, chosen], numbers[1, chosen] = 0, codes(events.part(chosen), number, clean)
    return numbers


@cache
def _mask_table(bits: int, signed: bool) -> Table:
    mask = _bit_table(bits, signed)[0]
    stuck, flips = KIND == SET, KIND == FLIP
    keep = np.where(stuck & (VALUE == 0), ~mask, np.int32(-1))
    return np.stack([keep, np.where(stuck & (VALUE == 1), mask, 0), np.where(flips, mask, 0)]).astype(np.int32)


def _replacing(events: Events, number: Number, clean: Tensor) -> Words:
    return _as_code(events.amount, number)


def _within(events: Events, number: Number, clean: Tensor) -> Words:
    """Return codes uniform over the format, or for float words uniform over the range of the image's values."""
    share = events.amount / 2.0**31
    if isinstance(number, FixedPoint):
        return (np.floor(share * (number.high - number.low + 1)) + number.low).astype(np.int32)
    # The range of the whole batch would make an image's faults depend on its neighbours.
    images, which = np.unique(events.element // (clean.numel() // len(clean)), return_inverse=True)
    values = clean.detach()[torch.from_numpy(images).to(clean.device)].float().nan_to_num(0.0).flatten(1)
    low, high = (end.double().cpu().numpy()[which] for end in torch.aminmax(values, dim=1))
    return number.encode(torch.from_numpy(low + share * (high - low)).float()).numpy()


def _ends(events: Events, number: Number, clean: Tensor) -> Words:
    up = VALUE[events.what] == 1
    if isinstance(number, FixedPoint):
        return np.where(up, number.high, number.low).astype(np.int32)
    largest = torch.finfo(number.dtype).max
    low, high = number.encode(torch.tensor([-largest, largest])).tolist()
    ends: Words = np.where(up, high, low).astype(np.int32)
    return ends


def _as_code(word: Words, number: Number) -> Words:
    """Return the lowest bits of ``word`` read as a code."""
    if number.bits == 32:
        return word
    low = word & ((1 << number.bits) - 1)
    return np.where((low >> number.bits - 1) & number.signed, low - (1 << number.bits), low).astype(np.int32)


def _mask(fault: Fault, codes: Words, masks: Table, number: Number, clean: Tensor) -> Words:
    keep, put, flips = masks
    changed: Words = ((codes & keep) | put) ^ flips
    return changed


def _bias_numbers(fault: BitBias | MacBitBias, events: Events, number: FixedPoint, clean: Tensor) -> Table:
    return looked_up(_bias_table(), events.what)


@cache
def _bias_table() -> Table:
    return (VALUE * _ONE_BIT)[None].astype(np.int32)


def _bias(fault: BitBias | MacBitBias, codes: Words, biases: Table, number: FixedPoint, clean: Tensor) -> Words:
    if isinstance(fault, MacBitBias) and fault.bias == "published":
        largest = _largest_code(number, clean)
        largest = largest.clamp(max=number.high) if isinstance(largest, Tensor) else min(largest, number.high)
        changed: Words = (codes + 2 ** (number.bits - 1)).clip(max=largest)
    else:
        changed = _clipped(codes + biases[0], number)
    return changed


def _clipped(codes: Words, number: FixedPoint) -> Words:
    """Return ``codes`` kept within the format; numpy's ``clip`` takes longer to begin than two ufuncs."""
    if isinstance(codes, Tensor):
        kept: Words = codes.clip(number.low, number.high)
        return kept
    return np.minimum(np.maximum(codes, number.low), number.high)


def _cell_numbers(fault: StuckCell | BitwiseStuckCell, events: Events, number: FixedPoint, clean: Tensor) -> Table:
    return looked_up(_cell_table(), events.what)


@cache
def _cell_table() -> Table:
    """Return what the positive cell keeps and what it is set to, and the same of the negative cell.

    A whole cell is stuck in all bits; ``_pair`` limits what is set to a cell's full reach.
    """
    stuck = np.where(BIT == WHOLE, np.int32(-1), _ONE_BIT)
    positive, negative = (np.where(kind == KIND, stuck, 0) for kind in (POSITIVE_CELL, NEGATIVE_CELL))
    return np.stack([~positive, positive * VALUE, ~negative, negative * VALUE]).astype(np.int32)


def _whole(fault: StuckCell, codes: Words, cells: Table, number: FixedPoint, clean: Tensor) -> Words:
    if fault.reach == "range_end":
        return _pair(codes, cells, number, reach=-number.low)
    return _pair(codes, cells, number, reach=_largest_code(number, clean))


def _largest_code(number: FixedPoint, clean: Tensor) -> int | Tensor:
    """Return the largest magnitude of ``clean`` in steps, as a tensor where the host should not wait for it."""
    largest = (clean.detach().float() / number.scale_of(clean)).abs().amax()
    return largest.round().to(torch.int32) if stays_on_device(clean) else round(float(largest))


def _bitwise(fault: BitwiseStuckCell, codes: Words, cells: Table, number: FixedPoint, clean: Tensor) -> Words:
    return _pair(codes.clip(-number.high, number.high), cells, number, reach=number.high)


def _pair(codes: Words, cells: Table, number: FixedPoint, *, reach: int | Tensor) -> Words:
    """Return positive minus negative cell, each holding what it keeps or is set to (at most ``reach``)."""
    keep_positive, set_positive, keep_negative, set_negative = cells
    positive = (codes.clip(min=0) & keep_positive) | (set_positive & reach)
    negative = ((-codes).clip(min=0) & keep_negative) | (set_negative & reach)
    difference: Words = (positive - negative).clip(number.low, number.high)
    return difference


def _normals(fault: LogNormal | Gaussian, events: Events, number: Number, clean: Tensor) -> Table:
    return events.amount[None]


def _multiply(fault: LogNormal, values: Any, normals: Any, number: Number, clean: Tensor) -> Any:
    noise = fault.sigma * _standard(normals)
    return values * (noise.exp() if isinstance(noise, Tensor) else np.exp(noise))


def _add(fault: Gaussian, values: Any, normals: Any, number: Number, clean: Tensor) -> Any:
    noise = fault.sigma * _standard(normals)
    if fault.target == "weights":
        largest = clean.detach().abs().amax()
        return values + noise * (largest if isinstance(noise, Tensor) else float(largest))
    if not isinstance(number, FixedPoint):
        raise FaultError(f"{fault.name} is relative to the range of fixed-point numbers, got {number}")
    if isinstance(noise, Tensor):
        return number.decode(number.encode(values + noise * number.reach))
    return number.decode_at(number.encode_at(values + noise * number.reach))


def _standard(normals: Table | Tensor) -> Any:
    """Return the standard normals that the bits in row 0 of ``normals`` are."""
    row = normals[0]
    return row.view(torch.float32) if isinstance(row, Tensor) else row.view(np.float32)


_ONE_BIT: Table = np.left_shift(np.int32(1), BIT.clip(0, 31), dtype=np.int32)
_CELLS = (AND, OR, AND, OR)
_MASKS = (AND, OR, XOR)

_BIASED = Mechanism(_bias_numbers, (ADD,), _bias, words=False)
_MASKED = Mechanism(_masks, _MASKS, _mask)

_CHANGES: Mapping[Callable[..., Any], int] = {_mask: MASKS, _flip: FLIPS, _bias: SUM}

MECHANISMS: Mapping[type[Fault], Mechanism] = {
    BitFlip: Mechanism(_flip_numbers, (XOR,), _flip),
    StuckBit: _MASKED,
    DirectedFlip: _MASKED,
    RandomValue: _MASKED,
    OutputPattern: _MASKED,
    Listed: _MASKED,
    BitBias: _BIASED,
    MacBitBias: _BIASED,
    StuckCell: Mechanism(_cell_numbers, _CELLS, _whole, words=False),
    BitwiseStuckCell: Mechanism(_cell_numbers, _CELLS, _bitwise, words=False),
    LogNormal: Mechanism(_normals, (OR,), _multiply, analogue=True),
    Gaussian: Mechanism(_normals, (OR,), _add, analogue=True),
}
