"""Defences of spiking nets: bounded weights and guarded resets (SoftSNN), retraining with thresholds (FalVolt)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ftnas.spiking.dense.fault_map import FaultMap, inject_map
from ftnas.spiking.dense.network import SpikingNet, with_spec
from ftnas.training import EpochRecord, TrainingSettings, train


def with_bounded_weights(
    net: SpikingNet, method: Literal["zero", "clip"] = "zero", *, bound_of: Literal["layer", "neuron"] = "layer"
) -> SpikingNet:
    """Return a copy of ``net`` that reads no weight beyond the largest clean one (SoftSNN, Putra et al., DAC 2022).

    Args:
        net: without faults the copy computes the same.
        method: what is read instead: 0, or the largest clean magnitude with its sign.
        bound_of: one bound for a layer, or one for the synapses of each neuron.
    """
    return with_spec(net, bounding=method, bound_of=bound_of)


def with_reset_guard(net: SpikingNet, patience: int = 2) -> SpikingNet:
    """Return a copy of ``net`` whose neurons fall silent when ``patience`` resets running did not help (SoftSNN).

    A membrane that is reset to zero lies below its threshold afterwards, so there the copy computes the same without
    faults. One that is reset by subtraction may lie above it under a strong input: take ``patience_of`` then.
    """
    return with_spec(net, reset_guard=patience)


@torch.no_grad()
def patience_of(net: SpikingNet, images: Tensor) -> int:
    """Return the smallest patience, 2 or more, at which a reset guard changes nothing for ``images``."""
    net.eval()
    expected = net.run(images).spikes
    for patience in range(2, net.spec.steps + 1):
        found = with_reset_guard(net, patience).run(images).spikes
        if all(map(torch.equal, expected, found)):
            return patience
    return net.spec.steps + 1


def bypassed(fault_map: FaultMap) -> FaultMap:
    """Return ``fault_map`` on hardware that passes by what is known to be faulty: broken synapses count as 0."""
    return FaultMap(tuple(replace(f, kind="dead", value=0.0) if f.part == "synapses" else f for f in fault_map.faults))


def retrained(
    net: SpikingNet,
    fault_map: FaultMap,
    images: Tensor,
    labels: Tensor,
    *,
    settings: TrainingSettings,
    key: str,
    learn_threshold: bool = True,
) -> tuple[SpikingNet, list[EpochRecord]]:
    """Return a copy of ``net`` trained on the chip of ``fault_map``, and its record (FalVolt, arXiv 2301.05266).

    Synapses in the map get no gradient; the other weights and, with ``learn_threshold``, one threshold a layer learn to
    do without them.

    Args:
        net: left as it is.
        fault_map: of the chip, usually ``bypassed``.
        images: ``[N, C, H, W]`` to train on.
        labels: ``[N]``.
        settings: of the training.
        key: of its random draws.
        learn_threshold: whether thresholds move.
    """
    twin = copy.deepcopy(net)
    for stage in twin.stages:
        stage.neurons.threshold.requires_grad_(learn_threshold)
    with inject_map(twin, fault_map):
        records = train(twin, images, labels, settings=settings, faults=(), key=key)
    return twin.eval(), records
