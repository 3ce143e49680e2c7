"""What a failure does to a code. Codes are int32, in two's complement, handled only where something failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ftnas.faults.models import BitBias, BitFlip, BitwiseStuckCell, Fault, MacBitBias, StuckCell
from ftnas.faults.sampling import Hits, Integers
from ftnas.quantization import FixedPoint

WHOLE_CELL = -1

Column = NDArray[Any] | int
# The stuck bits of a cell by the event's bit; WHOLE_CELL is the last entry, all of them.
_STUCK = np.append(np.left_shift(1, np.arange(16)), -1).astype(np.int32)


# What an event does to a code.
FLIP, BIAS, POSITIVE_CELL, NEGATIVE_CELL = range(4)


class Events(NamedTuple):
    """Failed parts ``[k]``, ascending by element.

    Attributes:
        element: which value, counted in logical (N)CHW order.
        bit: which bit of its code, or ``WHOLE_CELL``.
        kind: ``FLIP``, ``BIAS``, ``POSITIVE_CELL`` or ``NEGATIVE_CELL``.
        value: the sign of a bias, what a cell is stuck at; 1 for a flip.
    """

    element: Integers
    bit: NDArray[np.int8]
    kind: NDArray[np.int8]
    value: NDArray[np.int8]

    def between(self, first: int, last: int) -> Events:
        """Return events ``first`` .. ``last - 1``."""
        here = slice(first, last)
        return Events(self.element[here], self.bit[here], self.kind[here], self.value[here])

    def same_as(self, other: Events) -> bool:
        """Return whether both hold the same events."""
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in self._fields)


NO_EVENTS = Events(np.empty(0, np.int64), np.empty(0, np.int8), np.empty(0, np.int8), np.empty(0, np.int8))


class Effect(NamedTuple):
    """Faulty values ``[m]``, distinct and ascending, and the int32 numbers ``[m]`` that change their codes."""

    element: Integers
    numbers: tuple[NDArray[np.int32], ...]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """How one fault model works.

    Attributes:
        parts: (bits) -> how many parts of one value can fail, each on its own.
        events: (fault, hits on values x parts positions, bits) -> what failed.
        effect: (events, number) -> what that comes to for each value.
        change: (fault, codes ``[m]``, numbers of the effect, number, whole clean tensor) -> faulty codes ``[m]``.
    """

    parts: Callable[[int], int]
    events: Callable[[Any, Hits, int], Events]
    effect: Callable[[Events, FixedPoint], Effect]
    change: Callable[[Any, Tensor, Sequence[Tensor], FixedPoint, Tensor], Tensor]


def _flip_events(fault: BitFlip, hits: Hits, bits: int) -> Events:
    element, bit = _split(hits.position, bits)
    return _events(element, bit=bit, kind=FLIP, value=1)


def _flip_effect(events: Events, number: FixedPoint) -> Effect:
    """Return one XOR mask for each value; that of the sign bit sets all higher bits too, so the sign extends."""
    masks = np.left_shift(np.int32(1), np.arange(number.bits, dtype=np.int32))
    if number.signed:
        masks[-1] = number.low
    return _merged(events.element, (masks[events.bit], np.bitwise_or))


def _flip(fault: BitFlip, codes: Tensor, masks: Sequence[Tensor], number: FixedPoint, clean: Tensor) -> Tensor:
    return codes ^ masks[0]


def _bias_events(fault: BitBias | MacBitBias, hits: Hits, bits: int) -> Events:
    """Return one event a hit: bit uniform in 0 .. bits-1, either sign equally likely."""
    choice = (hits.mark * (2 * bits)).astype(np.int8)
    return _events(hits.position, bit=choice >> 1, kind=BIAS, value=1 - 2 * (choice & 1))


def _bias_effect(events: Events, number: FixedPoint) -> Effect:
    return _merged(events.element, (events.value.astype(np.int32) << events.bit, np.add))


def _bias(
    fault: BitBias | MacBitBias, codes: Tensor, biases: Sequence[Tensor], number: FixedPoint, clean: Tensor
) -> Tensor:
    return (codes + biases[0]).clamp_(number.low, number.high)


def _stuck_events(fault: StuckCell, hits: Hits, bits: int) -> Events:
    element, cell = _split(hits.position, 2)
    return _cell_events(fault, hits, element=element, cell=cell, bit=WHOLE_CELL)


def _bitwise_stuck_events(fault: BitwiseStuckCell, hits: Hits, bits: int) -> Events:
    element, part = _split(hits.position, 2 * (bits - 1))
    cell, bit = _split(part, bits - 1)
    return _cell_events(fault, hits, element=element, cell=cell, bit=bit)


def _cell_events(
    fault: StuckCell | BitwiseStuckCell, hits: Hits, *, element: Integers, cell: Integers, bit: Integers | int
) -> Events:
    return _events(element, bit=bit, kind=POSITIVE_CELL + cell, value=hits.mark < fault.stuck_at_one)


def _stuck_effect(events: Events, number: FixedPoint) -> Effect:
    """Return for each value what its positive cell keeps and what it is set to, and the same of its negative cell.

    A whole cell is stuck in all bits; ``_pair`` limits what is set to a cell's full reach.
    """
    stuck = _STUCK[events.bit]
    columns: list[tuple[NDArray[np.int32], np.ufunc]] = []
    for kind in (POSITIVE_CELL, NEGATIVE_CELL):
        here = stuck * (events.kind == kind)
        columns += [(~here, np.bitwise_and), (here * events.value, np.bitwise_or)]
    return _merged(events.element, *columns)


def _stuck(fault: StuckCell, codes: Tensor, cells: Sequence[Tensor], number: FixedPoint, clean: Tensor) -> Tensor:
    if fault.reach == "range_end":
        return _pair(codes, cells, number, reach=-number.low)
    largest = (clean.detach().abs().amax().float() / number.scale).round().to(torch.int32)
    return _pair(codes, cells, number, reach=largest)


def _bitwise_stuck(
    fault: BitwiseStuckCell, codes: Tensor, cells: Sequence[Tensor], number: FixedPoint, clean: Tensor
) -> Tensor:
    return _pair(codes.clamp(-number.high, number.high), cells, number, reach=number.high)


def _pair(codes: Tensor, cells: Sequence[Tensor], number: FixedPoint, *, reach: int | Tensor) -> Tensor:
    """Return positive minus negative cell, each holding what it keeps or is set to (at most ``reach``)."""
    keep_positive, set_positive, keep_negative, set_negative = cells
    positive = (codes.clamp_min(0) & keep_positive) | (set_positive & reach)
    negative = ((-codes).clamp_min_(0) & keep_negative) | (set_negative & reach)
    return (positive - negative).clamp_(number.low, number.high)


MECHANISMS: Mapping[type[Fault], Mechanism] = {
    BitFlip: Mechanism(lambda bits: bits, _flip_events, _flip_effect, _flip),
    BitBias: Mechanism(lambda bits: 1, _bias_events, _bias_effect, _bias),
    MacBitBias: Mechanism(lambda bits: 1, _bias_events, _bias_effect, _bias),
    StuckCell: Mechanism(lambda bits: 2, _stuck_events, _stuck_effect, _stuck),
    BitwiseStuckCell: Mechanism(lambda bits: 2 * (bits - 1), _bitwise_stuck_events, _stuck_effect, _bitwise_stuck),
}


def _split(position: Integers, parts: int) -> tuple[Integers, Integers]:
    """Return quotient and remainder; numpy's ``divmod`` is five times slower."""
    quotient = position // parts
    return quotient, position - quotient * parts


def _events(element: Integers, *, bit: Column, kind: Column, value: Column) -> Events:
    return Events(element, _column(bit, element), _column(kind, element), _column(value, element))


def _column(content: Column, element: Integers) -> NDArray[np.int8]:
    """Return ``content``, one number for all events or one for each, as int8 ``[k]``."""
    column = np.empty(element.shape, np.int8)
    column[...] = content
    return column


def _merged(element: Integers, *columns: tuple[NDArray[np.int32], np.ufunc]) -> Effect:
    """Return one row for each distinct element: rows of the same element are joined by the column's operation."""
    differs = element[1:] != element[:-1]
    if differs.all():
        return Effect(element, tuple(column for column, _ in columns))
    start = np.flatnonzero(np.concatenate(([True], differs)))
    return Effect(element[start], tuple(operation.reduceat(column, start) for column, operation in columns))
