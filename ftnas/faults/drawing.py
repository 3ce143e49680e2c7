"""From positions that fail to events: in how many parts a tensor can fail, and what a failed part does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ftnas.errors import FaultError
from ftnas.faults.events import (
    BIAS,
    END,
    FLIP,
    POSITIVE_CELL,
    REPLACE,
    SET,
    VARY,
    WITHIN,
    Events,
    Words,
    divided,
    what,
)
from ftnas.faults.models import (
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    DirectedFlip,
    Fault,
    MacBitBias,
    OutputPattern,
    RandomValue,
    StuckBit,
    StuckCell,
)
from ftnas.faults.patterns import groups_of, members_of
from ftnas.faults.sampling import Hits, failure_time, mixed
from ftnas.faults.sites import Site

Marks = NDArray[np.float64]
Parts = NDArray[np.uint16]
Happenings = NDArray[np.integer[Any]]  # what happens, see ``events.what``
# (fault, failed part of each value [k], its mark [k], bits) -> what happens [k] and the amount of it, if any.
Draw = Callable[[Any, Parts, Marks, int], tuple[Happenings, Words | None]]


def parts_of(fault: Fault, site: Site) -> int:
    """Return how many parts of the weight, or of one image's output, can fail, each on its own."""
    if isinstance(fault, OutputPattern):
        return groups_of(fault, site.shape or ())
    if isinstance(fault, BitFlip) and fault.adjacent > site.bits:
        raise FaultError(f"{fault.name}: adjacent={fault.adjacent} is beyond the {site.bits} bits of {site.name}")
    return site.values * _PARTS[type(fault)](fault, site.bits)


def time_of(fault: Fault, site: Site) -> float:
    """Return until when clocks ring: M times as long where each of M multiply-accumulates fails at the rate."""
    if not isinstance(fault, MacBitBias):
        return failure_time(fault.rate)
    time = failure_time(fault.rate) * site.macs_per_value if site.macs_per_value else 0.0
    return time if fault.rounding == "exact" else _published(time)


def _published(time: float) -> float:
    """Return the time whose rate is that of an integer drawn below ``floor(1 / p)`` and equal to 0."""
    rate = -math.expm1(-time)
    # A rate of 1/93 is 1/92.99999999999999 by now, and must not become 1/92.
    return failure_time(1 / float(np.floor(1 / rate * (1 + 1e-12)))) if rate > 0 else 0.0


def events_of(fault: Fault, hits: Hits, site: Site) -> Events:
    """Return what ``hits`` on the parts of ``site`` (of images one after another) do."""
    if isinstance(fault, OutputPattern):
        return _pattern(fault, hits, site)
    element, part = divided(hits.position, _PARTS[type(fault)](fault, site.bits))
    happens, amount = _DRAWS[type(fault)](fault, part.astype(np.uint16), hits.mark, site.bits)
    events = Events(element, happens.astype(np.uint16, copy=False), *([] if amount is None else [amount]))
    if isinstance(fault, DirectedFlip):
        return events.part(hits.mark < max(fault.to_one, fault.to_zero))
    return _widened(events, fault.adjacent) if isinstance(fault, BitFlip) and fault.adjacent > 1 else events


def variation(values: int, generator: torch.Generator) -> Events:
    """Return one standard normal for each of ``values`` values."""
    normal = torch.randn(values, generator=generator).view(torch.int32).numpy()
    return Events(np.arange(values), np.full(values, what(VARY), np.uint16), normal)


def _widened(events: Events, adjacent: int) -> Events:
    """Return the flips of ``adjacent`` bits upward from each of ``events``."""
    bits = (events.what[:, None] + 2 * np.arange(adjacent)).astype(np.uint16)
    return Events(np.repeat(events.element, adjacent), bits.reshape(-1))


def _pattern(fault: OutputPattern, hits: Hits, site: Site) -> Events:
    shape = site.shape or ()
    image, group = np.divmod(hits.position, groups_of(fault, shape))
    element, owner = members_of(fault, group, shape)
    element = element + image[owner] * site.values
    order = np.argsort(element, kind="stable")
    element, owner = element[order], owner[order]
    word = _words(hits.mark[owner] + element)
    if fault.value == "flip":
        bit = (hits.mark[owner] * site.bits).astype(np.int64)
        return Events(element, what(FLIP, bit, 1).astype(np.uint16))
    if fault.value == "out_of_range":
        return Events(element, what(END, value=word & 1).astype(np.uint16))
    kind, amount = (WITHIN, word & 0x7FFFFFFF) if fault.value == "in_range" else (REPLACE, np.zeros_like(word))
    return Events(element, np.full(len(element), what(kind), np.uint16), amount)


def _flips(fault: BitFlip, bit: Parts, mark: Marks, bits: int) -> tuple[Happenings, None]:
    return what(FLIP, bit, 1), None


def _stuck_bits(fault: StuckBit, bit: Parts, mark: Marks, bits: int) -> tuple[Happenings, None]:
    return what(SET, bit, mark < fault.stuck_at_one), None


def _directed(fault: DirectedFlip, bit: Parts, mark: Marks, bits: int) -> tuple[Happenings, None]:
    """Return flips where both directions fail, else bits that are set to what the failing direction leads to."""
    up, down = mark < fault.to_one, mark < fault.to_zero
    return np.where(up & down, what(FLIP, bit, 1), what(SET, bit, up)), None


def _random_values(fault: RandomValue, part: Parts, mark: Marks, bits: int) -> tuple[Happenings, Words]:
    return np.full(len(mark), what(REPLACE)), _words(mark)


def _biases(fault: BitBias | MacBitBias, part: Parts, mark: Marks, bits: int) -> tuple[Happenings, None]:
    """Return bit and sign, each bit and either sign equally likely; the published bias is the top bit, upward."""
    if isinstance(fault, MacBitBias) and fault.bias == "published":
        return np.full(len(mark), what(BIAS, bits - 1, 1)), None
    # Bit and sign are the upper and the last bit of one number, as they are in an event.
    return what(BIAS, 0) + (mark * (2 * bits)).astype(np.uint16), None


def _stuck_cells(fault: StuckCell, cell: Parts, mark: Marks, bits: int) -> tuple[Happenings, None]:
    return what(POSITIVE_CELL + cell, value=mark < fault.stuck_at_one), None


def _stuck_bit_cells(fault: BitwiseStuckCell, part: Parts, mark: Marks, bits: int) -> tuple[Happenings, None]:
    cell, bit = part // (bits - 1), part % (bits - 1)
    return what(POSITIVE_CELL + cell, bit, mark < fault.stuck_at_one), None


def _words(mark: Marks) -> Words:
    """Return 32 well-mixed bits for each mark."""
    return (mixed(mark.view(np.uint64)) >> np.uint64(32)).astype(np.uint32).view(np.int32)


def _one_for_each_bit(fault: Fault, bits: int) -> int:
    return bits


def _one_for_each_value(fault: Fault, bits: int) -> int:
    return 1


_PARTS: Mapping[type[Fault], Callable[[Any, int], int]] = {
    BitFlip: lambda fault, bits: bits - fault.adjacent + 1,
    StuckBit: _one_for_each_bit,
    DirectedFlip: _one_for_each_bit,
    RandomValue: _one_for_each_value,
    BitBias: _one_for_each_value,
    MacBitBias: _one_for_each_value,
    StuckCell: lambda fault, bits: 2,
    BitwiseStuckCell: lambda fault, bits: 2 * (bits - 1),
}

_DRAWS: Mapping[type[Fault], Draw] = {
    BitFlip: _flips,
    StuckBit: _stuck_bits,
    DirectedFlip: _directed,
    RandomValue: _random_values,
    BitBias: _biases,
    MacBitBias: _biases,
    StuckCell: _stuck_cells,
    BitwiseStuckCell: _stuck_bit_cells,
}
