"""Training the supernet: shared weights on one split, architecture weights on another, both under faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from ftnas.data import Augmentation, batches
from ftnas.faults import Fault
from ftnas.networks import CellNetwork
from ftnas.search.architecture import ArchitectureWeights, Relaxation, Sample
from ftnas.training import (
    SHARP,
    FaultTolerantLoss,
    Losses,
    RobustnessSettings,
    Step,
    bound_weights,
    build_objective,
    cosine,
    descend,
    load_checkpoint,
    noticing_radius,
    penalties_of,
    save_checkpoint,
    set_learning_rate,
    take_step,
)
from ftnas.training.trainer import SECONDS_BETWEEN_CHECKPOINTS

Split = tuple[Tensor, Tensor]


class SupernetSettings(RobustnessSettings):
    """How the supernet is trained.

    ``relaxation``: ``softmax`` computes everything (seven times the cost), ``gumbel`` one path drawn from the
    architecture weights, ``uniform`` one path on which all operators get equal turns. In the ``warm_up`` epochs
    paths are uniform (a mixture stays a mixture) and architecture weights do not move.
    """

    epochs: int = Field(40, ge=1)
    warm_up: int = Field(10, ge=0)
    relaxation: Relaxation = "gumbel"
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(0.05, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    validation_share: float = Field(0.25, gt=0, lt=1)
    architecture_learning_rate: float = Field(6e-3, gt=0)
    architecture_weight_decay: float = Field(1e-3, ge=0)
    temperature: float = Field(2.0, gt=0)
    final_temperature: float = Field(0.5, gt=0)
    augmentation: Augmentation = Augmentation()


@dataclass(frozen=True)
class SupernetEpoch:
    """Mean losses of one epoch over the weight steps and over the architecture steps (none while warming up)."""

    epoch: int
    loss: float
    clean_loss: float
    faulty_loss: float
    architecture_loss: float | None
    entropy: float
    seconds: float


class SupernetTrainer:
    """Trains a supernet and its architecture weights in place; resumable to the bit."""

    def __init__(
        self,
        supernet: CellNetwork,
        architecture: ArchitectureWeights,
        *,
        settings: SupernetSettings,
        faults: Sequence[Fault],
        key: str,
    ) -> None:
        self.supernet, self.architecture = supernet, architecture
        self.settings, self.key = settings, key
        self.objective = build_objective(settings, faults, study=f"{key} weights")
        self.largest_weight = settings.largest_weight(faults)
        penalties_of(settings).check(supernet)
        self.architecture_loss = FaultTolerantLoss(faults, settings.faulty_share, study=f"{key} architecture")
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "sgd": torch.optim.SGD(
                supernet.parameters(),
                settings.learning_rate,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
            ),
            # Betas and decay as in DARTS' code, where architecture weights have an Adam of their own.
            "adam": torch.optim.Adam(
                architecture.parameters(),
                settings.architecture_learning_rate,
                betas=(0.5, 0.999),
                weight_decay=settings.architecture_weight_decay,
            ),
        }

    def train(
        self,
        shared: Split,
        validation: Split,
        *,
        checkpoint: Path,
        on_epoch: Callable[[SupernetEpoch], None] = lambda record: None,
    ) -> list[SupernetEpoch]:
        """Alternate a pass of weight steps over ``shared`` and one of architecture steps over ``validation``."""
        model = torch.nn.ModuleDict({"supernet": self.supernet, "architecture": self.architecture})
        records: list[SupernetEpoch] = []
        if checkpoint.exists():
            progress = load_checkpoint(checkpoint, model, self.optimizers)
            records = [SupernetEpoch(**record) for record in progress["records"]]
        saved = time.monotonic()
        for epoch in range(len(records), self.settings.epochs):
            with noticing_radius(self.supernet, self.settings, epoch=epoch, checkpoint=checkpoint):
                records.append(self._epoch(shared, validation, epoch))
            on_epoch(records[-1])
            last = epoch + 1 == self.settings.epochs or self.settings.objective in SHARP
            if last or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                save_checkpoint(checkpoint, model, self.optimizers, {"records": [asdict(r) for r in records]})
                saved = time.monotonic()
        return records

    def _epoch(self, shared: Split, validation: Split, epoch: int) -> SupernetEpoch:
        began, settings = time.monotonic(), self.settings
        self.supernet.train()
        set_learning_rate(self.optimizers["sgd"], cosine(settings.learning_rate, 0.0, epoch / settings.epochs))
        means = self._pass(shared, epoch, moves_architecture=False)
        architecture_loss = None
        if epoch >= settings.warm_up:
            architecture_loss = self._pass(validation, epoch, moves_architecture=True)[0]
        return SupernetEpoch(
            epoch, *means, architecture_loss, entropy=self._entropy(), seconds=time.monotonic() - began
        )

    def _pass(self, split: Split, epoch: int, *, moves_architecture: bool) -> tuple[float, float, float]:
        """Take one step a batch of ``split``; return the mean loss, clean loss and faulty loss."""
        study = f"{self.key} {'architecture' if moves_architecture else 'weights'}"
        sums, steps = torch.zeros(3, dtype=torch.float64), 0
        drawn = batches(
            *split,
            batch_size=self.settings.batch_size,
            augmentation=self.settings.augmentation,
            key=(study, epoch),
        )
        for steps, (images, labels) in enumerate(drawn, start=1):
            chip = epoch * (len(split[0]) // self.settings.batch_size) + steps - 1
            step = Step(images, labels, chip, epoch / self.settings.epochs)
            sample = self._sample(chip, epoch, key=study)
            losses = self._move_architecture(sample, step) if moves_architecture else self._move_weights(sample, step)
            sums += torch.stack([losses.total.detach(), losses.clean, losses.faulty]).double().cpu()
        mean = (sums / max(steps, 1)).tolist()
        return mean[0], mean[1], mean[2]

    def _move_weights(self, sample: Sample, step: Step) -> Losses:
        optimizer = self.optimizers["sgd"]
        optimizer.zero_grad(set_to_none=True)
        forward = partial(self.supernet, plan=sample.constant_plan)
        losses = self.objective.gradient(self.supernet, forward, step)
        take_step(optimizer, list(self.supernet.parameters()), clip=self.settings.gradient_clip)
        bound_weights(self.supernet, self.largest_weight)
        return losses

    def _move_architecture(self, sample: Sample, step: Step) -> Losses:
        forward = partial(self.supernet, plan=sample.plan, gates=sample.gates)
        losses = self.architecture_loss(self.supernet, forward, step)
        parameters = list(self.architecture.parameters())
        descend(self.optimizers["adam"], losses.total, parameters, clip=self.settings.gradient_clip)
        return losses

    def _sample(self, step: int, epoch: int, *, key: str) -> Sample:
        settings = self.settings
        if settings.relaxation == "softmax":
            return self.architecture.mixture()
        if settings.relaxation == "uniform" or epoch < settings.warm_up:
            return self.architecture.fair_path(step, key=key)
        share = epoch / settings.epochs
        temperature = settings.temperature + share * (settings.final_temperature - settings.temperature)
        return self.architecture.gumbel_path(step, key=key, temperature=temperature)

    def _entropy(self) -> float:
        """Return the mean entropy of the operator choice over all edges, in nats: it falls as edges decide."""
        rows = torch.cat([weights.detach().softmax(1) for weights in self.architecture.operators.values()])
        return float(-(rows * rows.clamp_min(1e-12).log()).sum(1).mean())
