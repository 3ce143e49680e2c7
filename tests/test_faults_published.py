"""The two switches that bring back what the released MiBB code did, for comparison with its numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from faulty_net import Probe
from scipy import stats
from slow_faults import SURELY, every_code, plan, site

from ftnas.faults import MacBitBias, inject
from ftnas.faults.drawing import time_of
from ftnas.faults.events import BIT, VALUE
from ftnas.quantization import FixedPoint


def rate_of(fault: MacBitBias, macs: int) -> float:
    return -math.expm1(-time_of(fault, site(10, macs=macs)))


@pytest.mark.parametrize(
    ("per_mac", "macs", "exact", "published"),
    [
        (1e-4, 4608, 0.369, 0.5),
        (1e-3, 576, 0.438, 0.5),
        (3e-4, 4608, 0.749, 1.0),
        (1e-4, 2000, 0.181, 0.2),
        (1e-3, 20, 0.0198, 0.02),
        (1e-5, 9, 0.00009, 1 / 11111),
        (0.1, 1, 0.1, 0.1),
        (1.0, 1, 1.0, 1.0),
        (1e-313, 1, 0.0, 0.0),
    ],
)
def test_the_published_rate_is_one_in_a_whole_number(per_mac: float, macs: int, exact: float, published: float) -> None:
    assert rate_of(MacBitBias(per_mac), macs) == pytest.approx(exact, rel=5e-3)
    assert rate_of(MacBitBias(per_mac, rounding="published"), macs) == pytest.approx(published, rel=1e-9)


def test_a_rate_that_is_one_in_a_whole_number_stays_as_it_is() -> None:
    for whole in [*range(1, 3000), 10**6, 10**8]:
        assert rate_of(MacBitBias(1 / whole, rounding="published"), 1) == pytest.approx(1 / whole, rel=1e-9)


@pytest.mark.parametrize("macs", [1, 576])
def test_published_rounding_never_lowers_a_rate_nor_swaps_two(macs: int) -> None:
    rates = np.geomspace(1e-9, 1, 400)
    published = [rate_of(MacBitBias(rate, rounding="published"), macs) for rate in rates]
    exact = [rate_of(MacBitBias(rate), macs) for rate in rates]
    assert all(rounded >= rate * (1 - 1e-9) for rounded, rate in zip(published, exact, strict=True))
    assert np.all(np.diff(published) >= 0)


@pytest.mark.parametrize(("per_mac", "macs", "rate"), [(1e-4, 4608, 0.5), (3e-4, 4608, 1.0), (1e-3, 180, 1 / 6)])
def test_values_are_hit_at_the_published_rate(per_mac: float, macs: int, rate: float) -> None:
    hits = len(plan(MacBitBias(per_mac, rounding="published"), site(1000, macs=macs)))
    assert stats.binomtest(hits, 64_000, rate).pvalue > SURELY


def test_published_rounding_leaves_values_without_macs_alone() -> None:
    assert len(plan(MacBitBias(1.0, rounding="published"), site(100, macs=0))) == 0


def test_the_published_bias_is_the_top_bit_upward() -> None:
    events = plan(MacBitBias(0.3, bias="published"), site(100, bits=6)).events
    assert set(BIT[events.what].tolist()) == {5}
    assert set(VALUE[events.what].tolist()) == {1}


def biased(codes: list[int], number: FixedPoint) -> list[int]:
    """Return ``codes`` with every one of them biased."""
    probe, values = Probe(), number.decode(torch.tensor(codes)).view(1, -1, 1, 1)
    with inject(probe.model, MacBitBias(1.0, bias="published")) as injection:
        injection.output(probe.model[0], values, number)
    return (values / number.scale).flatten().tolist()  # what is stored, were it beyond the format


@pytest.mark.parametrize("largest", [100, -100, 3])
@pytest.mark.parametrize("bits", [8, 10])
def test_the_published_bias_is_cut_at_the_tensor_s_largest_magnitude(largest: int, bits: int) -> None:
    codes = [code for code in every_code(FixedPoint(bits, 0.5)) if abs(code) < abs(largest)] + [largest]
    expected = [min(code + 2 ** (bits - 1), abs(largest)) for code in codes]
    assert biased(codes, FixedPoint(bits, 0.5)) == expected


def test_the_published_bias_of_a_tensor_with_the_lowest_code_stays_on_the_grid() -> None:
    number = FixedPoint(8, 0.5)
    assert biased([-128, 0, 127], number) == [0, 127, 127]


def test_the_published_bias_leaves_a_tensor_of_zeros_at_zero() -> None:
    assert biased([0, 0, 0], FixedPoint(8, 0.5)) == [0, 0, 0]


def test_both_switches_are_off_by_default() -> None:
    assert (MacBitBias(0.1).rounding, MacBitBias(0.1).bias) == ("exact", "any_bit")
