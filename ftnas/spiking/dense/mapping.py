"""Fault-aware mapping: which neuron of a net goes to which place of a chip whose faults are known.

In the spirit of RescueSNN (Putra et al., 2023), which without retraining keeps significant weight bits away from faulty
cells and uses neurons whose faults do no harm: the neurons of a hidden layer change places, so that the net stays what
it is without faults, and the change of its weights, and of what it would answer, becomes smallest.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ftnas.quantization import FixedPoint
from ftnas.spiking.dense.fault_map import FaultMap, PartFault, check_map
from ftnas.spiking.dense.network import SpikingLayer, SpikingNet
from ftnas.spiking.dense.stored import on_host
from ftnas.spiking.dense.synapses import CODE_CHANGES, SpikingLinear


def mapped_around(net: SpikingNet, fault_map: FaultMap, images: Tensor) -> SpikingNet:
    """Return ``net`` with the neurons of its fully connected hidden layers moved to where ``fault_map`` harms least.

    Without faults it answers as before, but for the order of sums. Each layer is an assignment problem, solved exactly
    (Hungarian method), one after another from the image on. What a place costs a neuron: the squared change of its
    weights, coming in and going out, each times the squared mean of what is sent along it; and, where the neuron itself
    is faulty, all that it sends.

    Args:
        net: left as it is.
        fault_map: of the chip: places, not neurons.
        images: ``[N, C, H, W]``, of which the rates of spikes are measured.

    Raises:
        FaultError: the map is of another net.
    """
    from scipy.optimize import linear_sum_assignment  # half a second that only this needs

    check_map(fault_map, net)
    twin = copy.deepcopy(net).eval()
    for layer in movable_layers(twin):
        harm = _harm(twin, layer, fault_map, images)
        neurons, places = linear_sum_assignment(harm.cpu().numpy())
        order = torch.empty(len(places), dtype=torch.int64)
        order[torch.from_numpy(places)] = torch.from_numpy(neurons)
        _reorder_(twin.stages[layer], twin.stages[layer + 1], order.to(harm.device))
    return twin


def movable_layers(net: SpikingNet) -> list[int]:
    """Return the hidden layers whose neurons can change places: fully connected ones before fully connected ones."""
    is_full = [isinstance(stage.synapses, SpikingLinear) for stage in net.stages]
    return [layer for layer in range(len(is_full) - 1) if is_full[layer] and is_full[layer + 1]]


@torch.no_grad()
def _harm(net: SpikingNet, layer: int, fault_map: FaultMap, images: Tensor) -> Tensor:
    """Return what it costs, ``[neuron, place]``, to put a neuron of ``layer`` in a place."""
    here, after = net.stages[layer], net.stages[layer + 1]
    spikes = net.run(images).spikes
    sent = spikes[layer].mean((0, 1))  # [neurons]
    received = (images if layer == 0 else spikes[layer - 1].mean(1)).flatten(1).square().mean(0)
    incoming = _row_changes(here.synapses, fault_map.of(layer, "synapses"), received)
    outgoing = _column_changes(after.synapses, fault_map.of(layer + 1, "synapses")) * sent.square()[:, None]
    weight = _clean(after.synapses)
    broken = torch.zeros_like(incoming)
    for fault in fault_map.of(layer, "neurons"):
        # One that is silent no longer sends what it sent; any other may send in every step what it should not.
        wrong = sent if fault.kind == "dead" else torch.maximum(sent, 1 - sent)
        broken[:, fault.element] += wrong.square() * weight.square().sum(0)
    return incoming + outgoing + broken


def _row_changes(synapses: object, faults: tuple[PartFault, ...], received: Tensor) -> Tensor:
    """Return the harm ``[neuron, place]`` of faults in the synapses that come in; a place is a row of the weight."""
    assert isinstance(synapses, SpikingLinear)
    weight = _clean(synapses)
    harm = torch.zeros(len(weight), len(weight), device=weight.device)
    for fault in faults:
        place, column = divmod(fault.element, weight.shape[1])
        harm[:, place] += _change(synapses, weight[:, column], fault).square() * received[column]
    return harm


def _column_changes(synapses: object, faults: tuple[PartFault, ...]) -> Tensor:
    """Return the harm ``[neuron, place]``, for spikes in every step, in those that go out; a place is a column."""
    assert isinstance(synapses, SpikingLinear)
    weight = _clean(synapses)
    neurons = weight.shape[1]
    harm = torch.zeros(neurons, neurons, device=weight.device)
    for fault in faults:
        row, place = divmod(fault.element, neurons)
        harm[:, place] += _change(synapses, weight[row], fault).square()
    return harm


def _change(synapses: SpikingLinear, weights: Tensor, fault: PartFault) -> Tensor:
    """Return by how much ``fault`` would change each of ``weights`` ``[k]``, all on the grid of one channel."""
    number = on_host(synapses.weight_number(synapses.weight))
    step = max(number.scale) if isinstance(number.scale, tuple) else number.scale
    grid = FixedPoint(number.bits, step, number.signed)
    codes = grid.encode(weights)
    values = torch.full_like(codes, int(fault.value))
    return grid.decode(CODE_CHANGES[fault.kind](codes, values, grid)) - weights


def _clean(synapses: object) -> Tensor:
    assert isinstance(synapses, SpikingLinear)
    number = synapses.weight_number(synapses.weight)
    return number.decode(number.encode(synapses.weight))


@torch.no_grad()
def _reorder_(here: SpikingLayer, after: SpikingLayer, order: Tensor) -> None:
    """Put neuron ``order[p]`` in place p: its row of one weight, its column of the next."""
    assert isinstance(here.synapses, SpikingLinear) and isinstance(after.synapses, SpikingLinear)
    here.synapses.weight.copy_(here.synapses.weight[order])
    here.synapses.bias.copy_(here.synapses.bias[order])
    after.synapses.weight.copy_(after.synapses.weight[:, order])
