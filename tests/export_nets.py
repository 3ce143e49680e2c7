"""Quantised nets to be exported: every operation between layers, a user's ResNet, nets of the package's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.export.graph import Graph
from ftnas.export.tracing import graph_of
from ftnas.faults import quantize
from ftnas.networks import build_baseline
from ftnas.quantization import Quantization, QuantizedConv2d, QuantizedLinear
from ftnas.runtime import seeded

Operation = Callable[[Tensor], Tensor]
SHAPE = (2, 7, 6)


def pixels(count: int, *shape: int) -> Tensor:
    """Return images of 17 levels, which 16 bits hold exactly, as those of the digits."""
    return (torch.randint(0, 17, (count, *shape)) - 6) / 8


class Between(nn.Module):
    """A convolution, an operation on its ``[N, 4, 7, 6]``, a linear layer: ``[N, 2, 7, 6] -> [N, 5]``."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.first = QuantizedConv2d(2, 4, 3)
        self.operation = operation
        size = operation(torch.zeros(1, 4, *SHAPE[1:])).numel()
        self.last = QuantizedLinear(size, 5, choices=(Quantization(feature_bits=12),))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.operation(self.first(x)).flatten(1))
        return logits


def _parts(x: Tensor) -> Tensor:
    small, large = x.split([1, 3], 1)
    left, right = torch.cat([large, small], 1).chunk(2, dim=3)
    return torch.cat([left, 2 * right], 2)


OPERATIONS: Mapping[str, Operation] = {
    "nothing": lambda x: x,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.7),
    "clamps": lambda x: x.clamp(min=-0.5).clamp_max(0.75).clamp(torch.tensor(-0.25).item(), 0.5),
    "sum in place": lambda x: F.relu(x).clone().add_(x),
    "difference": lambda x: F.relu(x) - 0.3 * x,
    "sum with a share": lambda x: torch.add(F.relu(x), x, alpha=2),
    "a sum on two grids": lambda x: F.avg_pool2d(x, 3, 1, 1) + x / 3,
    "constants": lambda x: 1 - (-x * 0.7 + 0.1) / 3,
    "constants by channel": lambda x: (
        (x - torch.arange(4.0).view(1, 4, 1, 1) / 9) * torch.linspace(0.5, 2, 4)[:, None, None]
    ),
    "batch norm": nn.BatchNorm2d(4),
    "maximum": lambda x: F.max_pool2d(x, 2),
    "maximum of cut windows": lambda x: F.max_pool2d(x, (3, 2), (2, 3), (1, 0), ceil_mode=True),
    "average": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average without padding": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average of cut windows": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "average of cut windows without padding": lambda x: F.avg_pool2d(x, 3, 2, 0, True, False),
    "adaptive": lambda x: F.adaptive_avg_pool2d(F.adaptive_max_pool2d(x[:, :, :6], (3, 3)), (3, 1)),
    "mean": lambda x: x.mean((2, 3)),
    "mean that keeps": lambda x: x.mean((-1, -2), keepdim=True) + F.adaptive_avg_pool2d(x, 1),
    "parts": _parts,
    "every other": lambda x: x[:, 1::2, :-1:2, 1:],
    "padding": lambda x: F.pad(x, (1, 0, 2, 1, 0, 3)),
    "no padding": lambda x: F.pad(x, (0, 0)),
    "zeros": lambda x: torch.cat([x.new_zeros(len(x), 1, 7, 6), x, torch.zeros_like(x)], 1),
    "shapes": lambda x: x.reshape(len(x), 2, 2, 42).unsqueeze(1).squeeze(1).contiguous().view(-1, 4, 42),
    "dropout": lambda x: F.dropout(x, training=False),
    "a signal": lambda x: F.max_pool1d(x.flatten(2), 5, 4, 2) + F.avg_pool1d(x.flatten(2), 5, 4, 2),
}


class Everything(nn.Module):
    """Every operation at once on the result of one convolution: ``[N, 2, 7, 6] -> [N, 5]``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = QuantizedConv2d(2, 4, 3)
        self.norm = OPERATIONS["batch norm"]  # so that it is one of the modules
        size = sum(operation(torch.zeros(1, 4, *SHAPE[1:])).numel() for operation in OPERATIONS.values())
        self.last = QuantizedLinear(size, 5, choices=(Quantization(feature_bits=12),))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        results = [operation(y.clone()).flatten(1) for operation in OPERATIONS.values()]
        logits: Tensor = self.last(torch.cat(results, 1))
        return logits


@cache
def everything() -> tuple[nn.Module, Tensor]:
    """Return the net of all operations, its ranges measured, and images. Not to be changed."""
    with seeded("everything"):
        images = pixels(24, *SHAPE)
        return measured(Everything(), images), images


@cache
def everything_graph() -> Graph:
    """Return the graph of the net of all operations."""
    net, images = everything()
    return graph_of(net, images[:1], name="net")


def between(name: str) -> tuple[nn.Module, Tensor]:
    """Return the net around the operation ``name``, its ranges measured, and images."""
    with seeded("between"):
        images = pixels(24, *SHAPE)
        return measured(Between(OPERATIONS[name]), images), images


def measured(net: nn.Module, images: Tensor) -> nn.Module:
    """Return ``net`` in evaluation mode after it has seen ``images`` in training mode."""
    with torch.no_grad():
        for _ in range(3):
            net.train()(images)
    return net.eval()


class Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels_out)
        self.short = nn.Sequential()
        if stride != 1:
            self.short = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)), inplace=True)))
        y += self.short(x)
        return F.relu_(y)


def resnet() -> nn.Module:
    """Return a float ResNet as users write them: ``[N, 1, 8, 8] -> [N, 10]``."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        Block(8, 8, 1),
        Block(8, 16, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(16, 10),
    )


@cache
def quantized_resnet(bits: int = 8) -> tuple[nn.Module, Tensor]:
    """Return the ResNet with random weights, quantised, and images. Not to be changed."""
    with seeded("resnet"):
        model, images = measured(resnet(), pixels(32, 1, 8, 8)), pixels(32, 1, 8, 8)
        return quantize(model, images, bits=bits).eval(), images


def baseline(name: str) -> tuple[nn.Module, Tensor]:
    """Return a narrow baseline with random weights, its ranges measured, and images."""
    with seeded("baseline"):
        images = pixels(16, 1, 8, 8)
        return measured(build_baseline(name, width=0.15, image_shape=(1, 8, 8), classes=10), images), images
