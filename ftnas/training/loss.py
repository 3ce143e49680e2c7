"""The fault-tolerant loss: what a net loses clean, mixed with what it loses under faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.distributed import sharing
from ftnas.faults import Chip, Fault, Injection
from ftnas.training.faults import AnyFault, faults_at
from ftnas.training.penalties import NO_PENALTIES, Penalties
from ftnas.training.schedules import Number, value_at
from ftnas.training.views import View, seen_through

Forward = Callable[[Tensor], Tensor]


class Step(NamedTuple):
    """What one step learns from.

    Attributes:
        images: ``[N, C, H, W]``: of the batch, or of this process's part of it.
        labels: ``[N]``.
        chip: number of the step, and so of the chip that it meets.
        time: the share of the training that is done.
    """

    images: Tensor
    labels: Tensor
    chip: int
    time: float = 1.0


@dataclass(frozen=True)
class Losses:
    """One step's loss, with the graph, and what it is made of, without.

    Terms of activations are in the gradients of ``total`` and not in its value (see ``penalties``).
    ``faulty`` is 0 where there was no faulty pass; ``logits`` ``[N, classes]`` are the clean pass's.
    """

    total: Tensor
    clean: Tensor
    faulty: Tensor
    logits: Tensor


@dataclass(frozen=True)
class FaultTolerantLoss:
    """``(1 - share) CE(clean) + share CE(faulty)``, and ``penalties`` (arXiv 2003.10375; ``share`` is its a_l).

    Running statistics (batch norm, feature ranges) are the clean pass's; the faulty pass, on the same images, updates
    nothing. With a share of 0, or no faults, there is no faulty pass.
    """

    faults: Sequence[AnyFault]
    share: Number
    study: str
    penalties: Penalties = NO_PENALTIES

    def __call__(self, model: nn.Module, forward: Forward, step: Step, *, view: View | None = None) -> Losses:
        """Return the loss of ``forward``, which computes logits with ``model``, as seen through ``view``."""
        with self.penalties.on_activations(model, step.time), seen_through(view, None):
            logits = forward(step.images)
        clean = F.cross_entropy(logits, step.labels)
        penalty = self.penalties.of_weights(model, step.time)
        share, faults = value_at(self.share, step.time), faults_at(self.faults, step.time)
        if share == 0 or not any(fault.rate for fault in faults):
            total = clean if penalty is None else clean + penalty
            return Losses(total, clean.detach(), torch.zeros_like(clean.detach()), logits.detach())
        faulty = faulty_loss(model, forward, step, faults, study=self.study, view=view)
        total = (1 - share) * clean + share * faulty
        total = total if penalty is None else total + penalty
        return Losses(total, clean.detach(), faulty.detach(), logits.detach())


def faulty_loss(
    model: nn.Module, forward: Forward, step: Step, faults: Sequence[Fault], *, study: str, view: View | None = None
) -> Tensor:
    """Return the cross-entropy under the faults of the step's chip.

    Where processes share the step, all meet the same chip, each with its own images of the batch: the weights are alike
    in all, and no process meets the feature faults of another's images.
    """
    chip, first = Chip(study, step.chip, tuple(faults)), sharing().first_image(len(step.images))
    injection = Injection(model, chip, first_image=first, gradient="masked", batch_begins=0)
    with seen_through(view, injection):
        return F.cross_entropy(forward(step.images), step.labels)
