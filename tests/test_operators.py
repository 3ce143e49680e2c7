"""Operators: what they keep of channels and sizes, what they hold, and the numbers they compute in."""

from __future__ import annotations

import pytest
import torch

from ftnas.networks import BUILDERS
from ftnas.networks.operators import Style
from ftnas.quantization import Quantization, quantized_layers
from ftnas.space import OPERATORS, has_numbers

SEARCH, FINAL = Style(norm="plain", pool_norm=True), Style()


def test_every_operator_but_none_has_a_builder() -> None:
    assert set(BUILDERS) == set(OPERATORS) - {"none"}


@pytest.mark.parametrize("style", [SEARCH, FINAL], ids=["search", "final"])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BUILDERS)
def test_an_operator_keeps_channels_and_divides_the_map(
    name: str, stride: int, size: tuple[int, int], style: Style
) -> None:
    y = BUILDERS[name](5, stride, style)(torch.ones(2, 5, *size))
    assert y.shape == (2, 5, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BUILDERS)
def test_an_operator_holds_weights_where_the_space_says_so(name: str, stride: int) -> None:
    assert bool(quantized_layers(BUILDERS[name](4, stride, FINAL))) == has_numbers(name, stride)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BUILDERS)
def test_every_layer_of_an_operator_computes_in_the_numbers_it_is_asked_for(name: str, stride: int) -> None:
    coarse = Quantization(weight_bits=2, feature_bits=3)
    operator = BUILDERS[name](4, stride, Style(choices=(Quantization(), coarse)))
    seen = []
    for layer in quantized_layers(operator).values():
        layer.register_forward_hook(lambda _, inputs, y: seen.append((inputs[1], len(y.unique()))))
    operator(torch.randn(2, 4, 8, 8), coarse)
    assert len(seen) == len(quantized_layers(operator))
    assert all(numbers == coarse and values <= 8 for numbers, values in seen)


def test_an_average_leaves_the_padding_out() -> None:
    y = BUILDERS["avg_pool_3x3"](2, 2, FINAL)(torch.ones(1, 2, 7, 7))
    assert torch.equal(y, torch.ones(1, 2, 4, 4))


@pytest.mark.parametrize("name", ["max_pool_3x3", "avg_pool_3x3"])
@pytest.mark.parametrize(("style", "layers"), [(SEARCH, 1), (FINAL, 0)], ids=["search", "final"])
def test_only_the_supernet_normalises_what_was_pooled(name: str, style: Style, layers: int) -> None:
    assert len(list(BUILDERS[name](4, 1, style).children())) == layers


@pytest.mark.parametrize("size", [8, 7])
def test_a_skip_that_halves_reads_the_odd_pixels_too(size: int) -> None:
    x = torch.rand(1, 4, size, size, requires_grad=True)
    BUILDERS["skip_connect"](4, 2, Style(norm="none"))(x + 1).sum().backward()
    assert x.grad is not None
    assert bool((x.grad[..., 0::2, 0::2].abs().sum(1) > 0).all())
    assert bool((x.grad[..., 1::2, 1::2].abs().sum(1) > 0).all())
