"""The networks people would otherwise use, built of the same quantised layers (arXiv 2003.10375, code of 2019).

Every net takes a width multiplier, so that a comparison can be made at equal cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.errors import ConfigError
from ftnas.networks.cell_network import CellNetwork
from ftnas.quantization import Activation, Quantization, QuantizedConv2d, QuantizedLinear, QuantizedSum
from ftnas.space import Preprocess, SearchSpace, Sizes, w_ftt_net

ImageShape = tuple[int, int, int]


def scaled(channels: int, width: float) -> int:
    """Return ``channels`` times ``width``, at least two."""
    return max(2, round(channels * width))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: zero-padded channels (ResNet-20) or a 1x1 convolution (ResNet-18)."""

    def __init__(
        self, channels_in: int, channels_out: int, *, stride: int, projection: bool, numbers: Quantization
    ) -> None:
        super().__init__()
        self.stride, self.extra = stride, channels_out - channels_in
        self.first = QuantizedConv2d(channels_in, channels_out, 3, stride=stride, choices=(numbers,))
        self.second = QuantizedConv2d(channels_out, channels_out, 3, choices=(numbers,))
        self.shortcut = (
            QuantizedConv2d(channels_in, channels_out, 1, stride=stride, choices=(numbers,))
            if projection and (stride != 1 or channels_in != channels_out)
            else None
        )
        self.sum = QuantizedSum()
        self.inner, self.outer = Activation(), Activation()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, C_out, H/stride, W/stride]``."""
        y = self.second(self.inner(self.first(x)))
        out: Tensor = self.outer(self.sum([y, self._short(x)]))
        return out

    def _short(self, x: Tensor) -> Tensor:
        if self.shortcut is not None:
            projected: Tensor = self.shortcut(x)
            return projected
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class InvertedResidual(nn.Module):
    """MobileNet-V2's block: expand, depthwise, project; a sum where the size stays."""

    def __init__(
        self, channels_in: int, channels_out: int, *, expansion: int, stride: int, numbers: Quantization
    ) -> None:
        super().__init__()
        middle, choices = expansion * channels_in, (numbers,)
        self.expand = QuantizedConv2d(channels_in, middle, 1, choices=choices)
        self.depthwise = QuantizedConv2d(middle, middle, 3, stride=stride, groups=middle, choices=choices)
        self.project = QuantizedConv2d(middle, channels_out, 1, choices=choices)
        self.sum = QuantizedSum() if stride == 1 else None
        self.shortcut = (
            QuantizedConv2d(channels_in, channels_out, 1, choices=choices)
            if stride == 1 and channels_in != channels_out
            else None
        )
        self.expanded, self.filtered = Activation(), Activation()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, C_out, H/stride, W/stride]``."""
        y: Tensor = self.project(self.filtered(self.depthwise(self.expanded(self.expand(x)))))
        if self.sum is None:
            return y
        total: Tensor = self.sum([y, x if self.shortcut is None else self.shortcut(x)])
        return total


class Rectified(nn.Module):
    """A convolution with batch norm, then ReLU."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, numbers: Quantization, *, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv = QuantizedConv2d(channels_in, channels_out, kernel, bias=bias, choices=(numbers,))
        self.activation = Activation()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, C_out, H, W]``."""
        out: Tensor = self.activation(self.conv(x))
        return out


class Halve(nn.Module):
    """2x2 max pooling that leaves a map of one pixel as it is, so that small images go through deep nets."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, C, ceil(H/2), ceil(W/2)]``."""
        return F.max_pool2d(x, 2, ceil_mode=True) if min(x.shape[2:]) > 1 else x


class Classifier(nn.Module):
    """A stack of layers, global average pool, linear classifier: ``[N, C, H, W] -> [N, classes]``."""

    def __init__(self, layers: list[nn.Module], channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.pooled = QuantizedSum()
        self.classifier = QuantizedLinear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.classifier(self.pooled([self.layers(x).mean(dim=(2, 3))]))
        return logits


def _resnet(widths: list[int], blocks: int, *, projection: bool) -> Builder:
    def build(width: float, image_shape: ImageShape, classes: int, numbers: Quantization) -> nn.Module:
        channels = scaled(widths[0], width)
        layers: list[nn.Module] = [Rectified(image_shape[0], channels, 3, numbers)]
        for stage, base in enumerate(widths):
            # Doubling from the scaled first width keeps the zero-padded shortcut exact at any multiplier.
            wider = channels if stage == 0 else scaled(widths[0], width) * (base // widths[0])
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(ResidualBlock(channels, wider, stride=stride, projection=projection, numbers=numbers))
                channels = wider
        return Classifier(layers, channels, classes)

    return build


def _vgg16(width: float, image_shape: ImageShape, classes: int, numbers: Quantization) -> nn.Module:
    layers: list[nn.Module] = []
    channels = image_shape[0]
    for base in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if not base:
            layers.append(Halve())
            continue
        # The published 14.73M parameters count a bias in every convolution but the first, batch norm or not.
        layers.append(Rectified(channels, scaled(base, width), 3, numbers, bias=bool(layers)))
        channels = scaled(base, width)
    return Classifier(layers, channels, classes)


# (expansion, channels, blocks, stride of the first block)
MOBILENET_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def _mobilenet_v2(width: float, image_shape: ImageShape, classes: int, numbers: Quantization) -> nn.Module:
    channels = scaled(32, width)
    layers: list[nn.Module] = [Rectified(image_shape[0], channels, 3, numbers)]
    for expansion, base, blocks, stride in MOBILENET_STAGES:
        for block in range(blocks):
            out = scaled(base, width)
            first = stride if block == 0 else 1
            layers.append(InvertedResidual(channels, out, expansion=expansion, stride=first, numbers=numbers))
            channels = out
    last = scaled(1280, width)
    return Classifier([*layers, Rectified(channels, last, 1, numbers)], last, classes)


def _w_ftt_net(channels: int) -> Builder:
    def build(width: float, image_shape: ImageShape, classes: int, numbers: Quantization) -> nn.Module:
        sizes = Sizes(channels=scaled(channels, width), cells=8, reductions=(2, 5))
        genotype = w_ftt_net().with_numbers(numbers)
        edges = [e for cell in (genotype.normal, genotype.reduction) for node in cell for e in node]
        space = SearchSpace(
            name="w_ftt_net",
            operators=tuple(dict.fromkeys(e.operator for e in edges)),
            quantization=(numbers,),
            preprocess=Preprocess(operator="relu_conv_bn_3x3", affine=False),
            search=sizes,
            final=sizes,
        )
        return CellNetwork(space, sizes, image_shape=image_shape, classes=classes, genotype=genotype)

    return build


# (width multiplier, image shape, classes, numbers of the convolutions) -> net
Builder = Callable[[float, ImageShape, int, Quantization], nn.Module]

BASELINES: Mapping[str, Builder] = {
    "resnet20": _resnet([16, 32, 64], 3, projection=False),
    "resnet18": _resnet([64, 128, 256, 512], 2, projection=True),
    "vgg16": _vgg16,
    "mobilenet_v2": _mobilenet_v2,
    "w_ftt_net_20": _w_ftt_net(20),
    "w_ftt_net_40": _w_ftt_net(40),
}


def build_baseline(
    name: str,
    *,
    width: float = 1.0,
    image_shape: ImageShape,
    classes: int,
    numbers: Quantization | None = None,
) -> nn.Module:
    """Return the baseline ``name`` at ``width`` times its own channels.

    Args:
        numbers: quantisation of every convolution (of every edge of W-FTT-Net); by default 8 bits and power-of-two
            ranges, as published, which sums and classifier always have.

    Raises:
        ConfigError: there is no baseline of that name.
    """
    if name not in BASELINES:
        raise ConfigError(f"unknown baseline {name!r}; choose from {', '.join(BASELINES)}")
    return BASELINES[name](width, image_shape, classes, numbers or Quantization())
