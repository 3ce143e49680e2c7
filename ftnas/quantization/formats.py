"""Number formats: fixed point, whose codes are true two's complement integers, and IEEE words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Reals = NDArray[np.float32]
Words = NDArray[np.int32]
Integers = NDArray[np.int64]
Word = Literal["float32", "bfloat16", "float16"]

_TYPES: Mapping[Word, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """``bits`` wide codes times ``scale``.

    Signed codes lie in ``[-2^(bits-1), 2^(bits-1) - 1]``, unsigned ones in ``[0, 2^bits - 1]``. A tuple of scales
    holds one for each index of a tensor's dimension 0, the output channels of a weight. A tensor, ``[]`` or ``[C]``, is
    a scale that the host does not know, in a training step on a GPU.
    """

    bits: int
    scale: float | tuple[float, ...] | Tensor
    signed: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError(f"bits must be 2..16, got {self.bits}")
        if isinstance(self.scale, Tensor):
            return  # to look at it would be to wait for the device
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if not scales:
            raise ValueError("a scale per channel must be one positive number for each channel, got none")
        if not all(scale > 0 for scale in scales):
            raise ValueError(f"scale must be positive, got {self.scale}")

    @property
    def low(self) -> int:
        """The smallest code."""
        return -(1 << self.bits - 1) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest code."""
        return (1 << self.bits - 1) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def per_channel(self) -> bool:
        """Whether each index of dimension 0 has a scale of its own."""
        return isinstance(self.scale, tuple) or (isinstance(self.scale, Tensor) and self.scale.dim() > 0)

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value, of the widest channel where there are several scales."""
        scale = max(self.scale) if isinstance(self.scale, tuple) else float(self.scale)
        return self.low * scale, self.high * scale

    @property
    def reach(self) -> float | Tensor:
        """The largest magnitude of a value."""
        if isinstance(self.scale, Tensor):
            return self.scale.amax() * max(-self.low, self.high)
        return max(abs(end) for end in self.ends)

    def __str__(self) -> str:
        name = f"{'int' if self.signed else 'uint'}{self.bits}"
        if isinstance(self.scale, Tensor):
            return f"{name}, scale on the device"
        return f"{name}, {len(self.scale)} scales" if isinstance(self.scale, tuple) else f"{name} * {self.scale:.4g}"

    def scale_of(self, x: Tensor) -> float | Tensor:
        """Return the scale, shaped to divide ``x`` by: a float, or ``[C, 1, ...]`` for ``x`` ``[C, ...]``."""
        scale = self.scale
        if isinstance(scale, float | int) or (isinstance(scale, Tensor) and not scale.dim()):
            return scale
        if not x.dim() or len(scale) != x.shape[0]:
            raise ValueError(f"{len(scale)} scales do not fit a tensor of shape {tuple(x.shape)}")
        return self._scales(x).view(-1, *[1] * (x.dim() - 1))

    def encode(self, x: Tensor, channel: Tensor | None = None) -> Tensor:
        """Return the int32 codes of ``x``: clamped to the range first, then rounded half to even.

        Args:
            x: values of a whole tensor, or some of them ``[k]``.
            channel: ``[k]``, the index in dimension 0 of each value, where ``x`` are some of them.
        """
        return (x / self._scale_for(x, channel)).clamp(self.low, self.high).round().to(torch.int32)

    def decode(self, codes: Tensor, channel: Tensor | None = None) -> Tensor:
        """Return the values of ``codes`` as float32; ``channel`` as for ``encode``."""
        return codes.to(torch.float32) * self._scale_for(codes, channel)

    def _scale_for(self, x: Tensor, channel: Tensor | None) -> float | Tensor:
        return self.scale_of(x) if channel is None or not self.per_channel else self._scales(x)[channel]

    def _scales(self, x: Tensor) -> Tensor:
        """Return the scales of all channels ``[C]`` where ``x`` is."""
        return self.scale if isinstance(self.scale, Tensor) else torch.tensor(self.scale, device=x.device)

    def encode_at(self, values: Reals, channel: Integers | None = None) -> Words:
        """Return the int32 codes of ``values`` ``[k]``; ``channel`` ``[k]`` is the index of each in dimension 0."""
        # In place, and by ufuncs alone: ``clip`` takes as long to begin as all of this. The NaN of a diverged net has
        # no code; it gets the lowest.
        steps = values / self._scale_at(channel)
        np.fmax(steps, self.low, out=steps)
        np.minimum(steps, self.high, out=steps)
        codes: Words = np.rint(steps, out=steps).astype(np.int32)
        return codes

    def decode_at(self, codes: Words, channel: Integers | None = None) -> Reals:
        """Return the values of ``codes`` ``[k]``, as float32; ``channel`` as for ``encode_at``."""
        values: Reals = codes.astype(np.float32) * self._scale_at(channel)
        return values

    def _scale_at(self, channel: Integers | None) -> float | Reals:
        if isinstance(self.scale, Tensor):
            raise TypeError("a scale that is on the device is for tensors, not for arrays")
        if not isinstance(self.scale, tuple):
            return self.scale
        if channel is None:
            raise ValueError("a format with a scale per channel needs the channel of each value")
        scales: Reals = np.array(self.scale, np.float32)[channel]
        return scales


@dataclass(frozen=True, slots=True)
class FloatWord:
    """An IEEE word: the code is its bit pattern, not extended by the sign, bit 0 the lowest of the fraction.

    A 16-bit word's code is 0..65535; that of a float32 is the int32 with its 32 bits. What a narrow word cannot hold
    becomes infinite, as in hardware. A NaN comes back from its code as a NaN, not always the same one.
    """

    word: Word

    def __post_init__(self) -> None:
        if self.word not in get_args(Word):
            raise ValueError(f"unknown word {self.word!r}; choose from {', '.join(get_args(Word))}")

    @property
    def bits(self) -> int:
        """Width of the word."""
        return 32 if self.word == "float32" else 16

    def __str__(self) -> str:
        return self.word

    @property
    def dtype(self) -> torch.dtype:
        """The word as torch names it."""
        return _TYPES[self.word]

    @property
    def signed(self) -> bool:
        """Whether the code's top bit weighs negatively: never, it is a sign of its own."""
        return False

    @property
    def per_channel(self) -> bool:
        """Whether each index of dimension 0 has a scale of its own: never."""
        return False

    def encode(self, x: Tensor, channel: Tensor | None = None) -> Tensor:
        """Return the int32 bit patterns of ``x``, rounded to the word half to even; the channel does not matter."""
        if self.bits == 32:
            return x.to(torch.float32).view(torch.int32)
        return x.to(self.dtype).view(torch.int16).to(torch.int32) & 0xFFFF

    def decode(self, codes: Tensor, channel: Tensor | None = None) -> Tensor:
        """Return the values of the bit patterns ``codes`` as float32; the channel does not matter."""
        if self.bits == 32:
            return codes.to(torch.int32).view(torch.float32)
        return codes.to(torch.int16).view(self.dtype).to(torch.float32)

    def encode_at(self, values: Reals, channel: Integers | None = None) -> Words:
        """Return the int32 bit patterns of ``values`` ``[k]``; the channel does not matter."""
        words: Words = self.encode(torch.from_numpy(values)).numpy()
        return words

    def decode_at(self, codes: Words, channel: Integers | None = None) -> Reals:
        """Return the values of ``codes`` ``[k]`` as float32; the channel does not matter."""
        values: Reals = self.decode(torch.from_numpy(codes)).numpy()
        return values


Number: TypeAlias = FixedPoint | FloatWord
