"""What fails, as data: which element of a tensor, and what happens to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Words = NDArray[np.int32]

# What happens: a bit flips, a bit's weight is added or taken, a cell of a differential pair is stuck, a bit is set,
# the code is replaced by another, by one within the range or by the range's end, or the value varies.
FLIP, BIAS, POSITIVE_CELL, NEGATIVE_CELL, SET, REPLACE, WITHIN, END, VARY = range(9)
KIND_NAMES = (
    "flip",
    "bias",
    "positive_cell",
    "negative_cell",
    "set",
    "replace",
    "within_range",
    "range_end",
    "vary",
)
WITH_AMOUNT = (REPLACE, WITHIN, VARY)
WHOLE = -1

# An event is one number, kind * 128 + (bit + 1) * 2 + (value > 0). Kind, bit and value of every such number:
CODES = 128 * 16
_NUMBERS = np.arange(CODES, dtype=np.int32)
KIND = _NUMBERS // 128
BIT = _NUMBERS % 128 // 2 - 1
VALUE = np.where(KIND == BIAS, 2 * (_NUMBERS % 2) - 1, _NUMBERS % 2)

NO_AMOUNT: Words = np.empty(0, np.int32)


def what(kind: Any, bit: Any = WHOLE, value: Any = 0) -> Any:
    """Return the number of an event: ``kind`` happens to ``bit`` (or the ``WHOLE`` value), with ``value`` 0 or 1."""
    return 128 * kind + 2 * (bit + 1) + value


class Events(NamedTuple):
    """Failed parts ``[k]``, ascending by element.

    Attributes:
        element: int64; which value, counted in logical (N)CHW order.
        what: uint16; ``KIND[what]`` is what happens, ``BIT[what]`` to which bit (or ``WHOLE``), and ``VALUE[what]``
            the sign of a bias, what a bit or cell is stuck at, or which end of the range.
        amount: int32; empty where no event needs one. The new code's bits (``REPLACE``), the place within the range
            in units of 2^-31 (``WITHIN``), or the bits of a standard normal float32 (``VARY``).
    """

    element: Integers
    what: NDArray[np.uint16]
    amount: Words = NO_AMOUNT

    def part(self, chosen: slice | NDArray[np.bool_]) -> Events:
        """Return the ``chosen`` events."""
        amount = self.amount[chosen] if len(self.amount) else NO_AMOUNT
        return Events(self.element[chosen], self.what[chosen], amount)

    def between(self, first: int, last: int) -> Events:
        """Return the events of the elements from ``first`` up to, without it, ``last``."""
        start, stop = (int(self.element.searchsorted(end)) for end in (first, last))
        return self if stop - start == len(self.element) else self.part(slice(start, stop))

    def moved(self, by: int) -> Events:
        """Return the events with ``by`` added to their elements."""
        return self._replace(element=self.element + by) if by else self


NO_EVENTS = Events(np.empty(0, np.int64), np.empty(0, np.uint16))


def divided(position: Integers, size: int) -> tuple[Integers, Integers]:
    """Return quotient and remainder of positions from 0 on; numpy's ``divmod`` is five times slower."""
    if size == 1:
        return position, np.zeros_like(position)
    if size & (size - 1):
        quotient = position // size
        return quotient, position - quotient * size
    return position >> size.bit_length() - 1, position & (size - 1)


def joined(parts: Sequence[Events]) -> Events:
    """Return the events of consecutive parts as one."""
    full = [part for part in parts if len(part.element)]
    if len(full) < 2:
        return full[0] if full else NO_EVENTS
    columns = zip(*full, strict=True)
    return Events(*(np.concatenate(column) for column in columns))


def kind_text(number: int, amount: int | None, bits: int) -> str:
    """Return an event in words: ``flip``, ``stuck_at_1``, ``bias+``, ``positive_cell_at_0``, ``replace:1f``.

    What follows a colon is the new code as ``bits`` in hexadecimal, the place within the range in units of 2^-31, also
    hexadecimal, or a standard normal to all its digits.
    """
    kind, value = int(KIND[number]), int(VALUE[number])
    if kind == SET:
        return f"stuck_at_{value}"
    if kind == BIAS:
        return "bias+" if value > 0 else "bias-"
    if kind in (POSITIVE_CELL, NEGATIVE_CELL):
        return f"{KIND_NAMES[kind]}_at_{value}"
    if kind == END:
        return "range_end+" if value else "range_end-"
    if kind == VARY:
        return f"vary:{np.int32(amount or 0).view(np.float32):.9g}"
    mask = (1 << bits) - 1 if kind == REPLACE else 0xFFFFFFFF
    return KIND_NAMES[kind] if kind == FLIP else f"{KIND_NAMES[kind]}:{(amount or 0) & mask:x}"
