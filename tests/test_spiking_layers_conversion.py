from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ftnas.errors import ModelError
from ftnas.faults import quantize
from ftnas.quantization import FixedPoint, quantized_layers
from ftnas.runtime import seeded
from ftnas.spiking.dense.conversion import converted, relu_twin
from ftnas.spiking.dense.specification import SpikingSpec
from tests.spiking_nets import CLASSES, SHAPE, images


def relu_net(spec: SpikingSpec) -> nn.Module:
    with seeded("relu"):
        model = relu_twin(spec, SHAPE, CLASSES).eval()
    return quantize(model, images(64), weight_range="max_per_channel")


def codes(model: nn.Module) -> list[Tensor]:
    layers = [layer for layer in quantized_layers(model).values() if layer.kind != "sum"]
    numbers = [layer.weight_number(layer.weight) for layer in layers]
    assert all(isinstance(number, FixedPoint) for number in numbers)
    return [number.encode(layer.weight) for number, layer in zip(numbers, layers, strict=True)]


@pytest.mark.parametrize("spec", [SpikingSpec(widths=(9, 8)), SpikingSpec(channels=(3, 4), widths=(9,))])
def test_a_converted_net_has_the_sizes_and_the_codes_of_the_relu_net(spec: SpikingSpec) -> None:
    model = relu_net(spec)
    net = converted(model, images(64), spec)
    assert (net.spec.channels, net.spec.widths) == (spec.channels, spec.widths)
    assert all(map(torch.equal, codes(model), codes(net)))


def test_rates_come_nearer_to_activations_with_more_steps() -> None:
    spec = SpikingSpec(widths=(12,), membrane_bits=16, membrane_limit=512.0)
    model, x = relu_net(spec), images(40, seed=1)
    with torch.no_grad():
        expected = model(x)
        errors = []
        for steps in (4, 32, 256):
            net = converted(model, images(64), spec.model_copy(update={"steps": steps}))
            scale = (expected * net(x)).sum() / net(x).square().sum()
            errors.append(float((scale * net(x) - expected).norm() / expected.norm()))
    # What stays is cut off above the 99.9 % quantile of calibration, and the grids of the ReLU net's features.
    assert errors[0] > 3 * errors[1] and errors[1] > errors[2] and errors[2] < 0.06


def test_conversion_leaves_the_relu_net_as_it_is() -> None:
    model = relu_net(SpikingSpec(widths=(5,)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    converted(model, images(64), SpikingSpec())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Sigmoid()), "Sigmoid cannot be converted"),
        (nn.Sequential(nn.Conv2d(1, 2, 5), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)), "3x3 convolutions of stride 2"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 4)),
         "fold batch norms"),
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 3, padding=1)),
         "cannot be converted"),
    ],
)  # fmt: skip
def test_what_is_no_chain_of_relu_layers_is_refused_in_one_line(model: nn.Module, words: str) -> None:
    quantised = quantize(model.eval(), images(16))
    with pytest.raises(ModelError, match=words) as caught:
        converted(quantised, images(16), SpikingSpec())
    assert "\n" not in str(caught.value)


def test_a_float_net_is_refused() -> None:
    with pytest.raises(ModelError, match="quantised"):
        converted(relu_twin(SpikingSpec(), SHAPE, CLASSES), images(4), SpikingSpec())
