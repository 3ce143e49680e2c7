"""Other looks at the quantised weights of a net in training: watched for their gradients, or shifted off their grid."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from ftnas.distributed import average_
from ftnas.quantization import Number, Tap, tapped

Shifts = Mapping[nn.Module, Tensor]


class View(Protocol):
    """What a forward pass sees instead of the plain quantised weights."""

    def tap(self, inner: Tap | None) -> Tap:
        """Return a tap that does this and what ``inner`` does."""


def seen_through(view: View | None, faults: Tap | None) -> AbstractContextManager[None]:
    """Let the forward passes of a block see the weights through ``view`` and under ``faults``."""
    tap = faults if view is None else view.tap(faults)
    return nullcontext() if tap is None else tapped(tap)


class Watching:
    """Keeps the quantised weights of the passes it sees, whose gradients a backward pass then fills in."""

    def __init__(self) -> None:
        self._seen: dict[nn.Module, list[Tensor]] = {}

    def tap(self, inner: Tap | None) -> Tap:
        """Return a tap that keeps each weight as it is before faults."""
        return _Watch(self._seen, inner)

    def gradients(self) -> dict[nn.Module, Tensor]:
        """Return the gradient of each layer's quantised weight, summed over the passes, the mean over processes."""
        found: dict[nn.Module, Tensor] = {}
        for layer, weights in self._seen.items():
            parts = [weight.grad for weight in weights if weight.grad is not None]
            if parts:
                found[layer] = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        average_(list(found.values()))
        return found


class Shifting:
    """Adds a constant to quantised weights, after faults and never rounded again; nothing else is changed."""

    def __init__(self, shifts: Shifts) -> None:
        self._shifts = shifts

    def tap(self, inner: Tap | None) -> Tap:
        """Return a tap that shifts each weight that has a shift."""
        return _Shift(self._shifts, inner)


class _Around:
    def __init__(self, inner: Tap | None) -> None:
        self._inner = inner

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        return weight if self._inner is None else self._inner.weight(layer, weight, number)

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> None:
        if self._inner is not None:
            self._inner.output(layer, features, number)


class _Watch(_Around):
    def __init__(self, seen: dict[nn.Module, list[Tensor]], inner: Tap | None) -> None:
        super().__init__(inner)
        self._seen = seen
        self.observes = inner is None  # it changes nothing, so the pass is as clean as without it

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        if weight.requires_grad:
            weight.retain_grad()
            self._seen.setdefault(layer, []).append(weight)
        return super().weight(layer, weight, number)


class _Shift(_Around):
    def __init__(self, shifts: Shifts, inner: Tap | None) -> None:
        super().__init__(inner)
        self._shifts = shifts

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        found = super().weight(layer, weight, number)
        shift = self._shifts.get(layer)
        return found if shift is None else found + shift
