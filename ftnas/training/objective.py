"""The fault-tolerant loss: what a net loses clean, mixed with what it loses under faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.faults import Fault, inject


@dataclass(frozen=True)
class Losses:
    """One step's loss, with the graph, and what it is made of, without.

    ``faulty`` is 0 where there was no faulty pass; ``logits`` ``[N, classes]`` are the clean pass's.
    """

    total: Tensor
    clean: Tensor
    faulty: Tensor
    logits: Tensor


@dataclass(frozen=True)
class FaultTolerantLoss:
    """``(1 - share) CE(clean) + share CE(faulty)`` (arXiv 2003.10375; ``share`` is its a_l).

    Running statistics (batch norm, feature ranges) are the clean pass's; the faulty pass, on the same images, updates
    nothing. With a share of 0, or no faults, there is no faulty pass.
    """

    faults: Sequence[Fault]
    share: float
    study: str

    def __call__(
        self, model: nn.Module, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, chip: int
    ) -> Losses:
        """Return the loss of ``forward``, which computes logits with ``model``, under the faults of ``chip``."""
        logits = forward(images)
        clean = F.cross_entropy(logits, labels)
        if not self.faults or self.share == 0:
            return Losses(clean, clean.detach(), torch.zeros_like(clean.detach()), logits.detach())
        with inject(model, self.faults, chip=chip, study=self.study):
            faulty = F.cross_entropy(forward(images), labels)
        total = (1 - self.share) * clean + self.share * faulty
        return Losses(total, clean.detach(), faulty.detach(), logits.detach())
