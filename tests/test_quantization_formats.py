"""Number formats: every code, scales per channel, and words, against plain integers and torch's own patterns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ftnas.quantization import FixedPoint, FloatWord, Number, Quantization, Word, snap

NUMBERS = st.builds(
    FixedPoint, st.integers(2, 16), st.integers(-12, 4).map(lambda exponent: 2.0**exponent), st.booleans()
)
ANY_SCALE = st.builds(FixedPoint, st.integers(2, 10), st.floats(1e-4, 10), st.booleans())
VALUES = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30).map(torch.tensor)
WORDS: dict[Word, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CHANNELS = (0.5, 0.013, 3.0)

every_word = pytest.mark.parametrize("word", WORDS)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("scale", [2.0**-7, 0.0123, CHANNELS], ids=str)
def test_every_code_of_every_width_survives_its_value(
    bits: int, signed: bool, scale: float | tuple[float, ...]
) -> None:
    number = FixedPoint(bits, scale, signed)
    codes = torch.arange(number.low, number.high + 1, dtype=torch.int32).expand(3, -1)
    values = number.decode(codes)
    assert values.dtype == torch.float32
    assert torch.equal(number.encode(values), codes)


@given(NUMBERS)
def test_a_code_stands_for_its_multiple_of_the_scale(number: FixedPoint) -> None:
    codes = [number.low, -1 if number.signed else 1, 0, number.high]
    assert number.decode(torch.tensor(codes)).tolist() == [code * number.scale for code in codes]


@given(NUMBERS)
def test_the_codes_are_those_of_twos_complement(number: FixedPoint) -> None:
    codes = range(number.low, number.high + 1)
    assert len(codes) == 2**number.bits
    assert {code % 2**number.bits for code in codes} == set(range(2**number.bits))


@given(number=NUMBERS, x=VALUES)
def test_encode_clamps_and_rounds_half_to_even_as_plain_integers_do(number: FixedPoint, x: Tensor) -> None:
    expected = [round(min(max(value / number.scale, number.low), number.high)) for value in x.tolist()]
    assert number.encode(x).tolist() == expected


@pytest.mark.parametrize("beyond", [0.49, 0.51, 1.0, 1e6, 1e30])
def test_encode_clamps_before_it_rounds(beyond: float) -> None:
    number = FixedPoint(8, 1.0)
    assert number.encode(torch.tensor([number.high + beyond, number.low - beyond])).tolist() == [127, -128]


@given(number=ANY_SCALE, x=VALUES)
def test_decoding_what_was_encoded_is_idempotent(number: FixedPoint, x: Tensor) -> None:
    once = number.decode(number.encode(x))
    assert torch.equal(number.decode(number.encode(once)), once)


@given(x=st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), bits=st.integers(2, 16), sign=st.booleans())
def test_a_channel_is_encoded_as_if_it_were_alone(x: list[float], bits: int, sign: bool) -> None:
    weight = torch.tensor(x).view(3, 1, 1, 1).expand(3, 2, 1, 2)
    whole = FixedPoint(bits, CHANNELS, sign)
    alone = [FixedPoint(bits, scale, sign).encode(channel) for scale, channel in zip(CHANNELS, weight, strict=True)]
    assert torch.equal(whole.encode(weight), torch.stack(alone))


@given(x=VALUES, data=st.data())
def test_values_picked_out_of_a_tensor_get_the_codes_that_they_have_in_it(x: Tensor, data: st.DataObject) -> None:
    weight, number = x.expand(3, -1), FixedPoint(6, CHANNELS)
    codes = number.encode(weight)
    picked = data.draw(st.lists(st.integers(0, codes.numel() - 1), min_size=1))
    channel = np.array(picked) // len(x)
    of_picked = number.encode_at(weight.reshape(-1)[picked].numpy(), channel)
    assert np.array_equal(of_picked, codes.view(-1)[picked].numpy())
    assert np.array_equal(number.decode_at(of_picked, channel), number.decode(codes).view(-1)[picked].numpy())


@pytest.mark.parametrize("number", [FixedPoint(8, 0.5), FloatWord("float16"), FloatWord("float32")], ids=str)
def test_a_format_with_one_scale_needs_no_channel(number: Number) -> None:
    x = torch.tensor([0.3, -7.25, 12.0])
    assert not number.per_channel
    codes = number.encode(x)
    assert np.array_equal(number.encode_at(x.numpy()), codes.numpy())
    assert np.array_equal(number.decode_at(codes.numpy()), number.decode(codes).numpy())


def test_scales_per_channel_that_do_not_fit_are_refused() -> None:
    number = FixedPoint(8, CHANNELS)
    with pytest.raises(ValueError, match=r"3 scales do not fit a tensor of shape \(4, 2\)"):
        number.encode(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="needs the channel of each value"):
        number.encode_at(np.zeros(3, np.float32), None)
    with pytest.raises(ValueError, match="got none"):
        FixedPoint(8, ())


@pytest.mark.parametrize("bits", [1, 17])
def test_an_impossible_width_is_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=rf"bits must be 2\.\.16, got {bits}"):
        FixedPoint(bits, 1.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, (1.0, 0.0), (1.0, math.nan)])
def test_an_impossible_scale_is_refused(scale: float | tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scale must be positive"):
        FixedPoint(8, scale)


@every_word
@given(x=st.lists(st.floats(width=32), min_size=1).map(torch.tensor))
def test_the_code_of_a_word_is_the_bit_pattern_that_torch_stores(word: Word, x: Tensor) -> None:
    number = FloatWord(word)
    stored = x.to(WORDS[word])
    pattern = stored.view(torch.int32 if number.bits == 32 else torch.int16).long() % 2**number.bits
    assert torch.equal(number.encode(x).long() % 2**number.bits, pattern)
    assert number.encode(x).dtype == torch.int32
    assert torch.equal(number.decode(number.encode(x)).nan_to_num(77), stored.float().nan_to_num(77))


@pytest.mark.parametrize("word", ["bfloat16", "float16"])
def test_every_pattern_of_16_bits_survives_its_value_but_those_of_nan(word: Word) -> None:
    number, codes = FloatWord(word), torch.arange(2**16, dtype=torch.int32)
    values = number.decode(codes)
    is_nan = values.isnan()
    assert torch.equal(number.encode(values)[~is_nan], codes[~is_nan])
    assert torch.equal(number.decode(number.encode(values)).isnan(), is_nan)
    assert 0 < int(is_nan.sum()) < 3000


@given(st.integers(-(2**31), 2**31 - 1))
def test_any_pattern_of_32_bits_survives_its_value(code: int) -> None:
    number, codes = FloatWord("float32"), torch.tensor([code], dtype=torch.int32)
    assert torch.equal(number.encode(number.decode(codes)), codes)


@every_word
def test_one_flipped_bit_of_a_word_is_its_sign_or_its_lowest_fraction(word: Word) -> None:
    number, codes = FloatWord(word), FloatWord(word).encode(torch.tensor([1.0, -3.0]))
    top = -(2**31) if number.bits == 32 else 2**15
    assert number.decode(codes ^ top).tolist() == [-1.0, 3.0]
    assert number.decode(codes ^ 1)[0] == 1 + torch.finfo(WORDS[word]).eps


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown word 'float64'; choose from float32, bfloat16, float16"):
        FloatWord("float64")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown word 'int8'; choose from integer, float32"):
        Quantization(word="int8")  # type: ignore[arg-type]


@every_word
@given(x=VALUES)
def test_snap_rounds_to_a_word_as_torch_does_and_passes_the_gradient(word: Word, x: Tensor) -> None:
    x.requires_grad_()
    y = snap(x, FloatWord(word))
    assert torch.equal(y, x.to(WORDS[word]).float())
    y.sum().backward()
    assert x.grad is not None
    assert bool((x.grad == 1).all())


@given(x=VALUES)
def test_snap_per_channel_puts_values_where_decode_of_encode_does(x: Tensor) -> None:
    number = FixedPoint(5, CHANNELS)
    weight = x.expand(3, -1)
    assert torch.equal(snap(weight, number), number.decode(number.encode(weight)))
