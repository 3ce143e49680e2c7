"""The plainest objective: the gradient of the loss, as it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import nn

from ftnas.distributed import average_
from ftnas.training.loss import FaultTolerantLoss, Forward, Losses, Step
from ftnas.training.penalties import NO_PENALTIES
from ftnas.training.views import View


@dataclass(frozen=True)
class Descent:
    """Quantisation-aware training; where the loss has faults, fault-tolerant training (arXiv 2003.10375)."""

    loss: FaultTolerantLoss

    def without_penalties(self) -> Descent:
        """Return the same, of the cross-entropies alone."""
        return replace(self, loss=replace(self.loss, penalties=NO_PENALTIES))

    def gradient(self, model: nn.Module, forward: Forward, step: Step, *, view: View | None = None) -> Losses:
        """Put the gradient of ``step``, the weights seen through ``view``, into the parameters' ``grad``."""
        losses = self.loss(model, forward, step, view=view)
        losses.total.backward()
        average_gradients_(model.parameters())
        return losses


def average_gradients_(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients that ``parameters`` have by their means over the processes that share the step."""
    average_([parameter.grad for parameter in parameters if parameter.grad is not None])
