"""A net that learns the digits in seconds, for tests that do not ask which net it is."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.data import Dataset, load_data
from ftnas.faults import parse_fault
from ftnas.quantization import Quantization, QuantizedConv2d, QuantizedLinear
from ftnas.runtime import seeded
from ftnas.training import EpochRecord, TrainingSettings, train


class SmallNet(nn.Module):
    """Two convolutions and a classifier: ``[N, 1, 8, 8] -> [N, 10]``."""

    def __init__(self, width: int = 16, numbers: Quantization | None = None) -> None:
        super().__init__()
        choices = (numbers or Quantization(),)
        self.first = QuantizedConv2d(1, width, 3, choices=choices)
        self.second = QuantizedConv2d(width, 2 * width, 3, stride=2, choices=choices)
        self.classifier = QuantizedLinear(8 * width, 10, choices=choices)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.second(F.relu(self.first(x))))
        logits: Tensor = self.classifier(F.avg_pool2d(y, 2).flatten(1))
        return logits


@cache
def digits() -> Dataset:
    return load_data("digits", directory=None, device=torch.device("cpu"))


def small_net(width: int = 4, *, seed: int = 0) -> SmallNet:
    with seeded("small net", seed):
        return SmallNet(width)


@cache
def trained() -> tuple[SmallNet, list[EpochRecord]]:
    """Return a net after four fault-tolerant epochs, in evaluation mode, and what was recorded. Not to be changed."""
    net, data = small_net(width=16), digits()
    faults = [parse_fault("features.mac_bit_bias:1e-3")]
    settings = TrainingSettings(epochs=4)
    records = train(net, data.train_images, data.train_labels, settings=settings, faults=faults, key="trained")
    return net.eval(), records


def state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the parameters and buffers of ``model``."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
