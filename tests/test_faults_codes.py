"""What failures do to codes, against plain integers and against the published tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from ftnas.faults import (
    FAULTS,
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    Chip,
    Fault,
    MacBitBias,
    Site,
    SitePlan,
    StuckCell,
    parse_fault,
)
from ftnas.faults.applying import apply_
from ftnas.faults.codes import BIAS, BIT, FLIP, KIND, NEGATIVE_CELL, POSITIVE_CELL, VALUE, WHOLE_CELL, Events, effect_of
from ftnas.quantization import FixedPoint, QuantizedConv2d

SURELY = 1e-4
Event = tuple[int, int, int, int]  # element, bit, kind, value


def after(codes: Sequence[int], fault: Fault, events: Sequence[Event], number: FixedPoint) -> list[int]:
    """Return ``codes`` after ``events`` (ascending by element)."""
    values = number.decode(torch.tensor(codes))
    element, bit, kind, value = np.array(events).T
    what = 64 * kind + 2 * (bit + 1) + (value > 0)
    effect = effect_of(fault, Events(element, what.astype(np.uint8)), number)
    apply_(values, fault, effect, number=number, clean=values.clone())
    result: list[int] = (values / number.scale).round().int().tolist()
    return result


def site(values: int, *, bits: int = 8, macs: int = 1, kind: str = "output") -> Site:
    return Site("layer." + kind, kind, "conv", (values,), None, macs, bits)  # type: ignore[arg-type]


def plan(fault: Fault, where: Site, chip: int = 0, images: range | None = range(64)) -> SitePlan:
    return Chip("test", chip, (fault,)).site_plan(where, 0, images if where.kind == "output" else None)


def wrapped(code: int, bits: int) -> int:
    """Return the low ``bits`` of ``code`` read as two's complement."""
    code &= 2**bits - 1
    return code - 2**bits if code >= 2 ** (bits - 1) else code


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 12])
@pytest.mark.parametrize("signed", [True, False])
def test_a_flip_changes_exactly_that_bit_of_every_code(bits: int, signed: bool) -> None:
    number = FixedPoint(bits, 0.25, signed)
    codes = list(range(number.low, number.high + 1))
    for bit in range(bits):
        flipped = after(codes, BitFlip(0.5), [(i, bit, FLIP, 1) for i in range(len(codes))], number)
        assert flipped == [wrapped(code ^ (1 << bit), bits) if signed else code ^ (1 << bit) for code in codes]


@given(st.data())
def test_several_flips_of_one_code_flip_all_those_bits(data: st.DataObject) -> None:
    number = FixedPoint(8, 0.5)
    code = data.draw(st.integers(-128, 127))
    chosen = data.draw(st.sets(st.integers(0, 7), min_size=1))
    mask = sum(1 << bit for bit in chosen)
    events = [(0, bit, FLIP, 1) for bit in sorted(chosen)]
    assert after([code], BitFlip(0.5), events, number) == [wrapped(code ^ mask, 8)]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_bias_adds_the_weight_of_one_bit_and_saturates(bits: int) -> None:
    number = FixedPoint(bits, 0.125)
    codes = list(range(number.low, number.high + 1))
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
    events = [(element, WHOLE_CELL, cell, stuck_at) for element in range(3)]
    assert after([25, -25, 0, largest], StuckCell(0.1), events, FixedPoint(8, 0.5)) == [*expected, largest]


@pytest.mark.parametrize(("cell", "stuck_at", "expected"), TABLE)
def test_stuck_cells_reach_the_end_of_the_range_where_asked(
    cell: int, stuck_at: int, expected: tuple[int, int, int]
) -> None:
    events = [(element, WHOLE_CELL, cell, stuck_at) for element in range(3)]
    at_end = [min(w + (128 - R) * ((w > 30) - (w < -30)), 127) for w in expected]
    fault = StuckCell(0.1, reach="range_end")
    assert after([25, -25, 0, R], fault, events, FixedPoint(8, 0.5)) == [*at_end, R]


@pytest.mark.parametrize(("positive", "negative", "result"), [(0, 0, 0), (1, 1, 0), (0, 1, -R), (1, 0, R)])
def test_with_both_cells_stuck_the_weight_is_forgotten(positive: int, negative: int, result: int) -> None:
    events = [(0, WHOLE_CELL, POSITIVE_CELL, positive), (0, WHOLE_CELL, NEGATIVE_CELL, negative)]
    for code in (25, -25, 0):
        assert after([code, R], StuckCell(0.1), events, FixedPoint(8, 0.5)) == [result, R]


def test_a_layer_whose_largest_magnitude_is_the_lowest_code_stays_on_its_grid() -> None:
    stuck_high = [(0, WHOLE_CELL, POSITIVE_CELL, 1)]
    assert after([5, -128], StuckCell(0.1), stuck_high, FixedPoint(8, 0.5)) == [127, -128]


def slow_bitwise(code: int, events: Sequence[Event], bits: int) -> int:
    """One cell at a time, one bit at a time."""
    cells = {POSITIVE_CELL: max(code, 0), NEGATIVE_CELL: min(max(-code, 0), 2 ** (bits - 1) - 1)}
    for _, bit, kind, value in events:
        without = cells[kind] - (cells[kind] & (1 << bit))
        cells[kind] = without + value * (1 << bit)
    return cells[POSITIVE_CELL] - cells[NEGATIVE_CELL]


@given(st.data(), st.sampled_from([2, 4, 8]))
def test_bitwise_stuck_cells_agree_with_a_slow_reference(data: st.DataObject, bits: int) -> None:
    codes = data.draw(st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), min_size=1, max_size=8))
    part = st.tuples(
        st.integers(0, len(codes) - 1), st.integers(0, bits - 2), st.sampled_from([POSITIVE_CELL, NEGATIVE_CELL])
    )
    parts = sorted(data.draw(st.sets(part, min_size=1)))
    events = [(*where, data.draw(st.integers(0, 1))) for where in parts]
    hit = {event[0] for event in events}
    expected = [
        slow_bitwise(code, [e for e in events if e[0] == i], bits) if i in hit else code for i, code in enumerate(codes)
    ]
    assert after(codes, BitwiseStuckCell(0.1), events, FixedPoint(bits, 0.5)) == expected


@pytest.mark.parametrize("rate", [1e-8, 1e-5, 1e-3, 0.1, 0.438, 1.0])
def test_every_bit_flips_at_the_rate(rate: float) -> None:
    values = min(int(2000 / rate), 2**30) if rate < 1 else 500
    chips = 400 if rate == 1e-8 else 1
    weight = site(values, kind="weight")
    what = np.concatenate([plan(BitFlip(rate), weight, chip).events.what for chip in range(chips)])
    counts, expected = np.bincount(BIT[what], minlength=8), values * rate * chips
    deviation = ((counts - expected) ** 2 / (expected * (1 - rate) + 1e-9)).sum()
    assert deviation < stats.chi2(8).isf(SURELY)


@pytest.mark.parametrize("fault", [BitBias(0.2), MacBitBias(0.2)])
def test_biases_choose_every_bit_and_sign_equally_often(fault: Fault) -> None:
    events = plan(fault, site(2000, bits=5)).events
    counts = np.bincount(BIT[events.what] * 2 + (VALUE[events.what] > 0), minlength=10)
    assert len(counts) == 10
    assert stats.chisquare(counts).pvalue > SURELY


@pytest.mark.parametrize("fault", [StuckCell(0.3), BitwiseStuckCell(0.05)])
def test_cells_of_either_sign_stick_at_the_rate_and_the_share(fault: StuckCell | BitwiseStuckCell) -> None:
    events = plan(fault, site(100_000, kind="weight")).events
    parts = 100_000 * (1 if isinstance(fault, StuckCell) else 7)
    for kind in (POSITIVE_CELL, NEGATIVE_CELL):
        for value, share in ((1, 0.163), (0, 0.837)):
            count = int(((KIND[events.what] == kind) & (VALUE[events.what] == value)).sum())
            assert stats.binomtest(count, parts, fault.rate * share).pvalue > SURELY


def test_bitwise_cells_stick_in_each_of_the_magnitude_bits_alike() -> None:
    bits = BIT[plan(BitwiseStuckCell(0.05), site(50_000, kind="weight")).events.what]
    counts = np.bincount(bits)
    assert len(counts) == 7
    assert stats.chisquare(counts).pvalue > SURELY


# Facts 1.2: MACs behind a value, and the rate of a value at 1e-5, 3e-5, 1e-4, 3e-4, 1e-3 for each MAC.
PER_MAC = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
MIBB = [
    (9, (0.00009, 0.00027, 0.0009, 0.0027, 0.0090)),
    (25, (0.00025, 0.00075, 0.0025, 0.0075, 0.0247)),
    (20, (0.0002, 0.0006, 0.0020, 0.0060, 0.0198)),
    (80, (0.0008, 0.0024, 0.0080, 0.0237, 0.0769)),
    (180, (0.0018, 0.0054, 0.0178, 0.0526, 0.165)),
    (720, (0.0072, 0.0214, 0.0695, 0.194, 0.513)),
    (2000, (0.0198, 0.0582, 0.181, 0.451, 0.865)),
    (576, (0.0057, 0.0171, 0.0560, 0.159, 0.438)),
    (4608, (0.0450, 0.129, 0.369, 0.749, 0.990)),
    (960, (0.0096, 0.0284, 0.0915, 0.250, 0.617)),
]


@pytest.mark.parametrize(("macs", "rates"), MIBB)
def test_values_are_biased_at_the_published_rates_for_their_macs(macs: int, rates: tuple[float, ...]) -> None:
    for per_mac, rate in zip(PER_MAC, rates, strict=True):
        exact = 1 - (1 - per_mac) ** macs
        assert exact == pytest.approx(rate, rel=0.03)  # the table has two digits
        hits = len(plan(MacBitBias(per_mac), site(2000, macs=macs)))
        assert stats.binomtest(hits, 2000 * 64, exact).pvalue > SURELY


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (QuantizedConv2d(80, 80, 3, groups=80), 9),
        (QuantizedConv2d(80, 80, 5, groups=80), 25),
        (QuantizedConv2d(20, 20, 1), 20),
        (QuantizedConv2d(20, 20, 3), 180),
        (QuantizedConv2d(80, 80, 5), 2000),
        (QuantizedConv2d(512, 512, 3), 4608),
        (QuantizedConv2d(960, 160, 1), 960),
    ],
)
def test_a_convolution_counts_its_macs_for_one_value(layer: QuantizedConv2d, macs: int) -> None:
    assert layer.macs_per_value == macs


def test_values_without_macs_are_never_biased() -> None:
    assert len(plan(MacBitBias(1.0), site(100, macs=0))) == 0


@pytest.mark.parametrize("fault", [BitFlip(1, "features"), BitBias(1), MacBitBias(1)])
def test_rate_one_hits_every_value(fault: Fault) -> None:
    assert len(np.unique(plan(fault, site(10)).events.element)) == 640


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize(("low", "high"), [(1e-4, 1e-3), (1e-3, 0.1), (0.05, 0.6), (0.45, 1.0)])
def test_a_chip_s_faults_at_a_low_rate_are_among_those_at_a_higher_one(name: str, low: float, high: float) -> None:
    def failed(rate: float) -> set[tuple[int, int]]:
        fault = parse_fault(f"{name}:{rate}")
        events = plan(fault, site(500, macs=3, kind="weight" if fault.target == "weights" else "output")).events
        return set(zip(events.element.tolist(), events.what.tolist(), strict=True))

    assert failed(low) <= failed(high)
    assert len(failed(low)) < len(failed(high))


def grid(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(-128, 128, shape, generator=generator) * 0.5


@pytest.mark.parametrize("fault", [BitFlip(0.01, "features"), BitBias(0.05)])
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "sliced", "bfloat16"])
def test_faults_do_not_depend_on_the_memory_layout(fault: Fault, layout: str, generator: torch.Generator) -> None:
    plain = grid((64, 6, 5, 7), generator)
    number = FixedPoint(8, 0.5)
    other = {
        "channels_last": lambda: plain.clone(memory_format=torch.channels_last),
        "transposed": lambda: plain.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1),
        "sliced": lambda: torch.nn.functional.pad(plain, (1, 1, 2, 0))[:, :, 2:, 1:-1],
        "bfloat16": lambda: plain.bfloat16(),
    }[layout]()
    effect = effect_of(fault, plan(fault, site(6 * 5 * 7)).events, number)
    for values in (plain, other):
        apply_(values, fault, effect, number=number, clean=values)
    assert torch.equal(plain, other.float())


def test_only_hit_values_are_touched(generator: torch.Generator) -> None:
    values, number = torch.rand(64, 10, generator=generator), FixedPoint(8, 1 / 128)
    before, planned = values.clone(), plan(BitBias(0.1), site(10))
    apply_(values, BitBias(0.1), effect_of(BitBias(0.1), planned.events, number), number=number, clean=values)
    untouched = np.setdiff1d(np.arange(640), planned.events.element)
    assert torch.equal(values.view(-1)[untouched], before.view(-1)[untouched])
