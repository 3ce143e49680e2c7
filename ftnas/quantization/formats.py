"""Fixed-point number formats: codes are true two's complement integers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """``bits`` wide codes times ``scale``.

    Signed codes lie in ``[-2^(bits-1), 2^(bits-1) - 1]``, unsigned ones in ``[0, 2^bits - 1]``.
    """

    bits: int
    scale: float
    signed: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError(f"bits must be 2..16, got {self.bits}")
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")

    @property
    def low(self) -> int:
        """The smallest code."""
        return -(1 << self.bits - 1) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest code."""
        return (1 << self.bits - 1) - 1 if self.signed else (1 << self.bits) - 1

    def encode(self, x: Tensor) -> Tensor:
        """Return the int32 codes of ``x``: clamped to the range first, then rounded half to even."""
        return (x / self.scale).clamp(self.low, self.high).round().to(torch.int32)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values of ``codes`` as float32."""
        return codes.to(torch.float32) * self.scale
