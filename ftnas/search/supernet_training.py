"""Training the supernet: shared weights on one split, architecture weights on another, both under faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from ftnas.data import Augmentation, batches
from ftnas.distributed import together
from ftnas.faults import Fault
from ftnas.networks import CellNetwork
from ftnas.runtime import multiplying_in
from ftnas.search.architecture import ArchitectureWeights, Relaxation, Sample
from ftnas.stopping import finishing_steps
from ftnas.training import (
    SHARP,
    ComputingSettings,
    EpochSoFar,
    FaultTolerantLoss,
    Forward,
    Losses,
    RobustnessSettings,
    Saving,
    Step,
    bound_weights,
    build_objective,
    check_computing,
    cosine,
    descend,
    in_precision,
    is_finite,
    lay_out,
    noticing_radius,
    penalties_of,
    set_learning_rate,
    take_step,
)

Split = tuple[Tensor, Tensor]
PassName = Literal["weights", "architecture"]


class AfterStep(Protocol):
    """What is done after each step: saves where that is due."""

    def __call__(self, *, at: str) -> None:
        """Save, or stop, after what ``at`` says."""


class SupernetSettings(RobustnessSettings, ComputingSettings):
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
        lay_out(supernet, settings)
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
        """Alternate a pass of weight steps over ``shared`` and one of architecture steps over ``validation``.

        Goes on from ``checkpoint`` where there is one, in the middle of an epoch too, and ends in the same bits.
        """
        model = torch.nn.ModuleDict({"supernet": self.supernet, "architecture": self.architecture})
        saving = Saving(checkpoint, model, self.optimizers, is_sound=self._is_sound)
        check_computing("supernet", self.settings, self.supernet, shared[0].device)
        with finishing_steps(), together(), multiplying_in(self.settings.precision):
            return self._train(shared, validation, saving, checkpoint, on_epoch)

    def _train(
        self,
        shared: Split,
        validation: Split,
        saving: Saving,
        checkpoint: Path,
        on_epoch: Callable[[SupernetEpoch], None],
    ) -> list[SupernetEpoch]:
        progress = saving.load()
        records = [SupernetEpoch(**record) for record in progress.get("records", [])]
        begun = progress.get("epoch")

        def kept(so_far: EpochSoFar | None = None) -> dict[str, Any]:
            return {"records": [asdict(r) for r in records], "epoch": so_far.to_dict() if so_far else None}

        for epoch in range(len(records), self.settings.epochs):
            so_far, begun = EpochSoFar(begun), None
            after_step = partial(saving.after_step, partial(kept, so_far))
            with noticing_radius(self.supernet, self.settings, epoch=epoch, checkpoint=checkpoint):
                records.append(self._epoch(shared, validation, epoch, so_far, after_step))
            on_epoch(records[-1])
            must = epoch + 1 == self.settings.epochs or self.settings.objective in SHARP
            saving.after_epoch(kept, at=f"epoch {epoch}", must=must)
        return records

    def _epoch(
        self, shared: Split, validation: Split, epoch: int, so_far: EpochSoFar, after_step: AfterStep
    ) -> SupernetEpoch:
        settings = self.settings
        self.supernet.train()
        set_learning_rate(self.optimizers["sgd"], cosine(settings.learning_rate, 0.0, epoch / settings.epochs))
        loss, clean, faulty = self._pass("weights", shared, epoch, so_far, after_step)
        architecture_loss = None
        if epoch >= settings.warm_up:
            architecture_loss = self._pass("architecture", validation, epoch, so_far, after_step)[0]
        return SupernetEpoch(
            epoch, loss, clean, faulty, architecture_loss, entropy=self._entropy(), seconds=so_far.seconds
        )

    def _pass(self, name: PassName, split: Split, epoch: int, so_far: EpochSoFar, after_step: AfterStep) -> list[float]:
        """Take one step a batch of ``split``; return the mean loss, clean loss and faulty loss."""
        study, move = f"{self.key} {name}", self._move_weights if name == "weights" else self._move_architecture
        drawn = batches(
            *split,
            batch_size=self.settings.batch_size,
            augmentation=self.settings.augmentation,
            key=(study, epoch),
        )
        first = so_far.steps(name)
        for number, (images, labels) in enumerate(islice(drawn, first, None), start=first):
            chip = epoch * (len(split[0]) // self.settings.batch_size) + number
            step = Step(images, labels, chip, epoch / self.settings.epochs)
            losses = move(self._sample(chip, epoch, key=study, has_gates=name == "architecture"), step)
            so_far.add(name, torch.stack([losses.total.detach(), losses.clean, losses.faulty]))
            after_step(at=f"step {number} on {name} of epoch {epoch}")
        return so_far.means(name)

    def _is_sound(self) -> bool:
        return self.settings.objective not in SHARP or is_finite(self.supernet)

    def _move_weights(self, sample: Sample, step: Step) -> Losses:
        optimizer = self.optimizers["sgd"]
        optimizer.zero_grad(set_to_none=True)
        forward = self._forward(partial(self.supernet, plan=sample.constant_plan), step)
        losses = self.objective.gradient(self.supernet, forward, step)
        take_step(optimizer, list(self.supernet.parameters()), clip=self.settings.gradient_clip)
        bound_weights(self.supernet, self.largest_weight)
        return losses

    def _move_architecture(self, sample: Sample, step: Step) -> Losses:
        forward = self._forward(partial(self.supernet, plan=sample.plan, gates=sample.gates), step)
        losses = self.architecture_loss(self.supernet, forward, step)
        parameters = list(self.architecture.parameters())
        descend(self.optimizers["adam"], losses.total, parameters, clip=self.settings.gradient_clip)
        return losses

    def _forward(self, forward: Forward, step: Step) -> Forward:
        return in_precision(forward, self.settings.precision, step.images.device)

    def _sample(self, step: int, epoch: int, *, key: str, has_gates: bool) -> Sample:
        settings = self.settings
        if settings.relaxation == "softmax":
            return self.architecture.mixture()
        if settings.relaxation == "uniform" or epoch < settings.warm_up:
            return self.architecture.fair_path(step, key=key, has_gates=has_gates)
        share = epoch / settings.epochs
        temperature = settings.temperature + share * (settings.final_temperature - settings.temperature)
        return self.architecture.gumbel_path(step, key=key, temperature=temperature, has_gates=has_gates)

    def _entropy(self) -> float:
        """Return the mean entropy of the operator choice over all edges, in nats: it falls as edges decide."""
        rows = torch.cat([weights.detach().softmax(1) for weights in self.architecture.operators.values()])
        return float(-(rows * rows.clamp_min(1e-12).log()).sum(1).mean())
