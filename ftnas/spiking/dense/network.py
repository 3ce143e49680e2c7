"""Layered spiking nets as modules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ftnas.spiking.dense.neurons import SpikingNeurons
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.spiking.dense.synapses import SpikingConv2d, SpikingLinear, Synapses


@dataclass(frozen=True, eq=False)
class Activity:
    """What a net did with a batch.

    Attributes:
        logits: ``[N, classes]``: each output neuron's spikes, and what is left on its membrane in thresholds. Without
            a leak and with resets by subtraction that is the whole charge it received.
        spikes: of each layer ``[N, T, ...]``, the last the output.
    """

    logits: Tensor
    spikes: tuple[Tensor, ...]

    @property
    def spikes_per_image(self) -> float:
        """Mean number of spikes of all neurons for one image."""
        return sum(float(layer.detach().sum()) for layer in self.spikes) / len(self.logits)


class SpikingLayer(nn.Module):
    """Synapses and the neurons behind them.

    Args:
        spec: the net's.
        shape_in: of what comes in, ``[C]`` or ``[C, H, W]``.
        size: neurons, or channels of a convolution.
        convolves: which of the two.
    """

    def __init__(self, spec: SpikingSpec, shape_in: tuple[int, ...], size: int, *, convolves: bool) -> None:
        super().__init__()
        self.synapses: Synapses
        shape: tuple[int, ...]
        if convolves:
            self.synapses = SpikingConv2d(shape_in[0], size, spec)
            shape = (size, *(-(-extent // 2) for extent in shape_in[1:]))
        else:
            self.synapses = SpikingLinear(math.prod(shape_in), size, spec)
            shape = (size,)
        self.neurons = SpikingNeurons(spec, shape, self.synapses.macs_per_value)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return spikes ``[N, T, ...]`` and last membranes ``[N, ...]``; a constant ``x`` is ``[N, 1, ...]``."""
        if isinstance(self.synapses, SpikingLinear):
            x = x.flatten(2)
        spikes, rest = self.neurons(self.synapses(x))
        return spikes, rest


class SpikingNet(nn.Module):
    """A net that is shown images ``[N, C, H, W]`` for ``spec.steps`` steps and answers with logits ``[N, classes]``."""

    def __init__(self, spec: SpikingSpec, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.spec, self.image_shape, self.classes = spec, image_shape, classes
        layers: list[SpikingLayer] = []
        shape: tuple[int, ...] = image_shape
        sizes = [(size, True) for size in spec.channels] + [(size, False) for size in (*spec.widths, classes)]
        for size, convolves in sizes:
            layers.append(SpikingLayer(spec, shape, size, convolves=convolves))
            shape = layers[-1].neurons.shape
        self.layers = nn.ModuleList(layers)

    @property
    def stages(self) -> list[SpikingLayer]:
        """The layers, from the image to the output."""
        return [cast(SpikingLayer, layer) for layer in self.layers]

    @property
    def synapses(self) -> int:
        """How many weights there are."""
        return sum(stage.synapses.weight.numel() for stage in self.stages)

    @property
    def neurons(self) -> int:
        """How many neurons there are."""
        return sum(math.prod(stage.neurons.shape) for stage in self.stages)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of ``images``; see ``Activity``."""
        return self.run(images).logits

    def run(self, images: Tensor) -> Activity:
        """Return what the net does with ``images``."""
        x, spikes = images.unsqueeze(1), []
        rest = images
        for stage in self.stages:
            x, rest = stage(x)
            spikes.append(x)
        return Activity(x.sum(1) + rest, tuple(spikes))


def with_spec(net: SpikingNet, **changes: object) -> SpikingNet:
    """Return a copy of ``net`` with its weights and thresholds, and other keys of its specification.

    For what needs no other shapes: steps, leak, defences, number formats.

    Raises:
        ValidationError: a key or a value is impossible.
    """
    spec = SpikingSpec.model_validate({**net.spec.model_dump(), **changes})
    twin = SpikingNet(spec, net.image_shape, net.classes).to(next(net.parameters()).device)
    twin.load_state_dict(net.state_dict())
    return twin.train(net.training)


@torch.no_grad()
def spikes_per_image(net: SpikingNet, images: Tensor, *, batch_size: int = 512) -> float:
    """Return the mean number of spikes of ``net``, in evaluation mode, for one of ``images``."""
    net.eval()
    parts = images.split(batch_size)
    return sum(net.run(part).spikes_per_image * len(part) for part in parts) / len(images)
