"""What other fault injectors were found to do wrong, and must not happen here: rates, places and numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from faulty_net import Net, some_images, trained_net
from scipy import stats
from slow_faults import SURELY, plan, site
from torch import Tensor, nn

from ftnas import faults
from ftnas.faults import (
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    Fault,
    Flip,
    RandomValue,
    StuckBit,
    StuckCell,
    draw_plan,
    explicit_plan,
    inject,
    sites,
)
from ftnas.faults.events import BIT
from ftnas.quantization import FixedPoint, Quantization, QuantizedConv2d, Range


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_images()


@pytest.fixture(scope="module")
def net() -> Net:
    return trained_net()


def hits_by_site(model: nn.Module, fault: Fault, chips: int) -> dict[str, int]:
    """Return how many faults of ``chips`` chips are at each site."""
    counts: dict[str, int] = {}
    for chip in range(chips):
        for (name, _), planned in draw_plan(model, fault, chip=chip).sites.items():
            counts[name] = counts.get(name, 0) + len(planned)
    return counts


class Uneven(nn.Sequential):
    """A small layer, a large one, and a small one."""

    def __init__(self) -> None:
        super().__init__(QuantizedConv2d(2, 2, 1), QuantizedConv2d(2, 300, 3), QuantizedConv2d(300, 1, 1))


# Places


@pytest.mark.parametrize("fault", [BitFlip(0.01), StuckBit(0.01), RandomValue(0.05), StuckCell(0.05)], ids=str)
def test_small_layers_do_not_get_more_than_their_share_of_faults(fault: Fault) -> None:
    model = Uneven()
    counts, sizes = hits_by_site(model, fault, 20), {site.name: site.values for site in sites(model, "*.weight")}
    expected = np.array([sizes[name] for name in counts]) / sum(sizes.values()) * sum(counts.values())
    assert stats.chisquare(list(counts.values()), expected).pvalue > SURELY


def test_a_single_fault_does_not_always_land_in_the_first_tensor() -> None:
    model, chips = Uneven(), 600
    counts = hits_by_site(model, BitFlip(1 / (5704 * 8)), chips)
    assert stats.binomtest(sum(counts.values()), chips * 5704 * 8, 1 / (5704 * 8)).pvalue > SURELY
    assert stats.binomtest(counts["0.weight"], sum(counts.values()), 4 / 5704).pvalue > SURELY


@pytest.mark.parametrize("place", [0, -1])
def test_the_first_and_the_last_value_of_every_tensor_are_not_left_out(place: int) -> None:
    model, chips = Uneven(), 200
    for chosen in sites(model, "*.weight"):
        element = range(chosen.values)[place]
        plans = [draw_plan(model, RandomValue(0.4), chip=chip).sites[chosen.name, 0] for chip in range(chips)]
        hits = sum(element in planned.events.element for planned in plans)
        assert stats.binomtest(hits, chips, 0.4).pvalue > SURELY


@pytest.mark.parametrize("fault", [RandomValue(0.3), BitBias(0.3)], ids=str)
def test_no_position_is_drawn_twice_and_none_is_missing_for_it(fault: Fault) -> None:
    where = site(50_000, kind="weight") if fault.target == "weights" else site(50_000)
    element = plan(fault, where, images=range(1)).events.element
    assert len(np.unique(element)) == len(element)
    assert stats.binomtest(len(element), 50_000, 0.3).pvalue > SURELY


@pytest.mark.parametrize("scope", ["convolutions", "all"])
@pytest.mark.parametrize("target", ["weights", "features"])
def test_a_choice_of_target_and_of_layers_holds_in_both(target: str, scope: str, net: Net, images: Tensor) -> None:
    with inject(net, BitFlip(0.05, target, scope)) as injection:  # type: ignore[arg-type]
        net(images)
    end = "weight" if target == "weights" else "output"
    layers = ("conv",) if scope == "convolutions" else ("conv", "linear", "sum")
    chosen = [site.name for site in sites(net, f"*.{end}") if site.layer in layers]
    assert sorted(name for name, count in injection.counts.items() if count.planned) == sorted(chosen)
    sizes = {"stem.weight": 216, "body.weight": 288, "head.weight": 80, "head.output": 1500}
    for name in chosen:
        bits = sizes.get(name, 150 * 512) * 8
        assert stats.binomtest(injection.counts[name].planned, bits, 0.05).pvalue > SURELY


def test_two_bits_of_one_value_may_fail_as_often_as_independent_bits_do() -> None:
    events = plan(BitFlip(0.05), site(100_000, kind="weight")).events
    counts = np.bincount(np.bincount(events.element, minlength=100_000), minlength=5)
    expected = stats.binom(8, 0.05).pmf(np.arange(5)) * 100_000
    assert stats.chisquare(counts[:4], expected[:4] * counts[:4].sum() / expected[:4].sum()).pvalue > SURELY


# Rates


@pytest.mark.parametrize("rate", [1e-9, 1e-8, 3e-8, 1e-7])
def test_low_rates_are_not_those_of_24_bit_uniforms(rate: float) -> None:
    where = site((2**20, 2**5, 2**5), kind="weight")
    chips = math.ceil(800 / (rate * where.values * 8))
    hits = sum(len(plan(BitFlip(rate), where, chip)) for chip in range(chips))
    assert SURELY < stats.poisson(rate * where.values * 8 * chips).cdf(hits) < 1 - SURELY


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.4, 0.438, 0.6, 0.9, 1.0])
def test_high_rates_are_not_one_in_a_whole_number(rate: float) -> None:
    hits = len(plan(RandomValue(rate), site(200_000, kind="weight")))
    assert stats.binomtest(hits, 200_000, rate).pvalue > SURELY


# Numbers


def identity(limit: float) -> nn.Sequential:
    """Return a layer that stores what it reads, in eight bits up to ``limit``."""
    choice = Quantization(weight_range=Range("fixed", 2.0), feature_range=Range("fixed", limit))
    layer = QuantizedConv2d(1, 1, 1, norm="none", choices=(choice,))
    with torch.no_grad():
        layer.weight.fill_(1.0)
    return nn.Sequential(layer).eval()


@pytest.mark.parametrize(
    ("value", "code"), [(1.0, 127), (127 / 128, 127), (1.5, 127), (-1.0, -128), (-1.1, -128), (-9.0, -128)]
)
@pytest.mark.parametrize("bit", range(8))
def test_a_value_at_or_beyond_the_calibrated_range_does_not_wrap_around(value: float, code: int, bit: int) -> None:
    model = identity(1.0)
    listed = explicit_plan(model, [Flip("0.output", 0, bit)], shapes={"0.output": (1, 1, 1)}, images=1)
    with inject(model, listed):
        stored = model(torch.full((1, 1, 1, 1), value)).item()
    flipped = code ^ (1 << bit) if bit < 7 else code + (128 if code < 0 else -128)
    assert stored == flipped / 128


@pytest.mark.parametrize("bits", range(2, 17))
def test_a_power_of_two_does_not_decode_to_a_little_more(bits: int) -> None:
    number = FixedPoint(bits, 2.0 / 2 ** (bits - 1))
    powers = torch.tensor([2.0**-exponent for exponent in range(bits - 1)])
    assert torch.equal(number.decode(number.encode(powers)), powers)
    assert torch.equal(number.decode(number.encode(-powers)), -powers)


@pytest.mark.parametrize(("bit", "expected"), [(30, math.inf), (31, -1.0), (23, 0.5), (29, 2.0**-64)])
def test_what_a_flip_makes_of_a_float_word_is_not_brought_back_into_range(bit: int, expected: float) -> None:
    layer = QuantizedConv2d(1, 1, 1, norm="none", choices=(Quantization(word="float32"),))
    with torch.no_grad():
        layer.weight.fill_(1.0)
    model = nn.Sequential(layer).eval()
    with inject(model, explicit_plan(model, [Flip("0.weight", 0, bit)])):
        assert model(torch.ones(1, 1, 1, 1)).item() == expected


def test_a_nan_is_an_outcome_and_is_not_clamped_away(images: Tensor) -> None:
    torch.manual_seed(0)
    model = Net((Quantization(word="float32"),))
    model(images)
    with inject(model.eval(), BitFlip(0.05, "weights")):
        logits = model(images)
    assert bool(logits.isnan().any())


def test_the_sign_bit_of_a_code_is_not_left_out() -> None:
    bits = BIT[plan(BitFlip(0.1), site(1000, kind="weight", bits=8)).events.what]
    assert int((bits == 7).sum()) > 50


def test_the_two_readings_of_adsaf_are_not_mixed_up(net: Net) -> None:
    whole, bitwise = StuckCell(0.1), BitwiseStuckCell(0.1)
    assert whole.name != bitwise.name
    number = net.stem.weight_number(net.stem.weight)
    weight = number.decode(number.encode(net.stem.weight.detach()))
    faulty = []
    for fault in (whole, bitwise):
        with inject(net, fault) as injection:
            faulty.append(injection.weight(net.stem, weight, number))
    assert not torch.equal(*faulty)


def test_no_public_name_is_missing() -> None:
    assert all(hasattr(faults, name) for name in faults.__all__)
