"""The quantised layers: convolution, linear layer and sum; what they have in common is in ``quantized_layer``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.quantization.activations import Activation, Rectifier
from ftnas.quantization.choices import Quantization
from ftnas.quantization.normalisation import CleanBatchNorm2d
from ftnas.quantization.quantized_layer import Blend, QuantizedLayer
from ftnas.quantization.taps import skipped


class QuantizedConv2d(QuantizedLayer):
    """A convolution ``[N, C_in, H, W] -> [N, C_out, H', W']``, optionally with batch norm before the output's grid.

    Batch norm counts as part of the layer because hardware folds it: the value that is stored, and may be faulty,
    is the normalised one. With a ``rectifier`` the order is convolution, activation, batch norm (arXiv 2205.14420),
    so that a large fault is cut off before it is normalised.
    """

    kind = "conv"

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: Literal["none", "plain", "affine"] = "affine",
        bias: bool = False,
        rectifier: Rectifier | None = None,
        choices: Sequence[Quantization] = (Quantization(),),
    ) -> None:
        super().__init__(choices, has_weight=True)
        convolution = nn.Conv2d(channels_in, channels_out, kernel, groups=groups, bias=bias)
        self.weight, self.bias = convolution.weight, convolution.bias
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.padding = dilation * (kernel - 1) // 2
        self.activation = None if rectifier is None else Activation(rectifier)
        self.norm = CleanBatchNorm2d(channels_out, affine=norm == "affine") if norm != "none" else None

    def forward(self, x: Tensor, quantization: Quantization | Blend | None = None) -> Tensor:
        """Return the quantised, normalised convolution of ``x``; ``quantization`` replaces the layer's own."""
        if (known := skipped(self)) is not None:
            return known
        choice = quantization or self.quantization
        return self.quantized_output(self.product(x, self.quantized_weight(self.weight, choice)), choice)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the normalised convolution of ``x`` with ``weight``, not on a grid."""
        y = self.operate(x, weight, self.bias, self.groups)
        y = y if self.activation is None else self.activation(y)
        y = y if self.norm is None else self.norm(y)
        return y if self.storage is None else self.storage.product(y, self)

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        """Return the convolution of ``x`` with any ``weight`` of the layer's geometry, not normalised."""
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)


class QuantizedLinear(QuantizedLayer):
    """A linear layer ``[N, C_in] -> [N, C_out]`` with bias; the bias stays wide, as accumulators are."""

    kind = "linear"

    def __init__(
        self, channels_in: int, channels_out: int, *, choices: Sequence[Quantization] = (Quantization(),)
    ) -> None:
        super().__init__(choices, has_weight=True)
        linear = nn.Linear(channels_in, channels_out)
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor, quantization: Quantization | Blend | None = None) -> Tensor:
        """Return the quantised product; ``quantization`` replaces the layer's own."""
        if (known := skipped(self)) is not None:
            return known
        choice = quantization or self.quantization
        return self.quantized_output(self.product(x, self.quantized_weight(self.weight, choice)), choice)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the product of ``x`` with ``weight``, not on a grid."""
        y = self.operate(x, weight, self.bias)
        return y if self.storage is None else self.storage.product(y, self)

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Tensor:
        """Return the product of ``x`` with any ``weight``; ``groups`` is 1."""
        return F.linear(x, weight, bias)


class QuantizedSum(QuantizedLayer):
    """The sum of several feature maps, put on a grid of its own: what the next layer reads is 8 bits wide again."""

    def __init__(self, *, choices: Sequence[Quantization] = (Quantization(),)) -> None:
        super().__init__(choices, has_weight=False)

    def forward(self, terms: Sequence[Tensor]) -> Tensor:
        """Return the quantised sum of ``terms`` (one or more, all of one shape); no term is changed."""
        if (known := skipped(self)) is not None:
            return known
        return self.quantized_output(self.total(terms), self.quantization)

    def total(self, terms: Sequence[Tensor]) -> Tensor:
        """Return the sum of ``terms`` as a new tensor, not on a grid."""
        total = terms[0].clone() if len(terms) == 1 else terms[0] + terms[1]
        for term in terms[2:]:
            total = total + term
        return total
