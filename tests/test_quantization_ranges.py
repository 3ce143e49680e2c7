"""Ranges and what a quantisation may choose: texts, limits per channel, signs, words, measured or not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftnas.errors import FaultError
from ftnas.quantization import (
    FixedPoint,
    FloatWord,
    Quantization,
    QuantizedConv2d,
    QuantizedLinear,
    Range,
    Word,
    assume_ranges,
    power_of_two_above,
)

WORDS: dict[Word, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def linear(weight: list[float], quantization: Quantization) -> QuantizedLinear:
    """Return a layer with one output and no bias."""
    layer = QuantizedLinear(len(weight), 1, choices=(quantization,))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weight]))
        layer.bias.zero_()
    return layer


@given(st.floats(1e-5, 1e6))
def test_the_power_of_two_above_is_the_smallest_that_covers(limit: float) -> None:
    power = power_of_two_above(limit)
    assert math.log2(power).is_integer()
    assert power / 2 < limit <= power


@pytest.mark.parametrize(
    ("limit", "power"), [(0.0, 2.0**-16), (1e-5, 2.0**-16), (0.5, 0.5), (0.50001, 1.0), (1.0, 1.0), (3, 4.0), (4, 4.0)]
)
def test_the_power_of_two_above_known_limits(limit: float, power: float) -> None:
    assert power_of_two_above(limit) == power


@pytest.mark.parametrize(
    "text", ["power_of_two", "max", "learned", "fixed(0.5)", "fixed(2)", "max_per_channel", "power_of_two_per_channel"]
)
def test_a_range_survives_its_text(text: str) -> None:
    assert str(Range.parse(text)) == text


@pytest.mark.parametrize("text", ["fixed", "fixed()", "fixed(-1)", "fixed(0)", "percentile", "learned_per_channel", ""])
def test_an_unknown_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"choose from|needs a positive limit"):
        Range.parse(text)


@given(
    weights=st.tuples(st.integers(2, 16), st.sampled_from(["max", "learned", "fixed(0.25)", "max_per_channel"])),
    features=st.tuples(st.integers(2, 16), st.sampled_from(["max", "learned", "fixed(0.25)"])),
    signed=st.booleans(),
    word=st.sampled_from(["integer", "float32", "bfloat16", "float16"]),
)
def test_a_quantisation_survives_its_dictionary(
    weights: tuple[int, str], features: tuple[int, str], signed: bool, word: Word
) -> None:
    (w, w_range), (f, f_range) = weights, features
    quantization = Quantization(w, Range.parse(w_range), f, Range.parse(f_range), signed, word)
    assert Quantization.from_dict(quantization.to_dict()) == quantization


def test_the_dictionary_of_a_searched_quantisation_has_four_keys() -> None:
    """What genotypes are hashed by must not change with what only users' own models have."""
    assert list(Quantization().to_dict()) == ["weight_bits", "weight_range", "feature_bits", "feature_range"]
    assert Quantization(feature_signed=False).to_dict()["feature_signed"] is False
    assert Quantization(word="bfloat16").to_dict()["word"] == "bfloat16"


@pytest.mark.parametrize("policy", ["max_per_channel", "power_of_two_per_channel"])
def test_features_have_no_range_per_channel(policy: str) -> None:
    with pytest.raises(ValueError, match=f"feature_range cannot be {policy}: only weights"):
        Quantization(feature_range=Range.parse(policy))


@pytest.mark.parametrize("policy", ["max", "power_of_two"])
def test_a_range_per_channel_is_that_of_each_channel_alone(policy: str) -> None:
    torch.manual_seed(0)
    layer = QuantizedConv2d(3, 4, 3)
    with torch.no_grad():
        layer.weight.mul_(torch.logspace(-2, 0, 4).view(4, 1, 1, 1))
    scales = layer.weight_number(layer.weight, Quantization(5, Range.parse(f"{policy}_per_channel"))).scale
    alone = [layer.weight_number(channel, Quantization(5, Range.parse(policy))).scale for channel in layer.weight]
    assert scales == tuple(alone)
    assert len(set(alone)) > 1


def test_a_finer_range_per_channel_brings_weights_nearer() -> None:
    torch.manual_seed(0)
    layer = QuantizedLinear(20, 6)
    with torch.no_grad():
        layer.weight.mul_(torch.logspace(-2, 0, 6)[:, None])

    def error(policy: str) -> float:
        snapped = layer.quantized_weight(layer.weight, Quantization(4, Range.parse(policy)))
        return float(((snapped - layer.weight) / layer.weight.abs().amax(1, keepdim=True)).square().mean().detach())

    assert error("max_per_channel") < 0.1 * error("max")


def test_features_without_a_sign_have_twice_the_steps_and_cut_off_what_is_negative() -> None:
    layer = linear([-1.0], Quantization(feature_range=Range("max"), feature_signed=False))
    x = torch.tensor([[-4.0], [-1.0], [8.0]])
    layer(x)
    assert layer.eval().feature_number() == FixedPoint(8, 4 / 256, signed=False)
    assert layer(x).flatten().tolist() == [4 - 4 / 256, 1.0, 0.0]


@pytest.mark.parametrize("word", WORDS)
def test_a_layer_of_words_rounds_weight_and_output_to_the_word(word: Word) -> None:
    torch.manual_seed(0)
    layer, x = QuantizedLinear(5, 3, choices=(Quantization(word=word),)).eval(), torch.randn(7, 5)
    weight = layer.weight.to(WORDS[word]).float()
    expected = torch.nn.functional.linear(x, weight, layer.bias).to(WORDS[word]).float()
    assert torch.equal(layer(x), expected)
    assert layer.weight_number(layer.weight) == layer.feature_number() == FloatWord(word)


@pytest.mark.parametrize("policy", ["power_of_two", "max", "learned"])
def test_a_range_that_was_never_measured_is_an_error_not_a_tiny_range(policy: str) -> None:
    layer = QuantizedConv2d(1, 2, 3, choices=(Quantization(feature_range=Range.parse(policy)),))
    images = torch.rand(2, 1, 4, 4)
    with pytest.raises(FaultError, match=r"QuantizedConv2d with a weight \(2, 1, 3, 3\).*never measured"):
        layer.eval()(images)
    layer.train()(images)
    assert layer.eval()(images).shape == (2, 2, 4, 4)


def test_a_measured_range_of_nothing_but_zeros_is_no_error() -> None:
    layer = linear([-1.0], Quantization())
    layer(torch.zeros(4, 1))
    assert layer.eval()(torch.zeros(4, 1)).flatten().tolist() == [0.0] * 4
    layer.train()(torch.full((4, 1), -3.0))
    assert float(layer.feature_limit) == 3.0  # taken over at once, as from a first batch


def test_assumed_ranges_leave_measured_ones_alone() -> None:
    measured, fresh = linear([-1.0], Quantization()), linear([-1.0], Quantization(feature_range=Range("learned")))
    measured(torch.full((4, 1), -3.0))
    for layer in (measured, fresh):
        assume_ranges(layer)
    assert float(measured.feature_limit) == 3.0
    assert fresh.eval().feature_number() == FixedPoint(8, 1 / 128)
