"""Faults one value, one bit and one plain integer at a time: what the fault layer is compared with."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ftnas.faults import Chip, Fault, MacBitBias, Site, SitePlan, StuckCell
from ftnas.faults.applying import apply_
from ftnas.faults.codes import effect_of
from ftnas.faults.events import BIT, Events, kind_text, what
from ftnas.faults.models import duration
from ftnas.quantization import FixedPoint, FloatWord, Number

SURELY = 1e-4  # a right sampler fails a test at this level once in ten thousand seeds, and the seeds are fixed
Event = tuple[int, int, int, int]  # element, bit, kind, value
Row = tuple[int, str]  # bit, and what happens to it in the words of an exported table


def site(
    values: int | tuple[int, ...], *, bits: int = 8, macs: int = 1, kind: str = "output", name: str = "layer"
) -> Site:
    shape = values if isinstance(values, tuple) else (values,)
    return Site(f"{name}.{kind}", kind, "conv", shape, None, macs, bits)  # type: ignore[arg-type]


def plan(fault: Fault, where: Site, chip: int = 0, images: range | None = range(64)) -> SitePlan:
    fleeting = where.kind == "output" or duration(fault) != "permanent"
    return Chip("test", chip, (fault,)).site_plan(where, 0, images if fleeting else None)


def after(codes: Sequence[int], fault: Fault, events: Sequence[Event], number: Number) -> list[int]:
    """Return ``codes`` after ``events`` (ascending by element)."""
    element, bit, kind, value = np.array(events).T
    return applied(codes, fault, Events(element, what(kind, bit, value > 0).astype(np.uint16)), number)


def applied(codes: Sequence[int], fault: Fault, events: Events, number: Number) -> list[int]:
    """Return ``codes`` after ``events``, read back from the values that the fault layer made of them."""
    values = number.decode(torch.tensor(codes, dtype=torch.int64).to(torch.int32))
    clean = values.clone()
    apply_(values, fault, effect_of(fault, events, number, clean), number=number, clean=clean)
    return [code % 2**number.bits if isinstance(number, FloatWord) else code for code in number.encode(values).tolist()]


def rows_of(events: Events, bits: int) -> dict[int, list[Row]]:
    """Return what happens to each element, in words."""
    rows: dict[int, list[Row]] = {}
    for i, (element, number) in enumerate(zip(events.element.tolist(), events.what.tolist(), strict=True)):
        amount = int(events.amount[i]) if len(events.amount) else None
        rows.setdefault(element, []).append((int(BIT[number]), kind_text(number, amount, bits)))
    return rows


def slow(
    codes: Sequence[int], fault: Fault, rows: dict[int, list[Row]], number: Number, largest: int | None = None
) -> list[int]:
    """Return the faulty codes, from words alone; the ``largest`` magnitude of a layer is that before any fault."""
    largest = max(map(abs, codes)) if largest is None else largest
    return [_slow(code, fault, rows.get(element, []), number, largest) for element, code in enumerate(codes)]


def _slow(code: int, fault: Fault, rows: Sequence[Row], number: Number, largest: int) -> int:
    if any("cell" in kind for _, kind in rows):
        return _cells(code, fault, rows, number, largest)
    for bit, kind in rows:
        code = _changed(code, fault, bit, kind, number, largest)
    return code


def _changed(code: int, fault: Fault, bit: int, kind: str, number: Any, largest: int) -> int:
    name, _, amount = kind.partition(":")
    if name == "flip":
        return as_code(code ^ (1 << bit), number)
    if name in ("stuck_at_0", "stuck_at_1"):
        return as_code(code - (code & (1 << bit)) + int(name[-1]) * 2**bit, number)
    if name == "replace":
        return as_code(int(amount, 16), number)
    if name == "within_range":
        return int(number.low + int(amount, 16) * (number.high - number.low + 1) // 2**31)
    if name in ("range_end+", "range_end-"):
        return int(number.high if name[-1] == "+" else number.low)
    assert name in ("bias+", "bias-"), kind
    if isinstance(fault, MacBitBias) and fault.bias == "published":
        return int(min(code + 2 ** (number.bits - 1), largest, number.high))
    return limited(code + (1 if name[-1] == "+" else -1) * 2**bit, number)


def _cells(code: int, fault: Fault, rows: Sequence[Row], number: Any, largest: int) -> int:
    """One cell at a time, one bit at a time; a whole cell that is stuck at 1 holds the fault's reach."""
    cells = {"positive": max(code, 0), "negative": max(-code, 0)}
    for bit, kind in rows:
        cell, stuck_at = kind.split("_")[0], int(kind[-1])
        if isinstance(fault, StuckCell):
            cells[cell] = stuck_at * (largest if fault.reach == "layer_max" else -number.low)
        else:
            held = min(cells[cell], number.high)
            cells[cell] = held - (held & (1 << bit)) + stuck_at * 2**bit
    if not isinstance(fault, StuckCell):
        cells = {cell: min(held, number.high) for cell, held in cells.items()}
    return limited(cells["positive"] - cells["negative"], number)


def as_code(word: int, number: Number) -> int:
    """Return the low bits of ``word`` read in the format."""
    word %= 2**number.bits
    return word - 2**number.bits if number.signed and word >= 2 ** (number.bits - 1) else word


def limited(code: int, number: FixedPoint) -> int:
    return min(max(code, number.low), number.high)


def every_code(number: FixedPoint) -> list[int]:
    return list(range(number.low, number.high + 1))


def word_of(value: float, word: str) -> int:
    """Return the bits of ``value`` as an IEEE word, without torch; bfloat16 is the upper half of a float32."""
    if word == "float16":
        return int(struct.unpack("<H", struct.pack("<e", value))[0])
    pattern = int(struct.unpack("<I", struct.pack("<f", value))[0])
    return pattern >> 16 if word == "bfloat16" else pattern


def value_of(pattern: int, word: str) -> float:
    """Return the value of an IEEE word."""
    if word == "float16":
        return float(struct.unpack("<e", struct.pack("<H", pattern))[0])
    return float(struct.unpack("<f", struct.pack("<I", pattern << 16 if word == "bfloat16" else pattern))[0])
