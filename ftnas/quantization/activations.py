"""Activations: rectified, bounded from above, or silent below a threshold."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_NUMBER = re.compile(r"(clipped|fatrelu)\(([0-9.eE+-]+)\)")
RECTIFIERS = ("relu", "relu6", "clipped(LIMIT)", "fatrelu(THRESHOLD)")


@dataclass(frozen=True, slots=True)
class Rectifier:
    """``x`` where ``threshold <= x``, else 0, and no more than ``limit``.

    A limit bounds what one fault can do (ReLU6 in arXiv 2205.14420); a threshold above 0 leaves fewer values that are
    not 0 (FATReLU, Kurtz et al., ICML 2020).
    """

    limit: float = math.inf
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < self.limit or not math.isfinite(self.threshold):
            raise ValueError(f"an activation needs 0 <= threshold < limit, got {self.threshold} and {self.limit}")

    @classmethod
    def parse(cls, text: str) -> Rectifier:
        """Read ``relu``, ``relu6``, ``clipped(2)`` or ``fatrelu(0.1)``."""
        if text in ("relu", "relu6"):
            return cls() if text == "relu" else cls(6.0)
        found = _NUMBER.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"unknown activation {text!r}; choose from {', '.join(RECTIFIERS)}")
        number = float(found.group(2))
        return cls(limit=number) if found.group(1) == "clipped" else cls(threshold=number)

    def __str__(self) -> str:
        if self.threshold:
            return f"fatrelu({self.threshold:g})"
        if math.isinf(self.limit):
            return "relu"
        return "relu6" if self.limit == 6 else f"clipped({self.limit:g})"


class Activation(nn.Module):
    """A rectifier as a module, without parameters: so that it can be found, watched and replaced.

    Attributes:
        term: for the passes of a training step, what the outputs add to the loss; else ``None``.
    """

    def __init__(self, rectifier: Rectifier | None = None) -> None:
        super().__init__()
        self.rectifier = rectifier or Rectifier()
        self.term: Term | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the rectified ``x``."""
        if self.term is not None:
            return rectified_with(self.term, x, self.rectifier)
        return rectified(x, self.rectifier)

    def extra_repr(self) -> str:
        """Return what a print of the model says."""
        return str(self.rectifier)


class Term(Protocol):
    """What the outputs of an activation add to the loss."""

    def gradient(self, y: Tensor) -> tuple[Tensor, int]:
        """Return the gradient of the term by the first ``n`` images of ``y`` ``[N, ...]``, and ``n``."""


def rectified(x: Tensor, rectifier: Rectifier) -> Tensor:
    """Return the rectified ``x``."""
    y = torch.relu(x) if math.isinf(rectifier.limit) else torch.clamp(x, 0.0, rectifier.limit)
    return y * (y >= rectifier.threshold) if rectifier.threshold else y


def rectified_with(term: Term, x: Tensor, rectifier: Rectifier) -> Tensor:
    """Return the rectified ``x``, the gradient of ``term`` added on the way back.

    Written as a function of its own, since a term of all activations by autograd takes 40 % of a training step.
    """
    y: Tensor = _RectifiedWith.apply(x, rectifier, term)  # type: ignore[no-untyped-call]
    return y


class _RectifiedWith(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rectifier: Rectifier, term: Term) -> Tensor:
        y = rectified(x, rectifier)
        ctx.save_for_backward(y)
        ctx.rectifier, ctx.term = rectifier, term
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        passed = torch.ops.aten.threshold_backward(gradients[0], y, 0)
        own, images = ctx.term.gradient(y)
        passed[:images].add_(torch.ops.aten.threshold_backward(own, y[:images], 0))
        if math.isfinite(ctx.rectifier.limit):
            passed.mul_(y < ctx.rectifier.limit)
        return passed, None, None
