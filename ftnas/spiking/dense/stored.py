"""Spiking nets as the integers that hardware holds, from which files are written and nets made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftnas.networks.bounded import bounded
from ftnas.quantization import FixedPoint, Number
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.specification import SpikingSpec


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """One layer as it is stored.

    Attributes:
        codes: int32 weights, ``[C_out, C_in]`` or ``[C_out, C_in, 3, 3]``.
        number: their format.
        bias: float32 ``[C_out]``, added to each step's current.
        threshold: code of the membranes' format.
    """

    codes: Tensor
    number: FixedPoint
    bias: Tensor
    threshold: int


def on_host(number: Number) -> FixedPoint:
    """Return the format of a weight with its scales as plain numbers, wherever the weight is."""
    assert isinstance(number, FixedPoint), "a spiking net's specification knows integer weights only"
    if not isinstance(number.scale, Tensor):
        return number
    scale = number.scale.tolist()
    return FixedPoint(number.bits, tuple(scale) if isinstance(scale, list) else scale, number.signed)


@torch.no_grad()
def stored_layers(net: SpikingNet) -> list[StoredLayer]:
    """Return the layers of ``net`` from the image to the output."""
    found = []
    for stage in net.stages:
        number = stage.synapses.weight_number(stage.synapses.weight)
        number = on_host(number)
        threshold = round(float(stage.neurons.threshold_on_grid()) / net.spec.membrane_step)
        codes, bias = number.encode(stage.synapses.weight).cpu(), stage.synapses.bias
        found.append(StoredLayer(codes, number, bias.detach().cpu().clone(), threshold))
    return found


@torch.no_grad()
def assembled(
    spec: SpikingSpec, image_shape: tuple[int, int, int], classes: int, layers: Sequence[StoredLayer]
) -> SpikingNet:
    """Return the net of ``layers``, in evaluation mode, its weights on the grids they came with.

    Raises:
        ValueError: they do not fit the specification.
    """
    given = sum(layer.codes.numel() + layer.bias.numel() for layer in layers)
    # Beside what is given, a few numbers of each layer.
    net = bounded(lambda: SpikingNet(spec, image_shape, classes), most=given + 100 * (len(layers) + 1))
    if len(layers) != len(net.stages):
        raise ValueError(f"{len(net.stages)} layers are needed, got {len(layers)}")
    for place, (stage, layer) in enumerate(zip(net.stages, layers, strict=True)):
        if stage.synapses.weight.shape != layer.codes.shape or stage.synapses.bias.shape != layer.bias.shape:
            needed = "x".join(map(str, stage.synapses.weight.shape))
            raise ValueError(f"layer {place}: weights {needed} are needed, got {'x'.join(map(str, layer.codes.shape))}")
        highest = 2 ** (spec.membrane_bits - 1) - 1
        if not 1 <= layer.threshold <= highest:
            raise ValueError(f"layer {place}: threshold must be 1 to {highest}, got {layer.threshold}")
        if not bool(((layer.codes >= layer.number.low) & (layer.codes <= layer.number.high)).all()):
            raise ValueError(f"layer {place}: codes of {layer.number.bits} bits are needed")
        stage.synapses.weight.copy_(layer.number.decode(layer.codes))
        stage.synapses.bias.copy_(layer.bias)
        stage.synapses.stored_number = layer.number
        stage.neurons.threshold.copy_(torch.tensor(layer.threshold * spec.membrane_step))
    return net.eval()
