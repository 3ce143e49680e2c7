"""Flat minima: steps that go down from the worst point nearby (SAM, SAQ), and how sharp a minimum is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.quantization import CleanBatchNorm, QuantizedLayer, weighted_layers
from ftnas.runtime import evaluating
from ftnas.training.descent import Descent
from ftnas.training.loss import Forward, Losses, Step
from ftnas.training.schedules import Number, value_at
from ftnas.training.views import Shifting, Watching, seen_through

SMALL = 1e-12

Key = TypeVar("Key")


@dataclass(frozen=True)
class Radius:
    """How far the worst point nearby may be: an amount, or a share of the norm of all weights.

    An absolute radius does not carry over from one net, bit width or range to another; a relative one does better.
    """

    amount: Number
    is_relative: bool = False

    def at(self, time: float, model: nn.Module) -> float | Tensor:
        """Return the radius after the share ``time`` of the training of ``model``, as a tensor if it is a share."""
        amount = value_at(self.amount, time)
        if not amount or not self.is_relative:
            return amount
        return amount * _norm(layer.weight for layer in weighted_layers(model).values())


@dataclass(frozen=True)
class SAM:
    """The gradient at the worst point within the radius (Foret et al., arXiv 2010.01412).

    All parameters are moved before quantisation, where rounding swallows a part of it.
    """

    descent: Descent
    radius: Radius

    def gradient(self, model: nn.Module, forward: Forward, step: Step) -> Losses:
        """Put the gradient of ``step`` into the parameters' ``grad``."""
        radius = self.radius.at(step.time, model)
        if not isinstance(radius, Tensor) and not radius:
            return self.descent.gradient(model, forward, step)
        losses = self.descent.without_penalties().gradient(model, forward, step)
        with _moved(_moves(dict(_gradients(model)), radius)):
            _forget(model)
            self.descent.gradient(model, forward, step, view=Shifting({}))
        return losses


@dataclass(frozen=True)
class SAQ:
    """The gradient at the worst point within the radius, measured behind the quantiser.

    Weights are moved after they were rounded, and not rounded again, so that the integers stay what they are; biases,
    batch norm and the ends of feature ranges are moved too, all within one joint norm (in the spirit of arXiv
    2301.00675, which trains so; the technique is "Sharpness-aware Quantization", arXiv 2111.12273). The gradient
    reaches the weights straight through the quantiser.
    """

    descent: Descent
    radius: Radius

    def gradient(self, model: nn.Module, forward: Forward, step: Step) -> Losses:
        """Put the gradient of ``step`` into the parameters' ``grad``."""
        radius = self.radius.at(step.time, model)
        if not isinstance(radius, Tensor) and not radius:
            return self.descent.gradient(model, forward, step)
        watching = Watching()
        losses = self.descent.without_penalties().gradient(model, forward, step, view=watching)
        found: dict[Tensor | nn.Module, Tensor] = dict(watching.gradients().items())
        unquantised = _unquantised(model)
        found.update((parameter, gradient) for parameter, gradient in _gradients(model) if parameter in unquantised)
        moves = _moves(found, radius)
        shifts = {layer: move for layer, move in moves.items() if isinstance(layer, nn.Module)}
        with _moved({parameter: move for parameter, move in moves.items() if isinstance(parameter, Tensor)}):
            _forget(model)
            self.descent.gradient(model, forward, step, view=Shifting(shifts))
        return losses


def sharpness(model: nn.Module, images: Tensor, labels: Tensor, rho: float) -> float:
    """Return how much the loss grows at the worst point within ``rho`` of the quantised weights, to first order.

    ``L(W + rho g / |g|) - L(W)`` over ``images`` ``[N, ...]``, in evaluation mode; nothing of ``model`` is changed.
    """
    kept = {parameter: parameter.grad for parameter in model.parameters()}
    watching = Watching()
    try:
        with evaluating(model):
            with torch.enable_grad(), seen_through(watching, None):
                loss = F.cross_entropy(model(images), labels)
            loss.backward()
            moves = _moves(watching.gradients(), rho)
            with torch.no_grad(), seen_through(Shifting(moves), None):
                worst = F.cross_entropy(model(images), labels)
    finally:
        for parameter, gradient in kept.items():
            parameter.grad = gradient
    return float(worst) - float(loss.detach())


def _gradients(model: nn.Module) -> Iterator[tuple[nn.Parameter, Tensor]]:
    return ((parameter, parameter.grad) for parameter in model.parameters() if parameter.grad is not None)


def _unquantised(model: nn.Module) -> set[Tensor]:
    """Return the parameters that are moved as they are: biases, batch norm's, the ends of feature ranges."""
    found: set[Tensor] = set()
    for module in model.modules():
        if isinstance(module, CleanBatchNorm):
            found.update(module.parameters())
        if isinstance(module, QuantizedLayer):
            own = dict(module.named_parameters(recurse=False))
            found.update(parameter for name, parameter in own.items() if name in ("bias", "learned_feature_limit"))
    return found


def _moves(gradients: Mapping[Key, Tensor], radius: float | Tensor) -> dict[Key, Tensor]:
    """Return ``gradients`` scaled so that their joint norm is ``radius``."""
    scale = radius / (_norm(gradients.values()) + SMALL)
    return {key: (gradient * scale).detach() for key, gradient in gradients.items()}


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    norms = torch.stack([tensor.detach().norm() for tensor in tensors] or [torch.zeros(())])
    joint: Tensor = torch.linalg.vector_norm(norms)
    return joint


@contextmanager
def _moved(moves: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """Let parameters be elsewhere inside the block; afterwards they are what they were, to the bit."""
    before = {parameter: parameter.detach().clone() for parameter in moves}
    with torch.no_grad():
        for parameter, move in moves.items():
            parameter.add_(move)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in before.items():
                parameter.copy_(value)


def _forget(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None
