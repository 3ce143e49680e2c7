"""Costs: to the digit of the published table, and equal to what is counted in real layers."""

from __future__ import annotations

import time
from functools import partial

import pytest
import torch
from genotype_strategies import genotypes_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ftnas.cost import (
    Cost,
    cheapest_costs,
    cheapest_flops,
    cheapest_parameters,
    factorized_reduce,
    genotype_cost,
    linear,
    measure,
    operator_work,
)
from ftnas.errors import SpaceError
from ftnas.networks.cell_network import CellNetwork
from ftnas.quantization import Quantization, QuantizedConv2d, QuantizedLinear, Range
from ftnas.space import OPERATORS, Edge, Genotype, Preprocess, hand_made, load_space, w_ftt_net

WEIGHTS, DIGITS, TINY = load_space("darts_weight_faults"), load_space("digits"), load_space("tiny")
Conv = partial(nn.Conv2d, bias=False)


class Reduce(nn.Module):
    """The factorised reduce as it is run: the second half reads the map shifted by one pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Conv(channels, channels // 2, 1, stride=2)
        self.second = Conv(channels, channels - channels // 2, 1, stride=2)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        y: Tensor = self.norm(torch.cat([self.first(x), self.second(shifted)], 1))
        return y


def depthwise_pointwise(channels: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    depthwise = Conv(channels, channels, kernel, stride=stride, padding=padding, dilation=dilation, groups=channels)
    return [nn.ReLU(), depthwise, Conv(channels, channels, 1), nn.BatchNorm2d(channels)]


def built(operator: str, channels: int, stride: int) -> nn.Module:
    """Return ``operator`` of plain torch layers, as the paper describes it."""
    kernel = int(operator[-1]) if operator[-1].isdigit() else 1
    if operator.startswith("sep_conv"):
        first = depthwise_pointwise(channels, kernel, stride)
        return nn.Sequential(*first, *depthwise_pointwise(channels, kernel, 1))
    if operator.startswith("dil_conv"):
        return nn.Sequential(*depthwise_pointwise(channels, kernel, stride, dilation=2))
    if operator.startswith("relu_conv_bn"):
        conv = Conv(channels, channels, kernel, stride=stride, padding=kernel // 2)
        return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(channels))
    if operator == "conv_1x1":
        return nn.Conv2d(channels, channels, 1, stride=stride)
    if operator == "skip_connect" and stride == 2:
        return Reduce(channels)
    return nn.MaxPool2d(3, stride, 1) if "pool" in operator else nn.Identity()


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_costs_what_its_layers_cost(operator: str, stride: int, size: tuple[int, int]) -> None:
    work = operator_work(operator, 5, size, stride)
    counted = measure(built(operator, 5, stride), (5, *size))
    assert (work.macs, work.parameters) == (counted.macs, counted.parameters)


# The published table: 2.711M and 919.4M, 10.788M and 3655.7M, and with 1x1 preprocessing 1.52M and 441M.


@pytest.mark.parametrize(
    ("channels", "parameters", "flops"), [(20, 2_710_990, 919_374_080), (40, 10_787_570, 3_655_733_760)]
)
def test_w_ftt_net_has_the_published_parameters_and_flops(channels: int, parameters: int, flops: int) -> None:
    cost = genotype_cost(w_ftt_net(), WEIGHTS, WEIGHTS.final.model_copy(update={"channels": channels}))
    assert (cost.parameters, cost.flops) == (parameters, flops)


def test_w_ftt_net_with_1x1_preprocessing_has_the_published_parameters_and_flops() -> None:
    space = WEIGHTS.model_copy(update={"preprocess": Preprocess(operator="relu_conv_bn_1x1")})
    cost = genotype_cost(w_ftt_net(), space, space.final)
    assert (round(cost.parameters, -4), round(cost.flops, -6)) == (1_520_000, 441_000_000)


def test_an_affine_norm_in_preprocessing_adds_two_numbers_a_channel_and_input() -> None:
    affine = WEIGHTS.model_copy(update={"preprocess": Preprocess(operator="relu_conv_bn_3x3", affine=True)})
    without, with_it = (genotype_cost(w_ftt_net(), space, WEIGHTS.final) for space in (WEIGHTS, affine))
    assert with_it.parameters - without.parameters == 2 * 2 * sum([20, 20, 40, 40, 40, 80, 80, 80])
    assert with_it.macs == without.macs


def test_a_tiny_network_costs_what_is_counted_by_hand() -> None:
    # Stem 9*12; per cell two 1x1 preprocessings and two separable convolutions (2 * (9*4 + 4*4)); head 8*10 + 10.
    separable, pixels = 2 * (9 * 4 + 4 * 4), 8 * 8
    weights = 9 * 12 + (2 * 12 * 4 + 2 * separable) + (12 * 4 + 8 * 4 + 2 * separable)
    norms = 2 * (12 + 2 * (2 * 4 + 2 * 2 * 4))
    cost = genotype_cost(hand_made(TINY), TINY, TINY.final, image_shape=(1, 8, 8))
    assert cost == Cost(weights * pixels + 80, weights + norms + 80 + 10, 8 * (weights + 80))


def test_equal_edges_of_a_node_are_one_module_and_count_once() -> None:
    once, twice = Edge("sep_conv_3x3", 0), Edge("sep_conv_3x3", 1)
    free = ((Edge("none", 0),) * 2,) * DIGITS.nodes
    doubled = genotype_cost(Genotype(((once, once), *free[1:]), free), DIGITS, DIGITS.final)
    single = genotype_cost(Genotype(((once, Edge("none", 0)), *free[1:]), free), DIGITS, DIGITS.final)
    both = genotype_cost(Genotype(((once, twice), *free[1:]), free), DIGITS, DIGITS.final)
    assert single == doubled
    assert both.macs > single.macs


def test_weights_of_4_bits_halve_only_the_bits_of_their_edge() -> None:
    narrow = Genotype(
        tuple(tuple(Edge(e.operator, e.source, Quantization(4)) for e in n) for n in hand_made(TINY).normal)
    )
    wide, saved = (genotype_cost(genotype, TINY, TINY.final) for genotype in (hand_made(TINY), narrow))
    assert (saved.macs, saved.parameters) == (wide.macs, wide.parameters)
    assert wide.weight_bits - saved.weight_bits == 4 * 4 * 2 * (9 * 4 + 4 * 4)


def test_costs_add_up() -> None:
    assert Cost(1, 2, 3) + Cost(10, 20, 30) == Cost(11, 22, 33)


def test_flops_are_two_for_each_multiply_accumulate() -> None:
    assert Cost(macs=21).flops == 42


def test_a_genotype_of_another_space_has_no_cost() -> None:
    with pytest.raises(SpaceError, match=r"space digits: the normal cell needs 2 nodes, got 4"):
        genotype_cost(w_ftt_net(), DIGITS, DIGITS.final)


def test_an_unknown_operator_has_no_cost() -> None:
    with pytest.raises(SpaceError, match=r"unknown operator 'conv_7x7'; choose from none, "):
        operator_work("conv_7x7", 4, (8, 8), 1)


def test_a_cost_is_known_in_less_than_a_millisecond() -> None:
    genotypes = [WEIGHTS.sample(torch.Generator().manual_seed(seed)) for seed in range(50)]
    start = time.perf_counter()
    for genotype in genotypes:
        genotype_cost(genotype, WEIGHTS, WEIGHTS.final)
    assert (time.perf_counter() - start) / len(genotypes) < 1e-3


@settings(max_examples=5)
@given(st.data())
@pytest.mark.parametrize("name", ["cifar10_small", "cifar10_small_weights", "digits", "digits_weights", "tiny"])
def test_the_table_agrees_with_the_network_that_is_built(name: str, data: st.DataObject) -> None:
    space, shape = load_space(name), (2, 9, 7)
    genotype = data.draw(genotypes_of(space))
    network = CellNetwork(space, space.final, image_shape=shape, classes=5, genotype=genotype)
    assert genotype_cost(genotype, space, space.final, image_shape=shape, classes=5) == measure(network, shape)


@settings(max_examples=50)
@given(st.data())
@pytest.mark.parametrize("name", ["digits", "digits_weights"])
def test_all_isomorphic_forms_cost_the_same(name: str, data: st.DataObject) -> None:
    space = load_space(name)
    genotype = data.draw(genotypes_of(space))
    assert genotype_cost(genotype, space, space.final) == genotype_cost(space.canonical(genotype), space, space.final)


def test_edges_that_share_a_module_have_the_numbers_of_the_first_in_order() -> None:
    wide, narrow = Edge("sep_conv_3x3", 0), Edge("sep_conv_3x3", 0, Quantization(4))
    free = ((Edge("none", 0),) * 2,) * DIGITS.nodes
    costs = {
        genotype_cost(Genotype(((one, other), *free[1:]), free), DIGITS, DIGITS.final)
        for one, other in [(wide, narrow), (narrow, wide), (narrow, narrow)]
    }
    assert len(costs) == 1


# The least cost


def test_the_least_costs_of_the_tiny_space_are_those_of_its_cheapest_architectures() -> None:
    costs = [genotype_cost(genotype, TINY, TINY.final) for genotype in TINY.enumerate()]
    assert cheapest_flops(TINY, TINY.final) == min(cost.flops for cost in costs)
    assert cheapest_parameters(TINY, TINY.final) == min(cost.parameters for cost in costs)


@pytest.mark.parametrize(
    "kept", [("sep_conv_3x3",), ("conv_1x1", "sep_conv_3x3"), ("skip_connect",), ("relu_conv_bn_3x3", "sep_conv_5x5")]
)
@pytest.mark.parametrize("inputs", [1, 2])
def test_the_least_costs_are_exact_where_nothing_is_free(kept: tuple[str, ...], inputs: int) -> None:
    sizes = TINY.final.model_copy(update={"cells": 4, "reductions": (1, 3)})
    changes = {"operators": kept, "inputs_per_node": inputs, "search": sizes, "final": sizes}
    space = TINY.model_copy(update=changes | {"quantization": (Quantization(),)})
    costs = [genotype_cost(g, space, sizes, image_shape=(1, 9, 7)) for g in space.enumerate()]
    assert cheapest_costs(space, sizes, image_shape=(1, 9, 7)) == undercut_by_none(costs)


def undercut_by_none(costs: list[Cost]) -> list[tuple[int, int]]:
    """Return the (FLOPs, parameters) of those with less of one than any that have no more of the other."""
    pairs = {(cost.flops, cost.parameters) for cost in costs}
    return sorted(p for p in pairs if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in pairs))


@settings(max_examples=50)
@given(st.data())
def test_no_genotype_costs_less_than_the_least(data: st.DataObject) -> None:
    cost = genotype_cost(data.draw(genotypes_of(WEIGHTS)), WEIGHTS, WEIGHTS.final)
    assert cost.flops >= cheapest_flops(WEIGHTS, WEIGHTS.final)
    assert cost.parameters >= cheapest_parameters(WEIGHTS, WEIGHTS.final)


# Counting a model


def quantized_net() -> nn.Sequential:
    narrow = Quantization(weight_bits=4, weight_range=Range("learned"))
    convolution = QuantizedConv2d(2, 4, 3, stride=2, choices=(narrow, Quantization()))
    return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), QuantizedLinear(4, 3))


def test_a_quantised_model_is_counted_without_learned_ranges_and_with_its_bits() -> None:
    assert measure(quantized_net(), (2, 7, 7)) == Cost(72 * 16 + 12, 72 + 8 + 12 + 3, 4 * 72 + 8 * 12)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = quantized_net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure(model, (2, 7, 7))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_frozen_parameters_are_not_counted() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert measure(nn.Sequential(nn.Flatten(), model), (3, 1, 1)).parameters == 6


def test_a_linear_layer_has_a_bias_for_each_output() -> None:
    work = linear(320, 10)
    assert (work.macs, work.parameters, work.weights) == (3200, 3210, 3200)


def test_a_factorised_reduce_of_odd_width_still_has_all_channels() -> None:
    work = factorized_reduce(4, 5, size=(2, 2), affine=True)
    assert (work.weights, work.parameters) == (20, 30)
