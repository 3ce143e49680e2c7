"""Floating-point words: bits that fail in float32, bfloat16 and float16, against torch's views and against struct."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from faulty_net import Net, some_images
from slow_faults import after, applied, plan, rows_of, site, slow, value_of, word_of
from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.faults import BitFlip, DirectedFlip, Fault, OutputPattern, RandomValue, StuckBit, draw_plan, inject, sites
from ftnas.faults.events import FLIP
from ftnas.quantization import FloatWord, Quantization, QuantizedConv2d
from ftnas.quantization.formats import Word

WORDS: tuple[Word, ...] = get_args(Word)
INTEGERS = {"float32": torch.int32, "bfloat16": torch.int16, "float16": torch.int16}
BITWISE: list[Fault] = [
    BitFlip(0.05),
    BitFlip(0.05, adjacent=3),
    StuckBit(0.05),
    DirectedFlip(0.05, to_one=0.2),
    RandomValue(0.3),
]
ORDINARY = [0.0, -0.0, 1.0, -1.5, 0.1, 3.0e4, -2.0e-3, 1e-7, float("inf"), float("-inf")]


def float_net(word: Word) -> Net:
    torch.manual_seed(0)
    model = Net((Quantization(word=word),))
    model(some_images())
    return model.eval()


def alike(result: int, expected: int, word: Word) -> bool:
    """Return whether two words are the same bits, or both NaN where the word is narrow."""
    if word != "float32" and math.isnan(value_of(expected, word)):
        return math.isnan(value_of(result, word))
    return result == expected


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("kind", ["weight", "output"])
def test_a_site_of_words_has_as_many_bits_as_the_word(word: Word, kind: str) -> None:
    found = sites(float_net(word), f"*.{kind}")
    assert {site.bits for site in found} == {32 if word == "float32" else 16}
    assert {site.number for site in found} == {FloatWord(word)}


@pytest.mark.parametrize("word", WORDS)
def test_a_flip_of_any_bit_of_a_weight_is_that_of_torch_s_view(word: Word) -> None:
    model, number = float_net(word), FloatWord(word)
    weight = number.decode(number.encode(model.stem.weight.detach()))
    with inject(model, BitFlip(0.02)) as injection:
        faulty = injection.weight(model.stem, weight, number)
    planned = draw_plan(model, BitFlip(0.02)).sites["stem.weight", 0]
    masks = torch.zeros(weight.numel(), dtype=INTEGERS[word])
    for element, rows in rows_of(planned.events, number.bits).items():
        for bit, _ in rows:
            masks[element] ^= torch.tensor(2**bit).to(INTEGERS[word])
    expected = (weight.to(number.dtype).view(INTEGERS[word]) ^ masks.view_as(weight)).view(number.dtype).float()
    assert torch.equal(faulty.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert not torch.equal(faulty, weight)


@pytest.mark.parametrize("word", WORDS)
def test_a_flip_changes_exactly_that_bit_of_a_word(word: Word) -> None:
    codes = [word_of(value, word) for value in ORDINARY]
    for bit in range(FloatWord(word).bits):
        flipped = after(codes, BitFlip(0.5), [(i, bit, FLIP, 1) for i in range(len(codes))], FloatWord(word))
        assert all(alike(result, code ^ (1 << bit), word) for result, code in zip(flipped, codes, strict=True))


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("fault", BITWISE, ids=str)
def test_every_model_of_bits_agrees_with_plain_integers_on_words(fault: Fault, word: Word) -> None:
    number = FloatWord(word)
    values = np.random.default_rng(0).normal(size=200)
    codes = [word_of(value, word) for value in [*ORDINARY, *values]]
    events = plan(fault, site(len(codes), bits=number.bits, kind="weight")).events
    expected = slow(codes, fault, rows_of(events, number.bits), number)
    result = applied(codes, fault, events, number)
    assert all(alike(*pair, word) for pair in zip(result, expected, strict=True))
    assert result != codes


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "fault",
    [
        "weights.stuck_cell:0.1",
        "weights.bitwise_stuck_cell:0.1",
        "features.bit_bias:0.1",
        "features.mac_bit_bias:0.1",
        "features.gaussian:0.1",
    ],
)
def test_a_model_that_needs_fixed_point_refuses_words_in_one_line(fault: str, word: Word) -> None:
    with pytest.raises(FaultError) as error, inject(net := float_net(word), fault):
        net(some_images())
    assert fault.split(":")[0] in str(error.value)
    assert "fixed-point numbers" in str(error.value)
    assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("fault", ["weights.log_normal:0.1", "weights.gaussian:0.1"])
def test_weights_of_words_may_vary(fault: str, word: Word) -> None:
    model = float_net(word)
    clean = model(some_images())
    with inject(model, fault):
        assert not torch.equal(model(some_images()), clean)


def patterned(value: str, images: Tensor, *, size: int, rate: float = 0.2) -> Tensor:
    """Return ``images`` as outputs of a layer of float words, whose points fail; batches of ``size``."""
    model = nn.Sequential(QuantizedConv2d(3, 3, 1, choices=(Quantization(word="float32"),)))
    result = images.clone()
    with inject(model, OutputPattern(rate, value=value)) as injection:  # type: ignore[arg-type]
        for first in range(0, len(result), size):
            injection.first_image = first
            injection.output(model[0], result[first : first + size], FloatWord("float32"))
    return result


def test_values_in_range_are_uniform_between_the_ends_of_their_image() -> None:
    scales = torch.arange(1.0, 151).view(-1, 1, 1, 1)
    images = some_images() * scales
    faulty = patterned("in_range", images, size=150)
    hit = faulty != images
    low, high = (end.view(-1, 1, 1, 1) for end in (images.flatten(1).amin(1), images.flatten(1).amax(1)))
    places = ((faulty - low) / (high - low))[hit]
    assert 0 <= float(places.min()) < 0.001
    assert 0.999 < float(places.max()) <= 1
    assert abs(float(places.mean()) - 0.5) < 0.01


def test_values_in_range_do_not_depend_on_the_other_images_of_a_batch() -> None:
    images = some_images() * torch.arange(1.0, 151).view(-1, 1, 1, 1)
    assert torch.equal(patterned("in_range", images, size=150), patterned("in_range", images, size=7))


def test_values_in_range_are_finite_in_an_image_that_is_not() -> None:
    images = some_images()
    images[0, 0, 0, 0], images[1, 0, 0, 0] = float("nan"), float("inf")
    faulty = patterned("in_range", images, size=150, rate=1.0)
    assert bool(faulty.isfinite().all())


def test_values_out_of_range_are_the_largest_word_of_either_sign() -> None:
    images = some_images()
    faulty = patterned("out_of_range", images, size=150)
    largest = torch.finfo(torch.float32).max
    assert set(faulty[faulty != images].tolist()) == {largest, -largest}


def test_values_of_zero_are_zero_in_words_too() -> None:
    images = some_images()
    faulty = patterned("zero", images, size=150)
    assert set(faulty[faulty != images].tolist()) == {0.0}
