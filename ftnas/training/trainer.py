"""The one training loop: quantised, with faults or without, resumable to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.data import batches
from ftnas.distributed import together
from ftnas.errors import TrainingError
from ftnas.faults import Fault
from ftnas.quantization import weighted_layers
from ftnas.runtime import multiplying_in
from ftnas.stopping import finishing_steps
from ftnas.training.checkpoints import has_checkpoint
from ftnas.training.computing import check_computing, computed, lay_out
from ftnas.training.descent import average_gradients_
from ftnas.training.loss import Step
from ftnas.training.objectives import build_objective, penalties_of
from ftnas.training.robustness import SHARP, RobustnessSettings
from ftnas.training.saving import EpochSoFar, Saving
from ftnas.training.settings import TrainingSettings
from ftnas.untrusted import understood

PASS = "images"  # the only one of an epoch, in what is kept of it


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
    ends in the same bits. Processes that have joined (see ``ftnas.distributed``) share each batch.

    Args:
        images: ``[N, C, H, W]``, on the model's device.
        labels: ``[N]``.
        faults: what it is trained under, where ``settings`` name no faults of their own.
        checkpoint: where progress is kept between epochs, and found again.

    Raises:
        ConfigError: the objective needs other faults, a penalty what the model has not, or the device what it cannot.
        TrainingError: the radius of a flat objective is so large that the loss is not finite.
    """
    training = _Training(model, images, labels, settings=settings, faults=faults, key=key, checkpoint=checkpoint)
    with finishing_steps(), together(), multiplying_in(settings.precision):
        return training.run(on_epoch)


class _Training:
    """A training that is under way: what it is made of, and the epochs that are behind it."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        settings: TrainingSettings,
        faults: Sequence[Fault],
        key: str,
        checkpoint: Path | None,
    ) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.settings, self.key, self.checkpoint = settings, key, checkpoint
        self.parameters = list(model.parameters())
        self.optimizer = sgd(self.parameters, settings)
        self.objective = build_objective(settings, faults, study=key)
        self.largest = settings.largest_weight(faults)
        self.steps = len(images) // settings.batch_size
        self.records: list[EpochRecord] = []
        penalties_of(settings).check(model)
        check_computing("training", settings, model, images.device, compile=settings.compile)
        lay_out(model, settings)
        self.forward = computed(model, settings.precision, images.device, compile=settings.compile)
        self.saving = Saving(checkpoint, model, {"sgd": self.optimizer}, is_sound=self._is_sound)

    def run(self, on_epoch: Callable[[EpochRecord], None]) -> list[EpochRecord]:
        """Train from where the checkpoint stands to the end."""
        progress = self.saving.load()
        with understood(self.checkpoint):
            self.records = [EpochRecord(**record) for record in progress.get("records", [])]
        begun = progress.get("epoch")
        for epoch in range(len(self.records), self.settings.epochs):
            with noticing_radius(self.model, self.settings, epoch=epoch, checkpoint=self.checkpoint):
                self.records.append(self._epoch(epoch, EpochSoFar(begun)))
            begun = None
            on_epoch(self.records[-1])
            # A radius that is too large is noticed late, and what was good until then is worth keeping.
            must = self.settings.objective in SHARP or epoch + 1 == self.settings.epochs
            self.saving.after_epoch(self._progress, at=f"epoch {epoch}", must=must)
        return self.records

    def _epoch(self, epoch: int, so_far: EpochSoFar) -> EpochRecord:
        """Take the steps of ``epoch`` that are not behind it yet."""
        self.model.train()
        drawn = batches(
            self.images,
            self.labels,
            batch_size=self.settings.batch_size,
            augmentation=self.settings.augmentation,
            key=(self.key, epoch),
        )
        first = so_far.steps(PASS)
        for step, (x, y) in enumerate(islice(drawn, first, None), start=first):
            so_far.add(PASS, self._step(x, y, epoch * self.steps + step))
            self.saving.after_step(partial(self._progress, so_far), at=f"step {step} of epoch {epoch}")
        total, clean, faulty, accuracy = so_far.means(PASS)
        return EpochRecord(epoch, total, clean, faulty, accuracy, so_far.seconds)

    def _step(self, x: Tensor, y: Tensor, chip: int) -> Tensor:
        """Take one step; return its loss, clean loss, faulty loss and the share of right answers ``[4]``."""
        settings = self.settings
        done = chip / (settings.epochs * self.steps)
        set_learning_rate(self.optimizer, cosine(settings.learning_rate, settings.final_learning_rate, done))
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.objective.gradient(self.model, self.forward, Step(x, y, chip, done))
        take_step(self.optimizer, self.parameters, clip=settings.gradient_clip)
        bound_weights(self.model, self.largest)
        hits = (losses.logits.argmax(1) == y).float().mean()
        return torch.stack([losses.total.detach(), losses.clean, losses.faulty, hits])

    def _progress(self, so_far: EpochSoFar | None = None) -> dict[str, Any]:
        return {"records": [asdict(record) for record in self.records], "epoch": so_far.to_dict() if so_far else None}

    def _is_sound(self) -> bool:
        # In the middle of an epoch a radius that is too large has not been noticed yet.
        return self.settings.objective not in SHARP or is_finite(self.model)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter], *, clip: float) -> None:
    """Take one step down ``loss``, the gradient's norm clipped."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients_(parameters)
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
        if settings.objective not in SHARP or is_finite(model):
            raise
    if settings.objective not in SHARP or is_finite(model):
        return
    key, value = "relative_rho" if settings.radius_is_relative else "rho", settings.radius.highest
    kept = f"; {checkpoint} holds the last good epoch" if checkpoint is not None and has_checkpoint(checkpoint) else ""
    raise TrainingError(f"training.{key}: {value:g} makes weights and loss infinite in epoch {epoch}; take less{kept}")


def is_finite(model: nn.Module) -> bool:
    """Return whether every parameter of ``model`` is a number."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
