"""How often parts fail and what they then do: rates, shares and attributes of drawn faults."""

from __future__ import annotations

import numpy as np
import pytest
from faulty_net import DRAWN_FAULTS
from scipy import stats
from slow_faults import SURELY, applied, plan, site

from ftnas.faults import (
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    DirectedFlip,
    Fault,
    MacBitBias,
    RandomValue,
    StuckBit,
    StuckCell,
    with_rate,
)
from ftnas.faults.events import BIT, CODES, KIND, NEGATIVE_CELL, POSITIVE_CELL, VALUE
from ftnas.quantization import FixedPoint, FloatWord, QuantizedConv2d


@pytest.mark.parametrize("rate", [1e-8, 1e-5, 1e-3, 0.1, 0.438, 1.0])
def test_every_bit_flips_at_the_rate(rate: float) -> None:
    values = min(int(2000 / rate), 2**30) if rate < 1 else 500
    chips = 400 if rate == 1e-8 else 1
    weight = site(values, kind="weight")
    happened = np.concatenate([plan(BitFlip(rate), weight, chip).events.what for chip in range(chips)])
    counts, expected = np.bincount(BIT[happened], minlength=8), values * rate * chips
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


@pytest.mark.parametrize(
    "fault",
    [BitFlip(1, "features"), StuckBit(1, "features"), RandomValue(1, "features"), BitBias(1), MacBitBias(1)],
    ids=str,
)
def test_rate_one_hits_every_value(fault: Fault) -> None:
    assert len(np.unique(plan(fault, site(10)).events.element)) == 640


@pytest.mark.parametrize("fault", DRAWN_FAULTS, ids=str)
def test_a_rate_of_one_in_a_thousand_million_is_drawn(fault: Fault) -> None:
    where = site((2**10, 2**7, 2**7), kind="weight" if fault.target == "weights" else "output")
    assert len(plan(with_rate(fault, 1e-9), where)) < 100


@pytest.mark.parametrize("fault", DRAWN_FAULTS, ids=str)
@pytest.mark.parametrize(("low", "high"), [(1e-3, 0.1), (0.02, 0.3), (0.2, 1.0)])
def test_a_chip_s_faults_at_a_low_rate_are_among_those_at_a_higher_one(fault: Fault, low: float, high: float) -> None:
    def failed(rate: float) -> np.ndarray:
        shape, kind = ((100, 10, 20), "weight") if fault.target == "weights" else ((5, 20, 10), "output")
        events = plan(with_rate(fault, rate), site(shape, macs=3, kind=kind)).events
        amount = events.amount if len(events.amount) else 0
        return (events.element * CODES + events.what) * 2**32 + amount

    few, many = failed(low), failed(high)
    assert np.isin(few, many).all()
    assert 0 < len(many) > len(few)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_bits_are_stuck_at_one_by_their_share(share: float) -> None:
    events = plan(StuckBit(0.05, stuck_at_one=share), site(50_000, kind="weight")).events
    up = int((VALUE[events.what] == 1).sum())
    assert stats.binomtest(len(events.what), 50_000 * 8, 0.05).pvalue > SURELY
    assert stats.binomtest(up, len(events.what), share).pvalue > SURELY


@pytest.mark.parametrize(("to_one", "to_zero"), [(1.0, 1.0), (1.0, 0.2), (0.0, 0.5), (0.7, 0.4)])
def test_zeros_and_ones_fail_at_their_own_rates(to_one: float, to_zero: float) -> None:
    number, fault = FixedPoint(8, 1.0, signed=False), DirectedFlip(0.1, to_one=to_one, to_zero=to_zero)
    before = np.resize([0, 255, 0b10101010], 60_000)
    after = np.array(applied(before.tolist(), fault, plan(fault, site(60_000, kind="weight")).events, number))
    old, new = (np.unpackbits(codes.astype(np.uint8)) for codes in (before, after))
    for bit, share in ((0, to_one), (1, to_zero)):
        failed = int((new[old == bit] != bit).sum())
        assert stats.binomtest(failed, int((old == bit).sum()), 0.1 * share).pvalue > SURELY


@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("rate", [1e-3, 1.0])
def test_random_values_are_uniform_over_the_codes(bits: int, signed: bool, rate: float) -> None:
    number, fault = FixedPoint(bits, 0.5, signed), RandomValue(rate)
    size = int(20_000 / rate)
    events = plan(fault, site(size, kind="weight", bits=bits)).events
    new = applied([1] * len(events.element), fault, events._replace(element=np.arange(len(events.element))), number)
    counts = np.bincount((np.array(new) - number.low) >> max(0, bits - 6), minlength=min(2**bits, 64))
    assert stats.binomtest(len(new), size, rate).pvalue > SURELY
    assert len(counts) == min(2**bits, 64)
    assert stats.chisquare(counts).pvalue > SURELY


def test_every_bit_of_a_random_float_word_is_one_half_of_the_time() -> None:
    events = plan(RandomValue(1.0), site(20_000, kind="weight", bits=32)).events
    ones = [int((events.amount >> bit & 1).sum()) for bit in range(FloatWord("float32").bits)]
    assert all(stats.binomtest(count, 20_000, 0.5).pvalue > SURELY for count in ones)


@pytest.mark.parametrize("adjacent", [1, 2, 5, 8])
def test_every_place_for_a_run_of_bits_is_hit_at_the_rate(adjacent: int) -> None:
    events = plan(BitFlip(0.01, adjacent=adjacent), site(50_000, kind="weight")).events
    first = BIT[events.what[::adjacent]]
    counts = np.bincount(first)
    assert len(counts) == 9 - adjacent
    assert all(stats.binomtest(int(count), 50_000, 0.01).pvalue > SURELY for count in counts)
