"""The one training loop: quantised, with faults or without, resumable to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ftnas.data import batches
from ftnas.faults import Fault
from ftnas.training.checkpoints import load_checkpoint, save_checkpoint
from ftnas.training.objective import FaultTolerantLoss
from ftnas.training.settings import TrainingSettings

SECONDS_BETWEEN_CHECKPOINTS = 30.0


@dataclass(frozen=True)
class EpochRecord:
    """Means over the steps of one epoch; ``clean_accuracy`` is over the augmented training images."""

    epoch: int
    loss: float
    clean_loss: float
    faulty_loss: float
    clean_accuracy: float
    seconds: float


def cosine(start: float, end: float, progress: float) -> float:
    """Return the learning rate after ``progress`` (0 to 1) of the training."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))


def sgd(parameters: Sequence[nn.Parameter], settings: TrainingSettings) -> torch.optim.SGD:
    """Return the optimiser of ``settings``."""
    return torch.optim.SGD(
        parameters, settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    settings: TrainingSettings,
    faults: Sequence[Fault],
    key: str,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> list[EpochRecord]:
    """Train ``model`` in place and return one record an epoch.

    Every random draw is keyed by ``key`` and the step, so an interrupted training that goes on from its checkpoint
    ends in the same bits.

    Args:
        images: ``[N, C, H, W]``, on the model's device.
        labels: ``[N]``.
        checkpoint: where progress is kept between epochs, and found again.
    """
    optimizer = sgd(list(model.parameters()), settings)
    loss = FaultTolerantLoss(faults, settings.faulty_share, study=key)
    records: list[EpochRecord] = []
    if checkpoint is not None and checkpoint.exists():
        progress = load_checkpoint(checkpoint, model, {"sgd": optimizer})
        records = [EpochRecord(**record) for record in progress["records"]]
    saved = time.monotonic()
    for epoch in range(len(records), settings.epochs):
        records.append(_train_epoch(model, images, labels, settings, optimizer, loss, epoch))
        on_epoch(records[-1])
        due = time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS
        if checkpoint is not None and (due or epoch + 1 == settings.epochs):
            save_checkpoint(checkpoint, model, {"sgd": optimizer}, {"records": [asdict(r) for r in records]})
            saved = time.monotonic()
    return records


def _train_epoch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: TrainingSettings,
    optimizer: torch.optim.SGD,
    loss: FaultTolerantLoss,
    epoch: int,
) -> EpochRecord:
    model.train()
    began, steps = time.monotonic(), len(images) // settings.batch_size
    sums = torch.zeros(4, dtype=torch.float64)
    epoch_batches = batches(
        images, labels, batch_size=settings.batch_size, augmentation=settings.augmentation, key=(loss.study, epoch)
    )
    for step, (x, y) in enumerate(epoch_batches):
        chip = epoch * steps + step
        done = chip / (settings.epochs * steps)
        set_learning_rate(optimizer, cosine(settings.learning_rate, settings.final_learning_rate, done))
        losses = loss(model, model, x, y, chip=chip)
        descend(optimizer, losses.total, list(model.parameters()), clip=settings.gradient_clip)
        hits = (losses.logits.argmax(1) == y).float().mean()
        sums += torch.stack([losses.total.detach(), losses.clean, losses.faulty, hits]).double().cpu()
    total, clean, faulty, accuracy = (sums / steps).tolist()
    return EpochRecord(epoch, total, clean, faulty, accuracy, time.monotonic() - began)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter], *, clip: float) -> None:
    """Take one step down ``loss``, the gradient's norm clipped."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
