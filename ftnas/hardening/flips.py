"""What a code becomes when one of its bits flips."""

from __future__ import annotations

import torch
from torch import Tensor

from ftnas.quantization import FixedPoint, Number


def flipped(values: Tensor, number: Number, bit: int) -> Tensor:
    """Return ``values``, which lie on the grid of ``number``, with ``bit`` of each code flipped; bit 0 is the lowest.

    The top bit of a signed code weighs negatively, so its flip moves the value by the whole half range.
    """
    if isinstance(number, FixedPoint):
        codes = number.encode(values)
        weight = -(1 << bit) if number.signed and bit == number.bits - 1 else 1 << bit
        set_now = codes.bitwise_right_shift(bit).bitwise_and_(1)
        return number.decode(codes + weight * (1 - 2 * set_now))
    mask = torch.tensor(1 << bit if bit < 31 else -(1 << 31), dtype=torch.int32, device=values.device)
    return number.decode(number.encode(values) ^ mask)
