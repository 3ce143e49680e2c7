"""Vulnerability by gradients: which flips would change an answer if every class margin were linear behind the layer.

The estimator is ours; its cost is one forward pass and a backward pass a class, for all layers together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ftnas.campaign.dataflow import Forward
from ftnas.hardening.flips import flipped
from ftnas.hardening.sensitivity import SiteSlopes, site_slopes
from ftnas.quantization import Number

IMAGES_AT_ONCE = 25  # of a ResNet-20 at 3x32x32, 0.4 GB


class Shares(NamedTuple):
    """Means over images, ``[C, ..., bits]`` in [0, 1]: answers changed, and the strain of the nearest class margin."""

    changed: Tensor
    strain: Tensor


class Found(NamedTuple):
    """What an estimator found out about one layer's output, and its format."""

    number: Number
    shares: Shares


def first_order(model: nn.Module, forward: Forward, images: Tensor) -> Mapping[str, Found]:
    """Return format, answers changed and strain of each layer's output, by module path."""
    totals: dict[str, Shares] = {}
    numbers: dict[str, Number] = {}
    for batch in images.split(IMAGES_AT_ONCE):
        for path, site in site_slopes(model, forward, batch).items():
            numbers[path] = site.number
            sums = _sums(site)
            totals[path] = Shares(*map(torch.add, totals[path], sums)) if path in totals else sums
    means = {path: Shares(*((part / len(images)).cpu() for part in total)) for path, total in totals.items()}
    return {path: Found(numbers[path], mean) for path, mean in means.items()}


def _sums(site: SiteSlopes) -> Shares:
    """Return over the images of ``site`` the sums of answers changed and of strain."""
    strains = [site.strain(flipped(site.values, site.number, bit)) for bit in range(site.number.bits)]
    # As floats: a sum of booleans takes five times as long.
    changed = torch.stack([(strain > 1).to(strain).sum(0) for strain in strains], -1)
    return Shares(changed, torch.stack([strain.clamp_(max=1).sum(0) for strain in strains], -1))
