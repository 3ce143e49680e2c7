"""What a training step goes down, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import nn

from ftnas.errors import ConfigError
from ftnas.faults import BitFlip
from ftnas.training.bit_errors import RandBET, WorstBits
from ftnas.training.descent import Descent
from ftnas.training.faults import AnyFault, ScheduledFault
from ftnas.training.flatness import SAM, SAQ, Radius
from ftnas.training.loss import FaultTolerantLoss, Forward, Losses, Step
from ftnas.training.penalties import Penalties
from ftnas.training.robustness import RobustnessSettings


class Objective(Protocol):
    """What a trainer asks for the gradient of a step."""

    def gradient(self, model: nn.Module, forward: Forward, step: Step) -> Losses:
        """Put the gradient of ``step`` into the ``grad`` of the parameters of ``model``, which have none yet.

        Running statistics are updated by one clean pass, the first. Parameters are afterwards what they were.
        """


Build = Callable[[RobustnessSettings, FaultTolerantLoss], Objective]


def _plain(settings: RobustnessSettings, loss: FaultTolerantLoss) -> Objective:
    return Descent(FaultTolerantLoss((), 0.0, loss.study, loss.penalties))


def _mixed(settings: RobustnessSettings, loss: FaultTolerantLoss) -> Objective:
    return Descent(loss)


def _randbet(settings: RobustnessSettings, loss: FaultTolerantLoss) -> Objective:
    if not loss.faults:
        raise ConfigError("training.objective: randbet needs training.faults, such as weights.bit_flip:0.01")
    return RandBET(_clean(loss), settings.gate, settings.gradient_clip)


def _worst_bits(settings: RobustnessSettings, loss: FaultTolerantLoss) -> Objective:
    models = [fault.fault if isinstance(fault, ScheduledFault) else fault for fault in loss.faults]
    if len(models) != 1 or not isinstance(models[0], BitFlip) or models[0].target != "weights":
        raise ConfigError("training.objective: worst_bits needs one fault in training.faults, weights.bit_flip:RATE")
    return WorstBits(_clean(loss), settings.gate, settings.gradient_clip)


def _clean(loss: FaultTolerantLoss) -> Descent:
    return Descent(FaultTolerantLoss(loss.faults, 0.0, loss.study, loss.penalties))


# Each takes the loss, with its faults, shares and penalties; what it adds stands in its class.
OBJECTIVES: Mapping[str, Build] = {
    "qat": _plain,
    "ftt": _mixed,
    "randbet": _randbet,
    "sam": lambda settings, loss: SAM(Descent(loss), Radius(settings.radius, settings.radius_is_relative)),
    "saq": lambda settings, loss: SAQ(Descent(loss), Radius(settings.radius, settings.radius_is_relative)),
    "worst_bits": _worst_bits,
}


def build_objective(settings: RobustnessSettings, faults: Sequence[AnyFault], *, study: str) -> Objective:
    """Return the objective of ``settings`` under its own faults, or where it names none under ``faults``.

    Raises:
        ConfigError: the objective needs other faults.
    """
    chosen = settings.faults if settings.faults is not None else faults
    loss = FaultTolerantLoss(tuple(chosen), settings.faulty_share, study, penalties_of(settings))
    return OBJECTIVES[settings.objective](settings, loss)


def penalties_of(settings: RobustnessSettings) -> Penalties:
    """Return the terms that ``settings`` add to the loss."""
    sparsity = {"l1": settings.sparsity.l1, "hoyer": settings.sparsity.hoyer}
    return Penalties(
        of_activations={name: weight for name, weight in sparsity.items() if weight.highest > 0},
        lipschitz=settings.lipschitz.weight,
        sigma=settings.lipschitz.sigma,
        ranges=settings.range_penalty,
    )
