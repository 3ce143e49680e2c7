"""Snapping to a grid, and quantised layers, against torch's own operator."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ftnas.quantization import (
    Blend,
    FixedPoint,
    Quantization,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedSum,
    Range,
    quantized_layers,
    snap,
    snap_,
    snap_learned,
    tapped,
)

NUMBERS = st.builds(
    FixedPoint, st.integers(2, 16), st.integers(-12, 4).map(lambda exponent: 2.0**exponent), st.booleans()
)
ANY_SCALE = st.builds(FixedPoint, st.integers(2, 10), st.floats(1e-4, 10), st.booleans())
VALUES = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30).map(torch.tensor)


class Nothing:
    """A tap that changes nothing."""

    def weight(self, layer: nn.Module, weight: Tensor, number: FixedPoint) -> Tensor:
        return weight

    def output(self, layer: nn.Module, features: Tensor, number: FixedPoint) -> None:
        return None


@given(number=ANY_SCALE, x=VALUES)
def test_snap_puts_values_where_decode_of_encode_does(number: FixedPoint, x: Tensor) -> None:
    assert torch.equal(snap(x, number), number.decode(number.encode(x)))


@given(number=NUMBERS, x=VALUES)
def test_snap_equals_torchs_own_operator(number: FixedPoint, x: Tensor) -> None:
    native = torch.fake_quantize_per_tensor_affine(x, number.scale, 0, number.low, number.high)
    assert torch.equal(snap(x, number), native)


def test_snap_leaves_its_argument_alone() -> None:
    x = torch.tensor([0.3, -0.7])
    snap(x, FixedPoint(4, 0.25))
    assert torch.equal(x, torch.tensor([0.3, -0.7]))


@given(x=VALUES)
def test_the_gradient_of_snap_passes_straight_through(x: Tensor) -> None:
    x.requires_grad_()
    (snap(x, FixedPoint(4, 0.25)) * torch.arange(len(x))).sum().backward()
    assert torch.equal(x.grad, torch.arange(len(x)).float())  # type: ignore[arg-type]


def test_snapping_in_place_what_a_backward_pass_reads_raises() -> None:
    x = torch.tensor([0.3, -0.7], requires_grad=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        snap_(x.sigmoid(), FixedPoint(4, 0.25)).sum().backward()


def test_the_gradient_of_a_learned_range_is_that_of_lsq() -> None:
    x = torch.tensor([0.3, -0.55, 5.0, -5.0], requires_grad=True)
    limit = torch.tensor(1.0, requires_grad=True)
    number = FixedPoint(4, 1 / 8)
    upstream = torch.tensor([1.0, 2.0, 3.0, 4.0])
    (snap_learned(x, limit, number) * upstream).sum().backward()
    slopes = [round(0.3 * 8) - 0.3 * 8, round(-0.55 * 8) + 0.55 * 8, 7, -8]
    of_scale = sum(g * slope for g, slope in zip(upstream.tolist(), slopes, strict=True)) / math.sqrt(4 * 7)
    assert limit.grad is not None and x.grad is not None
    assert float(limit.grad) == pytest.approx(of_scale / 8, rel=1e-5)
    assert x.grad.tolist() == [1, 2, 0, 0]


POLICIES = ["power_of_two", "max", "fixed(2)", "learned"]


def quantization(policy: str, bits: int = 4) -> Quantization:
    return Quantization(bits, Range.parse(policy), bits, Range.parse(policy))


def convolution(*policies: str) -> QuantizedConv2d:
    torch.manual_seed(0)
    return QuantizedConv2d(3, 4, 3, choices=tuple(quantization(policy) for policy in policies))


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.randn(8, 3, 6, 6, generator=generator)


def is_on_grid(values: Tensor, number: FixedPoint) -> bool:
    return torch.equal(number.decode(number.encode(values)), values)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("training", [True, False])
def test_an_output_lies_on_the_grid_of_its_layer(policy: str, training: bool, images: Tensor) -> None:
    layer = convolution(policy)
    layer(images)
    y = layer.train(training)(images)
    assert is_on_grid(y, layer.feature_number())
    assert len(y.unique()) > 3


@pytest.mark.parametrize("policy", POLICIES)
def test_a_tap_sees_the_weight_on_its_grid(policy: str, images: Tensor) -> None:
    seen: list[bool] = []

    class Watch(Nothing):
        def weight(self, layer: nn.Module, weight: Tensor, number: FixedPoint) -> Tensor:
            seen.append(is_on_grid(weight, number))
            return weight

    layer = convolution(policy)
    layer(images)
    with tapped(Watch()):
        layer(images)
    assert seen == [True]


@pytest.mark.parametrize("policy", POLICIES)
def test_ranges_are_frozen_in_evaluation(policy: str, images: Tensor) -> None:
    layer = convolution(policy)
    layer(images)
    before = copy.deepcopy(layer.eval().state_dict())
    one = layer(images[:2])
    layer(images * 50)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert torch.equal(layer(images)[:2], one)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_tap_updates_no_statistics(policy: str, images: Tensor) -> None:
    layer = convolution(policy)
    layer(images)
    before = copy.deepcopy(layer.state_dict())
    with tapped(Nothing()):
        layer(images * 50)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("policy", ["power_of_two", "max"])
def test_the_first_clean_batch_sets_the_range_and_later_ones_move_it(policy: str, images: Tensor) -> None:
    layer = QuantizedLinear(6, 2, choices=(quantization(policy, 16),))
    x = images[:, 0, 0]
    layer(x)
    first = float(layer.feature_limit)
    layer(100 * x)
    assert first > 0
    assert first < float(layer.feature_limit) < 30 * first


def test_a_learned_range_starts_at_the_largest_magnitude_and_is_trained(images: Tensor) -> None:
    layer = convolution("learned")
    layer(images).square().sum().backward()
    assert float(layer.learned_weight_limit.detach()) == pytest.approx(float(layer.weight.detach().abs().max()))
    assert layer.learned_weight_limit.grad is not None
    assert layer.learned_feature_limit.grad is not None
    assert float(layer.learned_weight_limit.grad) != 0


def test_a_learned_range_that_training_drove_below_zero_starts_again(images: Tensor) -> None:
    layer = convolution("learned")
    layer(images)
    with torch.no_grad():
        layer.learned_weight_limit.fill_(-0.1)
        layer.learned_feature_limit.fill_(-0.1)
    y = layer(images)
    assert bool(y.isfinite().all())
    assert float(layer.learned_weight_limit.detach()) > 0
    assert float(layer.learned_feature_limit.detach()) > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_quantisation_choices_share_one_weight(policy: str, images: Tensor) -> None:
    layer = convolution("power_of_two", policy)
    for choice in layer.choices:
        layer.zero_grad()
        layer(images, choice).square().sum().backward()
        assert float(layer.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]
    assert [name for name, _ in layer.named_parameters()].count("weight") == 1


def test_a_choice_replaces_the_layers_own_for_one_pass(images: Tensor) -> None:
    coarse, fine = quantization("fixed(2)", 2), quantization("fixed(2)", 8)
    layer = QuantizedConv2d(3, 4, 3, choices=(fine, coarse))
    assert len(layer(images, coarse).unique()) <= 4 < len(layer(images).unique())


def test_a_blend_notes_the_range_of_its_features_once_a_pass() -> None:
    choices = (Quantization(), Quantization(feature_bits=4), Quantization(feature_range=Range("max")))
    blended, plain = (QuantizedConv2d(3, 4, 3, norm="none", choices=choices) for _ in range(2))
    plain.load_state_dict(blended.state_dict())
    for scale in (1.0, 5.0):
        images = scale * torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
        blended(images, Blend(choices, torch.tensor([0.2, 0.3, 0.5])))
        plain(images, choices[0])
    assert float(blended.feature_limit) == pytest.approx(float(plain.feature_limit), rel=1e-5)


def test_a_blend_of_one_choice_is_that_choice(images: Tensor) -> None:
    layer = convolution("fixed(2)", "fixed(1)")
    certain = Blend(layer.choices, torch.tensor([0.0, 1.0]))
    assert torch.allclose(layer(images, certain), layer(images, layer.choices[1]))


def test_a_blend_passes_a_gradient_to_its_shares(images: Tensor) -> None:
    layer = convolution("fixed(2)", "fixed(0.5)")
    shares = torch.tensor([0.4, 0.6], requires_grad=True)
    layer(images, Blend(layer.choices, shares)).square().sum().backward()
    assert shares.grad is not None
    assert bool((shares.grad != 0).all())


def test_a_learned_range_that_the_layer_was_not_built_with_is_refused(images: Tensor) -> None:
    with pytest.raises((ValueError, AttributeError)):
        convolution("max")(images, quantization("learned"))


@pytest.mark.parametrize("terms", [1, 2, 3])
def test_a_sum_adds_its_terms_and_changes_none(terms: int, images: Tensor) -> None:
    values = [images.clone() for _ in range(terms)]
    layer = QuantizedSum(choices=(Quantization(feature_bits=16),))
    assert torch.allclose(layer(values), terms * images, atol=1e-3)
    assert all(torch.equal(value, images) for value in values)


def test_a_second_tap_is_refused() -> None:
    with tapped(Nothing()), pytest.raises(RuntimeError, match="active already"), tapped(Nothing()):
        pass


def test_quantised_layers_are_found_by_path() -> None:
    model = nn.Sequential(convolution("max"), nn.Sequential(QuantizedSum()), nn.ReLU())
    assert list(quantized_layers(model)) == ["0", "1.0"]
