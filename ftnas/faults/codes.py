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

from ftnas.faults.models import BitBias, BitFlip, BitwiseStuckCell, Fault, MacBitBias, StuckCell
from ftnas.faults.sampling import Hits, Integers
from ftnas.quantization import FixedPoint

Table = NDArray[np.int32]

FLIP, BIAS, POSITIVE_CELL, NEGATIVE_CELL = range(4)
WHOLE_CELL = -1

# An event is one byte, kind * 64 + (bit + 1) * 2 + (value > 0). Kind, bit and value of every byte:
_BYTES = np.arange(256, dtype=np.int32)
KIND = _BYTES // 64
BIT = _BYTES % 64 // 2 - 1
VALUE = np.where(KIND == BIAS, 2 * (_BYTES % 2) - 1, _BYTES % 2)


class Events(NamedTuple):
    """Failed parts ``[k]``, ascending by element.

    Attributes:
        element: int64; which value, counted in logical (N)CHW order.
        what: uint8; ``KIND[what]`` is what happens (``FLIP``, ``BIAS``, ``POSITIVE_CELL``, ``NEGATIVE_CELL``),
            ``BIT[what]`` to which bit (or ``WHOLE_CELL``), and ``VALUE[what]`` the sign of a bias, or what a cell
            is stuck at.
    """

    element: Integers
    what: NDArray[np.uint8]


NO_EVENTS = Events(np.empty(0, np.int64), np.empty(0, np.uint8))


class Effect(NamedTuple):
    """Faulty values ``[m]``, distinct and ascending, and the int32 numbers ``[n, m]`` that change their codes."""

    element: Integers
    numbers: Table


@dataclass(frozen=True, slots=True)
class Mechanism:
    """How one fault model works.

    Attributes:
        parts: (bits) -> how many parts of one value can fail, each on its own.
        what: (fault, hit part of each value ``[k]``, mark ``[k]``, bits) -> byte of each event ``[k]``.
        table: (bits, signed) -> int32 ``[n, 256]``, the numbers that every event stands for.
        join: how each of the n numbers of several events on one value become one.
        change: (fault, codes ``[m]``, numbers ``[n, m]``, number, whole clean tensor) -> faulty codes ``[m]``.
    """

    parts: Callable[[int], int]
    what: Callable[[Any, Integers, NDArray[np.float64], int], Integers]
    table: Callable[[int, bool], Table]
    join: tuple[np.ufunc, ...]
    change: Callable[[Any, Tensor, Tensor, FixedPoint, Tensor], Tensor]


def events_of(fault: Fault, hits: Hits, bits: int) -> Events:
    """Return what ``hits`` on ``values * parts`` positions do to codes of ``bits``."""
    mechanism = MECHANISMS[type(fault)]
    element, part = _split(hits.position, mechanism.parts(bits))
    return Events(element, mechanism.what(fault, part, hits.mark, bits).astype(np.uint8))


def effect_of(fault: Fault, events: Events, number: FixedPoint) -> Effect:
    """Return what ``events`` come to for each value."""
    mechanism = MECHANISMS[type(fault)]
    numbers = mechanism.table(number.bits, number.signed)[:, events.what]
    differs = events.element[1:] != events.element[:-1]
    if differs.all():
        return Effect(events.element, numbers)
    start = np.flatnonzero(np.concatenate(([True], differs)))
    rows = [join.reduceat(row, start) for join, row in zip(mechanism.join, numbers, strict=True)]
    return Effect(events.element[start], np.stack(rows))


def _flipped(fault: BitFlip, bit: Integers, mark: NDArray[np.float64], bits: int) -> Integers:
    return 2 * bit + (FLIP * 64 + 3)


@cache
def _flip_table(bits: int, signed: bool) -> Table:
    """Return XOR masks; that of the sign bit sets all higher bits too, so that the sign extends."""
    return np.where((bits - 1 == BIT) & signed, -(1 << bits - 1), _ONE_BIT)[None]


def _flip(fault: BitFlip, codes: Tensor, masks: Tensor, number: FixedPoint, clean: Tensor) -> Tensor:
    return codes ^ masks[0]


def _biased(fault: BitBias | MacBitBias, part: Integers, mark: NDArray[np.float64], bits: int) -> Integers:
    """Return bit and sign, each bit and either sign equally likely."""
    return (mark * (2 * bits)).astype(np.int64) + (BIAS * 64 + 2)


@cache
def _bias_table(bits: int, signed: bool) -> Table:
    return (VALUE * _ONE_BIT)[None]


def _bias(fault: BitBias | MacBitBias, codes: Tensor, biases: Tensor, number: FixedPoint, clean: Tensor) -> Tensor:
    return (codes + biases[0]).clamp_(number.low, number.high)


def _stuck_whole(fault: StuckCell, cell: Integers, mark: NDArray[np.float64], bits: int) -> Integers:
    return POSITIVE_CELL * 64 + 64 * cell + (mark < fault.stuck_at_one)


def _stuck_bits(fault: BitwiseStuckCell, part: Integers, mark: NDArray[np.float64], bits: int) -> Integers:
    cell, bit = _split(part, bits - 1)
    return (POSITIVE_CELL * 64 + 2) + 64 * cell + 2 * bit + (mark < fault.stuck_at_one)


@cache
def _cell_table(bits: int, signed: bool) -> Table:
    """Return what the positive cell keeps and what it is set to, and the same of the negative cell.

    A whole cell is stuck in all bits; ``_pair`` limits what is set to a cell's full reach.
    """
    stuck = np.where(BIT == WHOLE_CELL, np.int32(-1), _ONE_BIT)
    positive, negative = (np.where(kind == KIND, stuck, 0) for kind in (POSITIVE_CELL, NEGATIVE_CELL))
    return np.stack([~positive, positive * VALUE, ~negative, negative * VALUE])


def _whole(fault: StuckCell, codes: Tensor, cells: Tensor, number: FixedPoint, clean: Tensor) -> Tensor:
    if fault.reach == "range_end":
        return _pair(codes, cells, number, reach=-number.low)
    largest = (clean.detach().abs().amax().float() / number.scale).round().to(torch.int32)
    return _pair(codes, cells, number, reach=largest)


def _bitwise(fault: BitwiseStuckCell, codes: Tensor, cells: Tensor, number: FixedPoint, clean: Tensor) -> Tensor:
    return _pair(codes.clamp(-number.high, number.high), cells, number, reach=number.high)


def _pair(codes: Tensor, cells: Tensor, number: FixedPoint, *, reach: int | Tensor) -> Tensor:
    """Return positive minus negative cell, each holding what it keeps or is set to (at most ``reach``)."""
    keep_positive, set_positive, keep_negative, set_negative = cells.unbind()
    positive: Tensor = (codes.clamp_min(0) & keep_positive) | (set_positive & reach)
    negative: Tensor = ((-codes).clamp_min_(0) & keep_negative) | (set_negative & reach)
    return (positive - negative).clamp_(number.low, number.high)


_ONE_BIT: Table = np.left_shift(np.int32(1), BIT.clip(0))
_CELLS = (np.bitwise_and, np.bitwise_or, np.bitwise_and, np.bitwise_or)

MECHANISMS: Mapping[type[Fault], Mechanism] = {
    BitFlip: Mechanism(lambda bits: bits, _flipped, _flip_table, (np.bitwise_or,), _flip),
    BitBias: Mechanism(lambda bits: 1, _biased, _bias_table, (np.add,), _bias),
    MacBitBias: Mechanism(lambda bits: 1, _biased, _bias_table, (np.add,), _bias),
    StuckCell: Mechanism(lambda bits: 2, _stuck_whole, _cell_table, _CELLS, _whole),
    BitwiseStuckCell: Mechanism(lambda bits: 2 * (bits - 1), _stuck_bits, _cell_table, _CELLS, _bitwise),
}


def _split(position: Integers, parts: int) -> tuple[Integers, Integers]:
    """Return quotient and remainder; numpy's ``divmod`` is five times slower."""
    if parts == 1:
        return position, position  # nothing asks which part of one
    quotient = position // parts
    return quotient, position - quotient * parts
