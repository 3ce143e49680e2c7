"""Candidates of a search: trained, or trained as a ReLU net and converted, then measured under faults."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ftnas.campaign import accuracy
from ftnas.faults import quantize
from ftnas.runtime import seeded
from ftnas.spiking.dense.conversion import converted, relu_twin
from ftnas.spiking.dense.hardware_faults import AnyFault, divided
from ftnas.spiking.dense.measurement import spiking_chip_accuracies
from ftnas.spiking.dense.network import SpikingNet, spikes_per_image
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.training import EpochRecord, TrainingSettings, train

Start = Literal["scratch", "converted"]
CALIBRATION_IMAGES = 512
CONVERSION = {"leak": 1.0, "reset": "subtract", "refractory": 0, "initial": 0.5, "learn_threshold": False}
RANGE = "max_per_channel"  # of a net that is converted: scaling a layer then leaves its codes alone


@dataclass(frozen=True, slots=True)
class LayeredScore:
    """What a net is worth and what it costs.

    Attributes:
        clean: accuracy without faults, in [0, 1].
        faulty: mean accuracy over chips.
        chips: accuracy of each chip.
        synapses: weights.
        spikes: of all neurons, mean for one image.
    """

    clean: float
    faulty: float
    chips: tuple[float, ...]
    synapses: int
    spikes: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {**asdict(self), "chips": list(self.chips)}


def settled(spec: SpikingSpec, start: Start) -> SpikingSpec:
    """Return ``spec`` with what does not count for such a start at its fixed value: two equal nets get one form."""
    if start == "scratch":
        return spec
    return SpikingSpec.model_validate({**spec.model_dump(), **CONVERSION, "weight_range": RANGE})


def trained(
    spec: SpikingSpec,
    start: Start,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    settings: TrainingSettings,
    faults: Sequence[AnyFault],
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> SpikingNet:
    """Return the trained net of ``spec``, in evaluation mode.

    Args:
        spec: of the net.
        start: ``scratch`` trains the spiking net; ``converted`` a quantised ReLU net of its sizes, and converts it.
        images: ``[N, C, H, W]`` to train on.
        labels: ``[N]``.
        classes: how many there are.
        settings: of the training; both kinds train for as many epochs.
        faults: trained under, as far as any quantised net can have them (bit flips, stuck bits, ...).
        seed: of weights and batches.
        checkpoint: where progress is kept, and found again.
        on_epoch: called after each.
    """
    channels, height, width = images.shape[1:]
    shape = (int(channels), int(height), int(width))
    generic = divided(faults)[1]
    with seeded("initialisation", seed):
        net = SpikingNet(spec, shape, classes).to(images.device)
        twin = relu_twin(spec, shape, classes).to(images.device)
    few = images[:CALIBRATION_IMAGES]
    model = net if start == "scratch" else quantize(twin.eval(), few, bits=spec.weight_bits, weight_range=RANGE)
    key = f"training {start} {seed}"
    # Faults of features mean membranes in one kind of net and activations in the other: each is trained under its own.
    train(model, images, labels, settings=settings, faults=generic, key=key, checkpoint=checkpoint, on_epoch=on_epoch)
    return net.eval() if start == "scratch" else converted(model, few, spec)


def score(
    net: SpikingNet, images: Tensor, labels: Tensor, *, faults: Sequence[AnyFault], chips: Sequence[int], study: str
) -> LayeredScore:
    """Return the score of ``net`` on ``images`` and ``chips``: the same for all nets of one ``study``."""
    found = spiking_chip_accuracies(net, images, labels, faults=faults, chips=chips, study=study)
    clean = accuracy(net, images, labels)
    return LayeredScore(clean, statistics.fmean(found), tuple(found), net.synapses, spikes_per_image(net, images))
