"""The operators that a cell edge can hold, built of quantised layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.quantization import Activation, Blend, CleanBatchNorm2d, Quantization, QuantizedConv2d, Rectifier

Numbers = Quantization | Blend | None
Norm = Literal["none", "plain", "affine"]
Order = Literal["act-conv-bn", "conv-act-bn"]


@dataclass(frozen=True)
class Style:
    """How the layers of a net are built.

    ``norm``: batch norm with or without affine parameters (the supernet's have none, arXiv 2003.10375).
    ``pool_norm``: whether pooling is followed by batch norm (only in the supernet).
    ``choices``: the quantisations that a layer may be asked for. ``rectifier``: the activation.
    ``order``: of activation, convolution and batch norm.
    """

    norm: Norm = "affine"
    pool_norm: bool = False
    rectifier: Rectifier = Rectifier()  # noqa: RUF009 - frozen
    order: Order = "act-conv-bn"
    choices: Sequence[Quantization] = (Quantization(),)

    @property
    def outer(self) -> nn.Module:
        """The activation before a convolution: none where it comes after."""
        return Activation(self.rectifier) if self.order == "act-conv-bn" else nn.Identity()

    @property
    def inner(self) -> Rectifier | None:
        """The activation between a convolution and its batch norm, if it is there."""
        return self.rectifier if self.order == "conv-act-bn" else None


class ReluConv(nn.Module):
    """ReLU, convolution, batch norm: ``[N, C_in, H, W] -> [N, C_out, H/stride, W/stride]``."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, stride: int, style: Style) -> None:
        super().__init__()
        self.activation = style.outer
        self.conv = QuantizedConv2d(
            channels_in, channels_out, kernel,
            stride=stride, norm=style.norm, rectifier=style.inner, choices=style.choices,
        )  # fmt: skip

    def forward(self, x: Tensor, numbers: Numbers = None) -> Tensor:
        """Return the convolution of the rectified ``x`` in these ``numbers``."""
        out: Tensor = self.conv(self.activation(x), numbers)
        return out


class Separable(nn.Module):
    """ReLU, depthwise convolution (dilated or not), pointwise convolution, batch norm."""

    def __init__(self, channels: int, kernel: int, *, stride: int, dilation: int = 1, style: Style) -> None:
        super().__init__()
        self.activation = style.outer
        self.depthwise = QuantizedConv2d(
            channels, channels, kernel, stride=stride, dilation=dilation, groups=channels,
            norm="none", choices=style.choices,
        )  # fmt: skip
        self.pointwise = QuantizedConv2d(
            channels, channels, 1, norm=style.norm, rectifier=style.inner, choices=style.choices
        )

    def forward(self, x: Tensor, numbers: Numbers = None) -> Tensor:
        """Return both convolutions of the rectified ``x`` in these ``numbers``."""
        out: Tensor = self.pointwise(self.depthwise(self.activation(x), numbers), numbers)
        return out


class TwiceSeparable(nn.Module):
    """The separable convolution of DARTS: twice in a row, the stride in the first."""

    def __init__(self, channels: int, kernel: int, *, stride: int, style: Style) -> None:
        super().__init__()
        self.first = Separable(channels, kernel, stride=stride, style=style)
        self.second = Separable(channels, kernel, stride=1, style=style)

    def forward(self, x: Tensor, numbers: Numbers = None) -> Tensor:
        """Return both separable convolutions of ``x`` in these ``numbers``."""
        out: Tensor = self.second(self.first(x, numbers), numbers)
        return out


class FactorizedReduce(nn.Module):
    """ReLU and two half-width 1x1 convolutions at stride 2, the second one pixel further: halves the map."""

    def __init__(self, channels_in: int, channels_out: int, *, style: Style) -> None:
        super().__init__()
        half = channels_out // 2
        self.activation = style.outer
        self.even, self.odd = (
            QuantizedConv2d(
                channels_in, channels, 1, stride=2, norm=style.norm, rectifier=style.inner, choices=style.choices
            )
            for channels in (half, channels_out - half)
        )

    def forward(self, x: Tensor, numbers: Numbers = None) -> Tensor:
        """Return ``[N, C_out, ceil(H/2), ceil(W/2)]``."""
        x = self.activation(x)
        # The shift keeps the size of an odd map: a row and a column of zeros takes the place of the one cut off.
        shifted = F.pad(x[:, :, 1:, 1:], (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return torch.cat([self.even(x, numbers), self.odd(shifted, numbers)], dim=1)


class Pool(nn.Module):
    """3x3 pooling, followed by batch norm in the supernet so that its features are as large as a convolution's."""

    def __init__(self, channels: int, *, kind: Literal["max", "avg"], stride: int, style: Style) -> None:
        super().__init__()
        self.kind, self.stride = kind, stride
        self.norm = CleanBatchNorm2d(channels, affine=False) if style.pool_norm else None

    def forward(self, x: Tensor, numbers: Numbers = None) -> Tensor:
        """Return the pooled ``x``; the average leaves the padding out."""
        if self.kind == "max":
            y = F.max_pool2d(x, 3, self.stride, padding=1)
        else:
            y = F.avg_pool2d(x, 3, self.stride, padding=1, count_include_pad=False)
        return y if self.norm is None else self.norm(y)


class Skip(nn.Module):
    """The identity."""

    def forward(self, x: Tensor, numbers: Numbers = None) -> Tensor:
        """Return ``x`` itself."""
        return x


class BareConv(nn.Module):
    """A 1x1 convolution with bias, no ReLU, no batch norm."""

    def __init__(self, channels: int, *, stride: int, style: Style) -> None:
        super().__init__()
        self.conv = QuantizedConv2d(channels, channels, 1, stride=stride, norm="none", bias=True, choices=style.choices)

    def forward(self, x: Tensor, numbers: Numbers = None) -> Tensor:
        """Return the convolution of ``x`` in these ``numbers``."""
        out: Tensor = self.conv(x, numbers)
        return out


Builder = Callable[[int, int, Style], nn.Module]  # (channels, stride, style) -> module


def _skip(channels: int, stride: int, style: Style) -> nn.Module:
    return Skip() if stride == 1 else FactorizedReduce(channels, channels, style=style)


def _separable(kernel: int) -> Builder:
    return lambda channels, stride, style: TwiceSeparable(channels, kernel, stride=stride, style=style)


def _dilated(kernel: int) -> Builder:
    return lambda channels, stride, style: Separable(channels, kernel, stride=stride, dilation=2, style=style)


def _dense(kernel: int) -> Builder:
    return lambda channels, stride, style: ReluConv(channels, channels, kernel, stride=stride, style=style)


# ``none`` has no builder: an edge that adds nothing is left out of the sum.
BUILDERS: Mapping[str, Builder] = {
    "skip_connect": _skip,
    "max_pool_3x3": lambda channels, stride, style: Pool(channels, kind="max", stride=stride, style=style),
    "avg_pool_3x3": lambda channels, stride, style: Pool(channels, kind="avg", stride=stride, style=style),
    "sep_conv_3x3": _separable(3),
    "sep_conv_5x5": _separable(5),
    "dil_conv_3x3": _dilated(3),
    "dil_conv_5x5": _dilated(5),
    "relu_conv_bn_3x3": _dense(3),
    "relu_conv_bn_5x5": _dense(5),
    "conv_1x1": lambda channels, stride, style: BareConv(channels, stride=stride, style=style),
}
