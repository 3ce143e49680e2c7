"""The default estimator: gradients say which channels are vulnerable, injection says how much the worst of them are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ftnas.campaign.dataflow import Forward
from ftnas.hardening.first_order import Found, Shares, first_order
from ftnas.hardening.flips import flipped
from ftnas.hardening.injected import batches_of, probes
from ftnas.hardening.probing import Probe
from ftnas.hardening.scores import by_channel, ranked
from ftnas.hardening.sensitivity import SiteSlopes, site_slopes
from ftnas.hardening.steps import Steps
from ftnas.runtime import keyed_generator

SHARE = 0.2  # of a layer's channels, at least one, are measured: the most vulnerable ones by first order


def confirmed(model: nn.Module, forward: Forward, images: Tensor, steps: Steps) -> Mapping[str, tuple[Found, Tensor]]:
    """Return each layer's estimates, set right by injection, and which channels were measured, ``[C]`` booleans.

    Each bit of a measured channel flips once in each image, at a position drawn for that image. The estimate moves by
    how much oftener these flips change an answer than they were estimated to: a fraction of the noise that their plain
    share would have, and in a linear layer exactly what ``exhaustive`` finds. The channel's neurons keep their
    proportions; the other channels of the layer move as the measured ones did in the mean. So the cost is that of
    ``8 * 0.2 * C`` passes for a layer of C channels of 8 bits.
    """
    estimates = first_order(model, forward, images)
    chosen = {path: _top(found, len(images)) for path, found in estimates.items()}
    totals = {path: torch.zeros(len(top), estimates[path].number.bits) for path, top in chosen.items()}
    steps.expect(batches_of(images) * len(chosen))
    for number, probe in enumerate(probes(model, forward, images)):
        for path, site in site_slopes(model, forward, probe.images).items():
            measure = partial(_beyond, probe, site, path, chosen[path], key=number)
            totals[path] += steps.done(f"{number} {path}", measure)
    return {path: _corrected(found, chosen[path], totals[path] / len(images)) for path, found in estimates.items()}


def _top(found: Found, images: int) -> Tensor:
    """Return the channels to measure, most vulnerable first."""
    scores = ranked(*found.shares, images=images, reduce=by_channel)
    return scores.argsort(descending=True, stable=True)[: math.ceil(SHARE * len(scores))]


def _beyond(probe: Probe, site: SiteSlopes, path: str, channels: Tensor, *, key: int) -> Tensor:
    """Return how many more images get another answer than estimated, ``[k, bits]``, for ``channels`` ``[k]``."""
    positions, bits = site.values[0, 0].numel(), site.number.bits
    shape = (len(channels), bits, len(probe))
    drawn = torch.randint(positions, shape, generator=keyed_generator("vulnerability", path, key))
    neurons = (channels.view(-1, 1, 1) * positions + drawn).to(site.values.device)
    faulty = [flipped(site.values, site.number, bit) for bit in range(bits)]
    values = torch.stack([_at(one, neurons[:, bit]) for bit, one in enumerate(faulty)], 1)
    estimated = torch.stack([_at(site.strain(one), neurons[:, bit]) for bit, one in enumerate(faulty)], 1)
    measured = probe.strain(path, neurons.flatten(0, 1), values.flatten(0, 1)).view(shape)
    return ((measured > 1).float() - (estimated > 1).float()).sum(2).cpu()


def _at(values: Tensor, neurons: Tensor) -> Tensor:
    """Return ``values`` ``[n, C, ...]`` of the ``neurons`` ``[k, n]`` that each image has: ``[k, n]``."""
    return values.flatten(1).gather(1, neurons.T).T


def _corrected(found: Found, channels: Tensor, beyond: Tensor) -> tuple[Found, Tensor]:
    """Return ``found`` with the factors of ``channels`` ``[k]`` moved by ``beyond`` ``[k, bits]``."""
    changed, strain = found.shares
    estimated = by_channel(changed)[channels]
    wanted = (estimated + beyond).clamp(0, 1)
    corrected = _towards(changed, estimated.mean(0), wanted.mean(0))
    shape = (len(channels), *[1] * (changed.dim() - 2), -1)
    corrected[channels] = _towards(changed[channels], estimated.view(shape), wanted.view(shape))
    is_measured = torch.zeros(len(changed), dtype=torch.bool)
    is_measured[channels] = True
    return Found(found.number, Shares(corrected, strain)), is_measured


def _towards(shares: Tensor, mean: Tensor, wanted: Tensor) -> Tensor:
    """Return ``shares`` in [0, 1], whose mean is ``mean``, moved to the mean ``wanted``; none leaves [0, 1].

    Downwards all shares shrink by one factor; upwards their distances to 1 do.
    """
    down = shares * (wanted / mean.clamp_min(torch.finfo(shares.dtype).tiny))
    up = 1 - (1 - shares) * ((1 - wanted) / (1 - mean).clamp_min(torch.finfo(shares.dtype).tiny))
    return torch.where(wanted < mean, down, torch.where(wanted > mean, up, shares))
