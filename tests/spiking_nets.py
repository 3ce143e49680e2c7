"""Small layered spiking nets for tests."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ftnas.data import Dataset, load_data
from ftnas.runtime import keyed_generator, seeded
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.training import TrainingSettings, train

SHAPE, CLASSES = (1, 6, 6), 4


def small_net(*, seed: int = 0, **keys: Any) -> SpikingNet:
    """Return an untrained net for images ``[N, 1, 6, 6]`` in which neurons do fire."""
    spec = SpikingSpec.model_validate({"widths": (7,), "steps": 5, "threshold": 0.5, **keys})
    with seeded("small spiking net", seed):
        return SpikingNet(spec, SHAPE, CLASSES).eval()


def images(count: int = 9, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=keyed_generator("spiking images", seed))


@cache
def digits() -> Dataset:
    return load_data("digits")


def trained_net(*, epochs: int, seed: int = 0, **keys: Any) -> SpikingNet:
    """Return a net trained on the digits: seconds."""
    data = digits()
    with seeded("initialisation", seed):
        net = SpikingNet(SpikingSpec.model_validate(keys), data.image_shape, data.classes)
    train(net, data.train_images, data.train_labels, settings=settings(epochs), faults=(), key=f"training {seed}")
    return net.eval()


def settings(epochs: int, learning_rate: float = 0.02) -> TrainingSettings:
    return TrainingSettings(epochs=epochs, learning_rate=learning_rate, objective="qat")
