"""The one training loop: quantised, with faults or without, resumable to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ftnas.data import batches
from ftnas.errors import TrainingError
from ftnas.faults import Fault
from ftnas.quantization import weighted_layers
from ftnas.training.checkpoints import load_checkpoint, save_checkpoint
from ftnas.training.loss import Step
from ftnas.training.objectives import Objective, build_objective, penalties_of
from ftnas.training.robustness import SHARP, RobustnessSettings
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
        faults: what it is trained under, where ``settings`` name no faults of their own.
        checkpoint: where progress is kept between epochs, and found again.

    Raises:
        ConfigError: the objective needs other faults, or a penalty what the model has not.
        TrainingError: the radius of a flat objective is so large that the loss is not finite.
    """
    optimizer = sgd(list(model.parameters()), settings)
    objective = build_objective(settings, faults, study=key)
    largest = settings.largest_weight(faults)
    penalties_of(settings).check(model)
    records: list[EpochRecord] = []
    if checkpoint is not None and checkpoint.exists():
        progress = load_checkpoint(checkpoint, model, {"sgd": optimizer})
        records = [EpochRecord(**record) for record in progress["records"]]
    saved = time.monotonic()
    for epoch in range(len(records), settings.epochs):
        with noticing_radius(model, settings, epoch=epoch, checkpoint=checkpoint):
            drawn = batches(
                images,
                labels,
                batch_size=settings.batch_size,
                augmentation=settings.augmentation,
                key=(key, epoch),
            )
            steps = len(images) // settings.batch_size
            records.append(
                _train_epoch(model, drawn, settings, optimizer, objective, epoch, steps=steps, largest=largest)
            )
        on_epoch(records[-1])
        # A radius that is too large is noticed late, and what was good until then is worth keeping.
        due = settings.objective in SHARP or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS
        if checkpoint is not None and (due or epoch + 1 == settings.epochs):
            save_checkpoint(checkpoint, model, {"sgd": optimizer}, {"records": [asdict(r) for r in records]})
            saved = time.monotonic()
    return records


def _train_epoch(
    model: nn.Module,
    drawn: Iterable[tuple[Tensor, Tensor]],
    settings: TrainingSettings,
    optimizer: torch.optim.SGD,
    objective: Objective,
    epoch: int,
    *,
    steps: int,
    largest: float | None,
) -> EpochRecord:
    model.train()
    began, parameters = time.monotonic(), list(model.parameters())
    sums = torch.zeros(4, dtype=torch.float64)
    for step, (x, y) in enumerate(drawn):
        chip = epoch * steps + step
        done = chip / (settings.epochs * steps)
        set_learning_rate(optimizer, cosine(settings.learning_rate, settings.final_learning_rate, done))
        optimizer.zero_grad(set_to_none=True)
        losses = objective.gradient(model, model, Step(x, y, chip, done))
        take_step(optimizer, parameters, clip=settings.gradient_clip)
        bound_weights(model, largest)
        hits = (losses.logits.argmax(1) == y).float().mean()
        sums += torch.stack([losses.total.detach(), losses.clean, losses.faulty, hits]).double().cpu()
    total, clean, faulty, accuracy = (sums / steps).tolist()
    return EpochRecord(epoch, total, clean, faulty, accuracy, time.monotonic() - began)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter], *, clip: float) -> None:
    """Take one step down ``loss``, the gradient's norm clipped."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    take_step(optimizer, parameters, clip=clip)


def take_step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], *, clip: float) -> None:
    """Take one step along the gradients that are there, their norm clipped."""
    torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


@torch.no_grad()
def bound_weights(model: nn.Module, largest: float | None) -> None:
    """Cut the weights of quantised layers off at the magnitude ``largest`` (Stutz et al., arXiv 2006.13977)."""
    if largest is not None:
        for layer in weighted_layers(model).values():
            layer.weight.clamp_(-largest, largest)


@contextmanager
def noticing_radius(
    model: nn.Module, settings: RobustnessSettings, *, epoch: int, checkpoint: Path | None
) -> Iterator[None]:
    """Refuse to go on where a flat objective leaves weights of ``model`` that are not finite.

    Raises:
        TrainingError: it did; what the last good epoch left is still in ``checkpoint``.
    """
    try:
        yield
    except ValueError:  # of a quantiser or a fault model, which cannot encode what is not a number
        if settings.objective not in SHARP or _is_finite(model):
            raise
    if settings.objective not in SHARP or _is_finite(model):
        return
    key, value = "relative_rho" if settings.radius_is_relative else "rho", settings.radius.highest
    kept = f"; {checkpoint} holds the last good epoch" if checkpoint is not None and checkpoint.exists() else ""
    raise TrainingError(f"training.{key}: {value:g} makes weights and loss infinite in epoch {epoch}; take less{kept}")


def _is_finite(model: nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
