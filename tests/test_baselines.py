"""The networks people would otherwise use: the published costs to the digit, any width, any image, any numbers."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from ftnas.cost import genotype_cost, measure
from ftnas.errors import ConfigError
from ftnas.networks import BASELINES, CellNetwork, build_baseline
from ftnas.networks.baselines import scaled
from ftnas.quantization import (
    Quantization,
    QuantizedConv2d,
    QuantizedLayer,
    QuantizedLinear,
    Range,
    assume_ranges,
    quantized_layers,
)
from ftnas.runtime import seeded
from ftnas.space import load_space, w_ftt_net

CIFAR, DIGITS = (3, 32, 32), (1, 8, 8)

# Parameters and FLOPs on CIFAR-10, and how arXiv 2003.10375's setting rounds them. ResNet-20 is He et al.'s.
COSTS = {
    "resnet20": (269_722, 81_102_080, "0.27M", "81.1M"),
    "resnet18": (11_173_962, 1_110_845_440, "11.17M", "1110.8M"),
    "vgg16": (14_728_202, 626_403_328, "14.73M", "626.4M"),
    "mobilenet_v2": (2_296_922, 182_309_888, "2.30M", "182.3M"),
    "w_ftt_net_20": (2_710_990, 919_374_080, "2.711M", "919.4M"),
    "w_ftt_net_40": (10_787_570, 3_655_733_760, "10.788M", "3655.7M"),
}
CONVOLUTIONS = {"resnet20": 19, "resnet18": 17 + 3, "vgg16": 13, "mobilenet_v2": 2 + 3 * 17 + 4}

LEARNED = Quantization(weight_range=Range("learned"), feature_range=Range("learned"))
FIXED = Quantization(4, Range("fixed", 0.5), 6, Range("fixed", 2.0))

everyone = pytest.mark.parametrize("name", BASELINES)


def small(name: str, numbers: Quantization | None = None, width: float = 0.1) -> nn.Module:
    with seeded("baseline"):
        return build_baseline(name, width=width, image_shape=DIGITS, classes=10, numbers=numbers)


def digits_like(count: int = 4) -> torch.Tensor:
    return torch.randn(count, *DIGITS, generator=torch.Generator().manual_seed(0))


def to_millions(value: int, like: str) -> str:
    """Return ``value`` in millions, with as many digits after the point as ``like``."""
    return f"{value / 1e6:.{len(like.partition('.')[2]) - 1}f}M"


def test_every_baseline_has_its_published_costs_here() -> None:
    assert COSTS.keys() == BASELINES.keys()


@pytest.mark.parametrize(("name", "parameters", "flops"), [(name, *cost[:2]) for name, cost in COSTS.items()])
def test_a_baseline_costs_what_was_published(name: str, parameters: int, flops: int) -> None:
    cost = measure(build_baseline(name, image_shape=CIFAR, classes=10), CIFAR)
    assert (cost.parameters, cost.flops) == (parameters, flops)


@pytest.mark.parametrize(("parameters", "flops", "in_print", "flops_in_print"), COSTS.values(), ids=COSTS)
def test_the_exact_costs_round_to_those_in_print(
    parameters: int, flops: int, in_print: str, flops_in_print: str
) -> None:
    assert (to_millions(parameters, in_print), to_millions(flops, flops_in_print)) == (in_print, flops_in_print)


@pytest.mark.parametrize(("name", "channels"), [("w_ftt_net_20", 20), ("w_ftt_net_40", 40)])
def test_w_ftt_net_costs_by_table_what_is_counted_in_its_modules(name: str, channels: int) -> None:
    space = load_space("darts_weight_faults")
    sizes = space.final.model_copy(update={"channels": channels})
    by_table = genotype_cost(w_ftt_net(), space, sizes, image_shape=DIGITS)
    assert by_table == measure(build_baseline(name, image_shape=DIGITS, classes=10), DIGITS)


@pytest.mark.parametrize(("name", "count"), CONVOLUTIONS.items())
def test_a_baseline_has_the_published_number_of_layers(name: str, count: int) -> None:
    layers = quantized_layers(small(name, width=1.0)).values()
    assert sum(isinstance(layer, QuantizedConv2d) for layer in layers) == count
    assert sum(isinstance(layer, QuantizedLinear) for layer in layers) == 1


@everyone
def test_a_wider_baseline_costs_more(name: str) -> None:
    narrow, wide = (measure(small(name, width=width), DIGITS).flops for width in (0.1, 0.3))
    assert narrow < wide


@pytest.mark.parametrize(
    ("channels", "width", "result"), [(16, 1.0, 16), (16, 0.5, 8), (20, 1.3, 26), (16, 0.0469, 2), (16, 0.001, 2)]
)
def test_a_scaled_layer_has_at_least_two_channels(channels: int, width: float, result: int) -> None:
    assert scaled(channels, width) == result


@everyone
def test_a_baseline_trains_on_images_of_one_channel_and_eight_pixels(name: str) -> None:
    net = small(name).train()
    net(digits_like()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@everyone
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (2, 1, 1)])
def test_a_baseline_classifies_images_of_any_size(name: str, shape: tuple[int, int, int]) -> None:
    net = build_baseline(name, width=0.1, image_shape=shape, classes=4).eval()
    assume_ranges(net)
    assert net(torch.rand(3, *shape)).shape == (3, 4)


def test_an_unknown_baseline_is_one_line_with_those_that_are_allowed() -> None:
    with pytest.raises(ConfigError) as caught:
        build_baseline("alexnet", image_shape=CIFAR, classes=10)
    assert str(caught.value) == f"unknown baseline 'alexnet'; choose from {', '.join(BASELINES)}"


# Numbers


def chosen_layers(net: nn.Module) -> dict[str, QuantizedLayer]:
    """Return what ``numbers`` are for: the convolutions, of W-FTT-Net those of edges."""
    cells = isinstance(net, CellNetwork)
    layers = {name: layer for name, layer in quantized_layers(net).items() if isinstance(layer, QuantizedConv2d)}
    return {name: layer for name, layer in layers.items() if not cells or ".edges." in name}


@everyone
def test_a_baseline_has_8_bits_and_power_of_two_ranges_by_default(name: str) -> None:
    assert {layer.quantization for layer in quantized_layers(small(name)).values()} == {Quantization()}


@everyone
@pytest.mark.parametrize("numbers", [LEARNED, FIXED], ids=str)
def test_the_convolutions_of_a_baseline_have_the_numbers_asked_for(name: str, numbers: Quantization) -> None:
    layers = chosen_layers(small(name, numbers))
    assert layers
    assert {layer.quantization for layer in layers.values()} == {numbers}


@everyone
@pytest.mark.parametrize("numbers", [LEARNED, FIXED], ids=str)
def test_sums_and_classifier_keep_the_published_numbers(name: str, numbers: Quantization) -> None:
    net = small(name, numbers)
    others = [layer for path, layer in quantized_layers(net).items() if path not in chosen_layers(net)]
    assert others
    assert {layer.quantization for layer in others} == {Quantization()}


@everyone
def test_fixed_ranges_bound_what_the_convolutions_of_a_baseline_compute(name: str) -> None:
    net, ends = small(name, FIXED).train(), []
    for layer in chosen_layers(net).values():
        layer.register_forward_hook(lambda _, __, y: ends.append((float(y.detach().min()), float(y.detach().max()))))
    net(1000 * digits_like())
    step = 2.0 / 2**5
    assert ends
    assert all(-2.0 <= low <= high <= 2.0 - step for low, high in ends)


@everyone
def test_learned_ranges_of_a_baseline_get_gradients(name: str) -> None:
    net = small(name, LEARNED).train()
    net(digits_like()).square().sum().backward()
    limits = [p for key, p in net.named_parameters() if re.search(r"learned_\w+_limit$", key)]
    assert limits
    assert all(float(limit.detach()) > 0 and limit.grad is not None for limit in limits)


@everyone
def test_numbers_change_the_bits_of_a_baseline_and_not_its_flops(name: str) -> None:
    wide, narrow = (measure(small(name, numbers), DIGITS) for numbers in (Quantization(8), Quantization(4)))
    weights = [layer.weight for layer in chosen_layers(small(name)).values()]
    assert (narrow.flops, narrow.parameters) == (wide.flops, wide.parameters)
    assert wide.weight_bits - narrow.weight_bits == 4 * sum(w.numel() for w in weights if isinstance(w, torch.Tensor))
