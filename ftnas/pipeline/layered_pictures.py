"""A layered spiking net as a drawing, and what it fires for an image as a raster."""

from __future__ import annotations

import torch
from torch import Tensor

from ftnas.report.layered_drawing import STRONGEST, DrawnLayer, layered_figure
from ftnas.report.layered_raster import layered_raster_figure
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.stored import stored_layers


def layered_drawing(net: SpikingNet, title: str) -> str:
    """Return ``net`` as SVG, a column for its input and for each layer."""
    first = net.stages[0].synapses.weight
    pixels = "x".join(map(str, net.image_shape))
    senders = first.shape[1]
    layers = [DrawnLayer("image", (pixels,), senders, [()] * senders)]
    for place, (stage, stored) in enumerate(zip(net.stages, stored_layers(net), strict=True)):
        last = place + 1 == len(net.stages)
        weight = stored.number.decode(stored.codes)
        shape = "x".join(map(str, stage.neurons.shape))
        words = (
            f"{shape} neurons",
            f"threshold {stored.threshold * net.spec.membrane_step:.3g}",
            f"{stored.codes.numel():,} weights of {stored.number.bits} bits",
        )
        layers.append(
            DrawnLayer("output" if last else f"layer {place}", words, len(weight), _strongest(weight, layers[-1]))
        )
    return layered_figure(layers, title)


def _strongest(weight: Tensor, before: DrawnLayer) -> list[list[tuple[int, float]]]:
    """Return of each row of ``weight`` ``[C_out, C_in, ...]`` the senders with the largest weights.

    Behind a convolution several of a layer's weights come from one channel, and the largest stands for them.
    """
    grouped = weight.reshape(len(weight), before.neurons, -1)
    at = grouped.abs().argmax(2, keepdim=True)
    largest = grouped.gather(2, at).squeeze(2)
    chosen = largest.abs().topk(min(STRONGEST, before.neurons), dim=1).indices
    return [[(source, float(largest[neuron, source])) for source in row] for neuron, row in enumerate(chosen.tolist())]


@torch.no_grad()
def layered_raster(net: SpikingNet, image: Tensor, title: str) -> str:
    """Return what ``net`` fires for one ``image`` ``[1, C, H, W]`` as SVG."""
    found = net.run(image)
    return layered_raster_figure([layer[0].flatten(1).bool().tolist() for layer in found.spikes], title)
