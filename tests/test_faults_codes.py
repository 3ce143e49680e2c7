"""What failures do to codes, against plain integers and against the published tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fault_strategies import models
from faulty_net import DRAWN_FAULTS
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_faults import after, applied, as_code, every_code, plan, rows_of, site, slow

from ftnas.errors import FaultError
from ftnas.faults import (
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    DirectedFlip,
    Fault,
    RandomValue,
    StuckBit,
    StuckCell,
    with_rate,
)
from ftnas.faults.events import BIAS, FLIP, NEGATIVE_CELL, POSITIVE_CELL, REPLACE, SET, WHOLE, Events, what
from ftnas.quantization import FixedPoint

# At two faults in five of all parts many a value has several.
OFTEN = [with_rate(fault, 0.4) for fault in DRAWN_FAULTS]


@pytest.mark.parametrize("fault", OFTEN, ids=str)
def test_every_model_agrees_with_plain_integers_from_2_to_16_bits(fault: Fault) -> None:
    check_with_plain_integers(fault, signed=True)


# A differential pair of cells holds a signed number.
@pytest.mark.parametrize("fault", [f for f in OFTEN if not isinstance(f, StuckCell | BitwiseStuckCell)], ids=str)
def test_every_model_of_bits_agrees_with_plain_integers_on_unsigned_codes(fault: Fault) -> None:
    check_with_plain_integers(fault, signed=False)


def check_with_plain_integers(fault: Fault, *, signed: bool) -> None:
    for bits in range(max(2, getattr(fault, "adjacent", 2)), 17):
        number = FixedPoint(bits, 0.25, signed)
        codes = [number.high, *np.resize(every_code(number)[:: max(1, 2**bits // 300)], 359).tolist()]
        where = site((4, 6, 15), bits=bits, kind="weight" if fault.target == "weights" else "output")
        events = plan(fault, where, images=range(1)).events
        result = applied(codes, fault, events, number)
        assert result == slow(codes, fault, rows_of(events, bits), number)
        assert bits < 8 or result != codes


@settings(max_examples=60)
@given(fault=models(st.floats(0, 1), st.just(0.0), bits=8), bits=st.integers(8, 16), macs=st.integers(0, 50))
def test_any_model_with_any_options_agrees_with_plain_integers(fault: Fault, bits: int, macs: int) -> None:
    number, where = FixedPoint(bits, 0.25), site((3, 4, 5), bits=bits, macs=macs, kind="output")
    if fault.target == "weights":
        where = replace(where, kind="weight")
    codes = np.random.default_rng(0).integers(number.low, number.high + 1, 60).tolist()
    events = plan(fault, where, images=range(1)).events
    if len(events.element):
        assert applied(codes, fault, events, number) == slow(codes, fault, rows_of(events, bits), number)


@pytest.mark.parametrize("bits", [*range(2, 13), 16])
@pytest.mark.parametrize("signed", [True, False])
def test_a_flip_changes_exactly_that_bit_of_every_code(bits: int, signed: bool) -> None:
    number = FixedPoint(bits, 0.25, signed)
    codes = every_code(number)
    for bit in range(bits):
        flipped = after(codes, BitFlip(0.5), [(i, bit, FLIP, 1) for i in range(len(codes))], number)
        assert flipped == [as_code(code ^ (1 << bit), number) for code in codes]


@given(st.data())
def test_several_flips_of_one_code_flip_all_those_bits(data: st.DataObject) -> None:
    number = FixedPoint(8, 0.5)
    code = data.draw(st.integers(-128, 127))
    chosen = data.draw(st.sets(st.integers(0, 7), min_size=1))
    mask = sum(1 << bit for bit in chosen)
    events = [(0, bit, FLIP, 1) for bit in sorted(chosen)]
    assert after([code], BitFlip(0.5), events, number) == [as_code(code ^ mask, number)]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_bias_adds_the_weight_of_one_bit_and_saturates(bits: int) -> None:
    number = FixedPoint(bits, 0.125)
    codes = every_code(number)
    for bit in range(bits):
        for sign in (1, -1):
            biased = after(codes, BitBias(0.5), [(i, bit, BIAS, sign) for i in range(len(codes))], number)
            assert biased == [min(max(code + sign * 2**bit, number.low), number.high) for code in codes]


R = 90
TABLE = [  # ftt-nas facts 1.4: event, then the weight after it for w = 25, w = -25, w = 0
    (POSITIVE_CELL, 0, (0, -25, 0)),
    (POSITIVE_CELL, 1, (R, -25 + R, R)),
    (NEGATIVE_CELL, 0, (25, 0, 0)),
    (NEGATIVE_CELL, 1, (25 - R, -R, -R)),
]


@pytest.mark.parametrize(("cell", "stuck_at", "expected"), TABLE)
@pytest.mark.parametrize("largest", [R, -R])
def test_stuck_cells_follow_the_published_event_table(
    cell: int, stuck_at: int, expected: tuple[int, int, int], largest: int
) -> None:
    events = [(element, WHOLE, cell, stuck_at) for element in range(3)]
    assert after([25, -25, 0, largest], StuckCell(0.1), events, FixedPoint(8, 0.5)) == [*expected, largest]


@pytest.mark.parametrize(("cell", "stuck_at", "expected"), TABLE)
def test_stuck_cells_reach_the_end_of_the_range_where_asked(
    cell: int, stuck_at: int, expected: tuple[int, int, int]
) -> None:
    events = [(element, WHOLE, cell, stuck_at) for element in range(3)]
    at_end = [min(w + (128 - R) * ((w > 30) - (w < -30)), 127) for w in expected]
    fault = StuckCell(0.1, reach="range_end")
    assert after([25, -25, 0, R], fault, events, FixedPoint(8, 0.5)) == [*at_end, R]


@pytest.mark.parametrize(("positive", "negative", "result"), [(0, 0, 0), (1, 1, 0), (0, 1, -R), (1, 0, R)])
def test_with_both_cells_stuck_the_weight_is_forgotten(positive: int, negative: int, result: int) -> None:
    events = [(0, WHOLE, POSITIVE_CELL, positive), (0, WHOLE, NEGATIVE_CELL, negative)]
    for code in (25, -25, 0):
        assert after([code, R], StuckCell(0.1), events, FixedPoint(8, 0.5)) == [result, R]


def test_a_layer_whose_largest_magnitude_is_the_lowest_code_stays_on_its_grid() -> None:
    stuck_high = [(0, WHOLE, POSITIVE_CELL, 1)]
    assert after([5, -128], StuckCell(0.1), stuck_high, FixedPoint(8, 0.5)) == [127, -128]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("stuck_at", [0, 1])
def test_a_stuck_bit_has_its_value_in_every_code(signed: bool, stuck_at: int) -> None:
    number = FixedPoint(5, 0.5, signed)
    codes = every_code(number)
    for bit in range(5):
        stuck = after(codes, StuckBit(0.1), [(i, bit, SET, stuck_at) for i in range(len(codes))], number)
        assert all((code >> bit) & 1 == stuck_at for code in stuck)
        assert all((code ^ before) % 32 in (0, 1 << bit) for code, before in zip(stuck, codes, strict=True))


@given(code=st.integers(-128, 127), stuck=st.dictionaries(st.integers(0, 7), st.integers(0, 1), min_size=1))
def test_every_bit_of_a_value_may_be_stuck_its_own_way(code: int, stuck: dict[int, int]) -> None:
    events = [(0, bit, SET, value) for bit, value in sorted(stuck.items())]
    (result,) = after([code], StuckBit(0.1), events, FixedPoint(8, 0.5))
    assert all((result >> bit) & 1 == stuck.get(bit, (code >> bit) & 1) for bit in range(8))


def test_a_flip_in_one_direction_leaves_bits_that_are_there_already() -> None:
    number, up = FixedPoint(3, 1.0, signed=False), DirectedFlip(0.1, to_zero=0.0)
    codes = every_code(number)
    assert after(codes, up, [(i, 1, SET, 1) for i in range(8)], number) == [code | 2 for code in codes]


@given(word=st.integers(-(2**31), 2**31 - 1), bits=st.integers(2, 16), signed=st.booleans())
def test_a_random_value_is_the_low_bits_of_a_random_word(word: int, bits: int, signed: bool) -> None:
    number = FixedPoint(bits, 0.5, signed)
    events = Events(np.array([0]), np.array([what(REPLACE)], np.uint16), np.array([word], np.int32))
    assert applied([1], RandomValue(0.1), events, number) == [as_code(word, number)]


@pytest.mark.parametrize("adjacent", [2, 3, 8])
def test_an_upset_flips_neighbouring_bits(adjacent: int) -> None:
    number, fault = FixedPoint(8, 0.5), BitFlip(0.05, adjacent=adjacent)
    codes = [37] * 500
    result = applied(codes, fault, plan(fault, site(500, kind="weight")).events, number)
    runs = {as_code(37 ^ ((1 << adjacent) - 1 << first), number) for first in range(9 - adjacent)}
    alone = {code for code in result if code in runs}
    assert alone == runs
    assert result.count(37) > 250


@pytest.mark.parametrize("kind", ["weight", "output"])
def test_more_adjacent_bits_than_a_code_has_are_refused(kind: str) -> None:
    target = "weights" if kind == "weight" else "features"
    with pytest.raises(FaultError, match=r"bit_flip: adjacent=5 is beyond the 4 bits of layer\."):
        plan(BitFlip(0.1, target, adjacent=5), site(10, bits=4, kind=kind))  # type: ignore[arg-type]
