"""A trained ReLU net turned into a spiking one: rates of spikes stand for activations.

Diehl et al. (IJCNN 2015) and Rueckauer et al. (Frontiers in Neuroscience 2017): weights and biases are scaled so that
the largest activation of a layer is one spike in each step, membranes keep all (no leak), a spike takes the threshold
off, and membranes begin at half of it, which rounds instead of cutting off.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ftnas.errors import ModelError
from ftnas.quantization import Activation, ConvertedLayer
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.specification import SpikingSpec

PEAK = 0.999  # the quantile of activations that becomes one spike in each step (Rueckauer et al., section 2.2)
_PASSED = (nn.Flatten, nn.Identity, nn.ReLU, Activation, nn.Sequential)


def relu_twin(spec: SpikingSpec, image_shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """Return a float ReLU net of the layers of ``spec``, which can be quantised, trained and converted."""
    layers: list[nn.Module] = []
    channels, height, width = image_shape
    for size in spec.channels:
        layers += [nn.Conv2d(channels, size, 3, stride=2, padding=1), nn.ReLU()]
        channels, height, width = size, -(-height // 2), -(-width // 2)
    layers.append(nn.Flatten())
    inputs = channels * height * width
    for size in spec.widths:
        layers += [nn.Linear(inputs, size), nn.ReLU()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def converted(model: nn.Module, images: Tensor, spec: SpikingSpec) -> SpikingNet:
    """Return a spiking net that computes with rates what ``model`` does with activations, in evaluation mode.

    Weights keep their codes where the range follows the largest weight (``max``, ``max_per_channel``): scaling a layer
    changes its step only.

    Args:
        model: quantised, of layers in a row: 3x3 convolutions of stride 2, linear layers, and ReLUs between.
        images: ``[N, C, H, W]``, a few hundred training images, of which the largest activations are taken.
        spec: steps, threshold and membranes of the spiking net. Its sizes and weight numbers are those of ``model``,
            its dynamics those of a conversion.

    Raises:
        ModelError: ``model`` is no such net.
    """
    layers = _layers(model)
    peaks = _peaks(model, layers, images)
    with torch.no_grad():
        classes = len(layers[-1].weight)
    numbers = layers[0].quantization
    net = SpikingNet(
        SpikingSpec.model_validate(
            {
                **spec.model_dump(),
                "channels": tuple(len(layer.weight) for layer in layers if layer.kind == "conv"),
                "widths": tuple(len(layer.weight) for layer in layers[:-1] if layer.kind == "linear"),
                "weight_bits": numbers.weight_bits,
                "weight_range": str(numbers.weight_range),
                "leak": 1.0,
                "reset": "subtract",
                "refractory": 0,
                "initial": 0.5,
            }
        ),
        (images.shape[1], images.shape[2], images.shape[3]),
        classes,
    ).to(images.device)
    before = 1.0
    for stage, layer, peak in zip(net.stages, layers, peaks, strict=True):
        with torch.no_grad():
            stage.synapses.weight.copy_(layer.weight * (spec.threshold * before / peak))
            bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
            stage.synapses.bias.copy_(bias * (spec.threshold / peak))
        before = peak
    return net.eval()


def _layers(model: nn.Module) -> list[ConvertedLayer]:
    layers = [module for module in model.modules() if isinstance(module, ConvertedLayer)]
    inside = {module for layer in layers for module in layer.modules()}
    strange = [type(m).__name__ for m in model.modules() if m not in inside and not isinstance(m, _PASSED)]
    if not layers or strange or not isinstance(model, nn.Sequential):
        what = strange[0] if strange else type(model).__name__
        raise ModelError(
            f"conversion to a spiking net: {what} cannot be converted; allowed is a torch.nn.Sequential, quantised, of "
            "3x3 convolutions of stride 2, linear layers, ReLU and Flatten"
        )
    for layer in layers:
        _check(layer)
    kinds = [layer.kind for layer in layers]
    if kinds != sorted(kinds) or kinds[-1] != "linear":
        raise ModelError(f"conversion to a spiking net: linear layers come last, got {', '.join(kinds)}")
    return layers


def _check(layer: ConvertedLayer) -> None:
    if layer.norm is not None:
        raise ModelError("conversion to a spiking net: fold batch norms into the layers before them first")
    shape = layer.kind == "conv" and (
        tuple(layer.weight.shape[2:]), tuple(layer.stride), layer.padding, tuple(layer.dilation), layer.groups
    )  # fmt: skip
    if shape and shape != ((3, 3), (2, 2), (1, 1), (1, 1), 1):
        raise ModelError(f"conversion to a spiking net: only plain 3x3 convolutions of stride 2, got {layer}")


@torch.no_grad()
def _peaks(model: nn.Module, layers: Sequence[ConvertedLayer], images: Tensor) -> list[float]:
    """Return of each layer the quantile of its positive outputs that one spike a step stands for."""
    found: dict[nn.Module, float] = {}

    def note(layer: nn.Module, args: object, output: Tensor) -> None:
        highest = output.flatten().sort().values
        found[layer] = max(float(highest[round(PEAK * (len(highest) - 1))]), 1e-6)

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        model.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [found[layer] for layer in layers]
