"""A net on which faulty weights hurt: two convolutions with batch norm, power-of-two ranges, and a classifier."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch.nn.functional as F
from small_nets import digits
from torch import Tensor, nn

from ftnas.campaign import accuracy, chip_accuracies
from ftnas.faults import parse_fault
from ftnas.quantization import Activation, Quantization, QuantizedConv2d, QuantizedLinear
from ftnas.runtime import seeded
from ftnas.training import TrainingSettings, train

SEEDS = (0, 1, 2)
CHIPS = 20


class RobustNet(nn.Module):
    """3,784 weights: ``[N, 1, 8, 8] -> [N, 10]``."""

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        choices = (Quantization(weight_bits=bits, feature_bits=bits),)
        self.first = QuantizedConv2d(1, 8, 3, choices=choices)
        self.second = QuantizedConv2d(8, 16, 3, choices=choices)
        self.classifier = QuantizedLinear(256, 10, choices=choices)
        self.activations = nn.ModuleList([Activation(), Activation()])

    def forward(self, x: Tensor) -> Tensor:
        y = self.activations[1](self.second(self.activations[0](self.first(x))))
        logits: Tensor = self.classifier(F.max_pool2d(y, 2).flatten(1))
        return logits


def robust_net(seed: int = 0, bits: int = 8) -> RobustNet:
    with seeded("robust net", seed):
        return RobustNet(bits)


@cache
def _trained(seed: int, epochs: int, robustness: str) -> RobustNet:
    settings = TrainingSettings.model_validate_json(robustness).model_copy(update={"epochs": epochs})
    net, data = robust_net(seed), digits()
    train(net, data.train_images, data.train_labels, settings=settings, faults=(), key=f"robust {seed}")
    return net.eval()


def trained(seed: int, epochs: int = 30, **robustness: Any) -> RobustNet:
    """Return a net in evaluation mode, trained once for each set of arguments. Not to be changed."""
    settings = TrainingSettings.model_validate({"learning_rate": 0.05, "weight_decay": 1e-4, **robustness})
    return _trained(seed, epochs, settings.model_dump_json())


def clean(net: nn.Module) -> float:
    return accuracy(net, digits().test_images, digits().test_labels)


def under(fault: str, net: nn.Module) -> float:
    """Return the mean accuracy on chips that are the same for every net."""
    data = digits()
    found = chip_accuracies(
        net, data.test_images, data.test_labels, faults=[parse_fault(fault)], chips=range(CHIPS), study="robust"
    )
    return sum(found) / len(found)
