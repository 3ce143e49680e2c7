"""Accuracy of spiking nets on faulty chips: faults of spiking hardware and those of any quantised net at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext

from torch import Tensor

from ftnas.campaign import accuracy, chip_accuracies
from ftnas.spiking.dense.fault_map import FaultMap, draw_map, inject_map, joined_maps
from ftnas.spiking.dense.hardware_faults import AnyFault, divided
from ftnas.spiking.dense.network import SpikingNet

NOTHING = FaultMap()


def spiking_chip_accuracies(
    net: SpikingNet,
    images: Tensor,
    labels: Tensor,
    *,
    faults: Sequence[AnyFault | str],
    chips: Iterable[int],
    study: str,
    given: FaultMap = NOTHING,
) -> list[float]:
    """Return the accuracy of ``net`` on each chip of ``chips``: the same chips for all nets of one shape and ``study``.

    Args:
        net: put into evaluation mode.
        images: ``[N, C, H, W]``.
        labels: ``[N]``.
        faults: of either kind, or their texts.
        chips: their numbers.
        study: its name.
        given: what is broken on all of them beside what is drawn.
    """
    spiking, others = divided(faults)
    found = []
    for chip in chips:
        broken = joined_maps(given, draw_map(net, spiking, chip=chip, study=study))
        with inject_map(net, broken) if broken else nullcontext():
            if others:
                found += chip_accuracies(net, images, labels, faults=others, chips=[chip], study=study)
            else:
                found.append(accuracy(net, images, labels))
    return found
