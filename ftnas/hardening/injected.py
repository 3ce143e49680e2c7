"""Vulnerability by injection: every flip of every neuron, or the smallest deviations that change an answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ftnas.campaign.dataflow import Forward
from ftnas.campaign.late_start import LateStart
from ftnas.hardening.first_order import Found, Shares
from ftnas.hardening.flips import flipped
from ftnas.hardening.probing import Probe
from ftnas.hardening.steps import Steps
from ftnas.quantization import FixedPoint, Number

IMAGES_AT_ONCE = 32
NEURONS_AT_ONCE = 64
FLOAT_GRID = range(-10, 11)  # of a float's deviations, as DeepVigor's

OfNeurons: TypeAlias = Callable[[Probe, str, Tensor], Tensor]  # (probe, layer, neurons [k]) -> strain [k, n, bits]


def probes(model: nn.Module, forward: Forward, images: Tensor) -> Iterator[Probe]:
    """Yield a probe for each batch of ``images``."""
    late = LateStart(forward, images)
    for batch in images.split(IMAGES_AT_ONCE):
        yield Probe(late, model, forward, batch)


def exhaustive(model: nn.Module, forward: Forward, images: Tensor, steps: Steps) -> Mapping[str, Found]:
    """Return format, answers changed and strain of each layer's output, by flipping every bit of every neuron.

    As many forward passes of the images as there are neurons times bits, each from its layer on.
    """
    return _of_all(probes(model, forward, images), flips, steps, batches=batches_of(images))


def range_search(model: nn.Module, forward: Forward, images: Tensor, steps: Steps) -> Mapping[str, Found]:
    """Return the same as ``exhaustive`` from the smallest failing deviations up and down (DeepVigor, ETS 2023).

    They are found for each neuron and image by halving a grid of powers of two: 8 passes a neuron for codes of 8 bits,
    10 for codes of 16, 10 for floats. A bit fails if its flip goes as far; so beyond a deviation that changes the
    answer all larger ones are taken to change it.
    """
    return _of_all(probes(model, forward, images), search, steps, batches=batches_of(images))


def batches_of(images: Tensor) -> int:
    """Return how many probes there are of ``images``."""
    return -(-len(images) // IMAGES_AT_ONCE)


def _of_all(probed: Iterator[Probe], ask: OfNeurons, steps: Steps, *, batches: int) -> Mapping[str, Found]:
    totals: dict[str, Tensor] = {}
    numbers: dict[str, Number] = {}
    images = 0
    for batch, probe in enumerate(probed):
        if not batch:
            parts_of = [-(-output.values[0].numel() // NEURONS_AT_ONCE) for output in probe.outputs.values()]
            steps.expect(batches * sum(parts_of))
        images += len(probe)
        for path, output in probe.outputs.items():
            everyone = torch.arange(output.values[0].numel(), device=output.values.device)
            parts = [
                steps.done(f"{batch} {path} {int(part[0])}", partial(_asked, ask, probe, path, part))
                for part in everyone.split(NEURONS_AT_ONCE)
            ]
            sums = torch.cat(parts).unflatten(0, output.values.shape[1:])
            numbers[path] = output.number
            totals[path] = totals[path] + sums if path in totals else sums
    means = {path: (total / images).cpu() for path, total in totals.items()}
    return {path: Found(numbers[path], Shares(*mean.unbind(-1))) for path, mean in means.items()}


def _asked(ask: OfNeurons, probe: Probe, path: str, neurons: Tensor) -> Tensor:
    return _sums(ask(probe, path, neurons)).cpu()


def _sums(strain: Tensor) -> Tensor:
    """Return over images the sums of answers changed and of strain, ``[k, bits, 2]``."""
    return torch.stack([(strain > 1).float().sum(1), strain.clamp(max=1).sum(1)], -1)


def flips(probe: Probe, path: str, neurons: Tensor) -> Tensor:
    """Return the strain of flipping each bit of each of ``neurons`` ``[k]``: ``[k, n, bits]``."""
    clean, number = probe.values(path)[neurons], probe.outputs[path].number
    places = neurons.unsqueeze(1).expand_as(clean)
    faulty = [flipped(clean, number, bit) for bit in range(number.bits)]
    strain = probe.strain(path, places.repeat(number.bits, 1), torch.cat(faulty))
    return torch.stack(strain.chunk(number.bits), -1)


def search(probe: Probe, path: str, neurons: Tensor) -> Tensor:
    """Return the strain of each flip as the searched deviations tell it: ``[k, n, bits]``."""
    clean, number = probe.values(path)[neurons], probe.outputs[path].number
    ask = partial(_deviated, probe, path, neurons, clean)
    grid = _grid(number, like=clean)
    up, down = (_halving(partial(ask, sign), grid, like=clean) for sign in (1.0, -1.0))
    moves = torch.stack([flipped(clean, number, bit) - clean for bit in range(number.bits)], -1)
    threshold = torch.where(moves > 0, up[0].unsqueeze(-1), down[0].unsqueeze(-1))
    slope = torch.where(moves > 0, up[1].unsqueeze(-1), down[1].unsqueeze(-1))
    size = moves.abs().nan_to_num(nan=math.inf)
    return torch.where(size >= threshold, 2.0, (size * slope).clamp(max=1))


def _grid(number: Number, *, like: Tensor) -> Tensor:
    """Return the deviations that are tried, ascending, and at the end one that no flip reaches."""
    if isinstance(number, FixedPoint):
        if isinstance(number.scale, tuple):
            raise ValueError("outputs have one scale")
        sizes = [number.scale * 2**bit for bit in range(number.bits)]
    else:
        sizes = [2.0**exponent for exponent in FLOAT_GRID]
    return like.new_tensor([*sizes, math.inf])


def _deviated(probe: Probe, path: str, neurons: Tensor, clean: Tensor, sign: float, size: Tensor) -> Tensor:
    return probe.strain(path, neurons.unsqueeze(1).expand_as(clean), clean + sign * size)


def _halving(ask: Callable[[Tensor], Tensor], grid: Tensor, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest of ``grid`` that fails, for each value of ``like``, and the largest strain a unit met."""
    low = torch.zeros_like(like, dtype=torch.int64)
    high = torch.full_like(low, len(grid) - 1)
    slope = torch.zeros_like(like)
    for _ in range(math.ceil(math.log2(len(grid)))):
        middle = (low + high) // 2
        size = grid[middle.clamp(max=len(grid) - 2)]
        strain = ask(size)
        slope = torch.maximum(slope, strain.clamp(max=1) / size)
        fails = (strain > 1) | (middle == len(grid) - 1)
        high = torch.where(fails, middle, high)
        low = torch.where(fails, low, middle + 1).minimum(high)
    return grid[high], slope
