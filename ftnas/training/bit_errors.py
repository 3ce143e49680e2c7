"""Steps under bit errors: random ones (RandBET), and the worst ones (in the spirit of adversarial bit errors)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.distributed import average_
from ftnas.faults import Fault
from ftnas.quantization import FixedPoint, QuantizedLayer, quantized_layers
from ftnas.training.descent import Descent, average_gradients_
from ftnas.training.faults import faults_at
from ftnas.training.loss import Forward, Losses, Step, faulty_loss
from ftnas.training.views import Shifting, Watching, seen_through


@dataclass(frozen=True)
class RandBET:
    """The mean of the gradients without and with random bit errors (Stutz et al., arXiv 2006.13977, section 4.3).

    Errors come only where the clean loss is below ``gate``, so that a net first learns something. The norm of each
    gradient is clipped at ``clip`` before the mean is taken, since that of a badly hit net can be of any size.
    """

    descent: Descent
    gate: float
    clip: float

    def gradient(self, model: nn.Module, forward: Forward, step: Step) -> Losses:
        """Put the gradient of ``step`` into the parameters' ``grad``."""
        losses = self.descent.gradient(model, forward, step)
        faults = [fault for fault in faults_at(self.descent.loss.faults, step.time) if fault.rate]
        if not faults or is_shut(losses, self.gate):
            return losses
        with averaged_gradients(model, clip=self.clip):
            faulty = faulty_loss(model, forward, step, faults, study=self.descent.loss.study)
            faulty.backward()
            average_gradients_(model.parameters())
        return _with_faulty(losses, faulty)


@dataclass(frozen=True)
class WorstBits:
    """The mean of the gradients without and with the bit flips that do most harm, to first order.

    As many flips as a chip has on average at the rate of the fault, each of another weight, are chosen by what the
    gradient says of the loss after them (in the spirit of Stutz et al., arXiv 2104.08323, section 5, whose attack takes
    several steps).
    """

    descent: Descent
    gate: float
    clip: float

    def gradient(self, model: nn.Module, forward: Forward, step: Step) -> Losses:
        """Put the gradient of ``step`` into the parameters' ``grad``."""
        watching = Watching()
        losses = self.descent.gradient(model, forward, step, view=watching)
        (flips,) = faults_at(self.descent.loss.faults, step.time)
        if not flips.rate or is_shut(losses, self.gate):
            return losses
        shifts = worst_flips(model, watching.gradients(), flips)
        with averaged_gradients(model, clip=self.clip):
            with seen_through(Shifting(shifts), None):
                faulty = F.cross_entropy(forward(step.images), step.labels)
            faulty.backward()
            average_gradients_(model.parameters())
        return _with_faulty(losses, faulty)


def is_shut(losses: Losses, gate: float) -> bool:
    """Return whether the clean loss, the mean over processes, is not below ``gate`` yet.

    It decides whether there is a second pass, so here the host waits for the device, once a step.
    """
    clean = losses.clean.clone()
    average_([clean])
    return float(clean) >= gate


@contextmanager
def averaged_gradients(model: nn.Module, *, clip: float) -> Iterator[None]:
    """Let gradients begin anew in the block; after it they are the mean of those before and those of the block.

    Each of the two is clipped to the norm ``clip`` first.
    """
    parameters = list(model.parameters())
    torch.nn.utils.clip_grad_norm_(parameters, clip)
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    yield
    torch.nn.utils.clip_grad_norm_(parameters, clip)
    for parameter, earlier in zip(parameters, before, strict=True):
        if earlier is not None:
            parameter.grad = (earlier if parameter.grad is None else earlier + parameter.grad) / 2
        elif parameter.grad is not None:
            parameter.grad /= 2


@torch.no_grad()
def worst_flips(model: nn.Module, gradients: Mapping[nn.Module, Tensor], flips: Fault) -> dict[nn.Module, Tensor]:
    """Return by how much the worst flips of weight bits move each layer's weight.

    Of each weight the bit whose flip raises the loss most, g (w' - w), counts; of all weights the worst are flipped.
    """
    found = list(_best_flips(model, gradients))
    harm = torch.cat([gain.flatten() for _, gain, _, _ in found])
    bits = sum(gain.numel() * width for _, gain, _, width in found)
    count = min(round(flips.rate * bits), int((harm > 0).sum()))
    if not count:
        return {}
    least = harm.topk(count).values[-1]
    return {layer: torch.where(gain >= least, move, torch.zeros_like(move)) for layer, gain, move, _ in found}


def _best_flips(
    model: nn.Module, gradients: Mapping[nn.Module, Tensor]
) -> Iterator[tuple[nn.Module, Tensor, Tensor, int]]:
    """Yield each layer, and for each weight the gain of its worst flip and what that adds; and its bits."""
    for layer in quantized_layers(model).values():
        gradient = gradients.get(layer)
        number = layer.weight_number(layer.weight) if gradient is not None else None
        if gradient is None or not isinstance(number, FixedPoint):
            continue
        moves = _moves_of_bits(layer, number)
        gain, bit = (gradient * moves).max(0)
        yield layer, gain, moves.gather(0, bit[None])[0], number.bits


def _moves_of_bits(layer: QuantizedLayer, number: FixedPoint) -> Tensor:
    """Return what the flip of each bit adds to each weight ``[bits, *shape]``."""
    codes = number.encode(layer.weight)
    worths = [1 << bit for bit in range(number.bits)]
    worths[-1] *= -1 if number.signed else 1
    moves = [(1 - 2 * (codes >> bit & 1)) * worth for bit, worth in enumerate(worths)]
    return torch.stack(moves).float() * number.scale_of(layer.weight)


def _with_faulty(losses: Losses, faulty: Tensor) -> Losses:
    mean = (losses.total.detach() + faulty.detach()) / 2
    return Losses(mean, losses.clean, faulty.detach(), losses.logits)
