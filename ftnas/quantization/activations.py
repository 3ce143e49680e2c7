"""Activations: rectified, bounded from above, or silent below a threshold."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

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
    """A rectifier as a module, without parameters: so that it can be found, watched and replaced."""

    def __init__(self, rectifier: Rectifier | None = None) -> None:
        super().__init__()
        self.rectifier = rectifier or Rectifier()

    def forward(self, x: Tensor) -> Tensor:
        """Return the rectified ``x``."""
        limit, threshold = self.rectifier.limit, self.rectifier.threshold
        y = torch.relu(x) if math.isinf(limit) else torch.clamp(x, 0.0, limit)
        return y * (y >= threshold) if threshold else y

    def extra_repr(self) -> str:
        """Return what a print of the model says."""
        return str(self.rectifier)
