"""Short trainings of a small net on a hundred digits, under faults of features and weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from small_nets import digits, small_net, state
from torch import Tensor, nn

from ftnas.data import Augmentation
from ftnas.faults import parse_fault
from ftnas.runtime import place
from ftnas.training import EpochRecord, TrainingSettings, train

FAULTS = [parse_fault("features.mac_bit_bias:1e-2"), parse_fault("weights.stuck_cell:0.05")]
SHORT = TrainingSettings(epochs=3, batch_size=32, augmentation=Augmentation(crop_padding=1))
BUFFERS = ("running_mean", "running_var", "feature_limit")


def hundred_digits() -> tuple[Tensor, Tensor]:
    """Return the first hundred training images and their labels."""
    return digits().train_images[:100], digits().train_labels[:100]


def run(
    settings: TrainingSettings = SHORT,
    *,
    key: str = "test",
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    net: nn.Module | None = None,
) -> tuple[dict[str, Tensor], list[EpochRecord]]:
    """Train a small net on a hundred digits; return its state, and its records without their times."""
    net = net or place(small_net(), torch.device("cpu"))
    images, labels = hundred_digits()
    records = train(
        net, images, labels, settings=settings, faults=FAULTS, key=key, checkpoint=checkpoint, on_epoch=on_epoch
    )
    return state(net), [replace(record, seconds=0.0) for record in records]


def statistics(net: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in state(net).items() if name.endswith(BUFFERS)}
