"""The vulnerability of a whole net as one number, for a search to minimise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ftnas.campaign.dataflow import Forward
from ftnas.hardening.vulnerability import LayerVulnerability, vulnerability_of

Factor = Literal["max_lvf", "mean_cvf", "expected"]
Found = Mapping[str, LayerVulnerability]


def max_lvf(found: Found) -> float:
    """Return the factor of the most vulnerable layer, in [0, 1]."""
    return max(layer.factor for layer in found.values())


def mean_cvf(found: Found) -> float:
    """Return the mean factor of all channels of all layers, in [0, 1]."""
    return float(torch.cat([layer.channels for layer in found.values()]).mean())


def expected(found: Found) -> float:
    """Return how many single flips change the mean image's answer, of all bits of all outputs.

    Times a small rate of bit flips it is the expected share of answers that change; unlike the other two it grows with
    the number of neurons that can fail.
    """
    return sum(float(layer.changed.sum()) for layer in found.values())


FACTORS: Mapping[Factor, Callable[[Found], float]] = {
    "max_lvf": max_lvf,
    "mean_cvf": mean_cvf,
    "expected": expected,
}


def network_vulnerability(factor: Factor, model: nn.Module, forward: Forward, images: Tensor) -> float:
    """Return a factor of the pass ``forward`` through ``model``, by first order, on ``images`` ``[N, C, H, W]``."""
    return FACTORS[factor](vulnerability_of(model, images, estimator="first_order", forward=forward))
