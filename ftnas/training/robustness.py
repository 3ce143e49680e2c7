"""What makes the weights of a training robust, as a part of its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from ftnas.configuration import Section
from ftnas.training.faults import AnyFault, TrainingFault, faults_at
from ftnas.training.schedules import Amount, Schedule, Share, constant

ObjectiveName = Literal["qat", "ftt", "randbet", "sam", "saq", "worst_bits"]
SHARP: tuple[ObjectiveName, ...] = ("sam", "saq")
UNDER_BIT_ERRORS: tuple[ObjectiveName, ...] = ("randbet", "worst_bits")

RHO = 0.1  # a radius that was safe in every net tried; 0.6 destroys some
GATE = 1.75  # the clean loss below which RandBET begins, for ten classes (arXiv 2006.13977)
# The largest weight where weights are clipped by default. ResNet-20 at 0.28 of its width on digits, fault-tolerantly
# trained and measured under adSAF at 3 %: 90.5 % without, 93.7 % at 0.2, 96.4 % at 0.1 (100 chips, ± 0.9 to 0.3).
CLIP = 0.1


class SparsitySettings(Section):
    """Weights of the terms that make activations sparse.

    ``l1``: the sum over layers of mean |a|. ``hoyer``: of (sum |a|)^2 / sum a^2 for each image, which counts values
    that are not 0 whatever their scale is. For a threshold on activations see the space's ``activation``.
    """

    l1: Amount = constant(0.0)
    hoyer: Amount = constant(0.0)


class LipschitzSettings(Section):
    """The term of CorrectNet (arXiv 2211.14917), which keeps layers from amplifying log-normal weight variation.

    ``weight``: of the term. ``sigma``: of the variation that it is for.
    """

    weight: Amount = constant(0.0)
    sigma: float = Field(0.5, gt=0)


class RobustnessSettings(Section):
    """How a net is made robust. Each number may be a schedule: a ramp or steps over the training.

    ``objective``: ``qat`` (quantisation-aware training, no faults), ``ftt`` (clean and faulty loss mixed; the paper's),
    ``randbet`` (mean of the gradients without and with random errors), ``sam`` and ``saq`` (the gradient at the worst
    point nearby, before and behind the quantiser), ``worst_bits`` (as ``randbet``, with the flips that do most harm).
    ``faults``: what it is trained under, by default the faults of the experiment.
    ``faulty_share``: the paper's a_l, (1 - a_l) CE(clean) + a_l CE(faulty), in ``ftt``, ``sam`` and ``saq``.
    ``rho``: the radius of ``sam`` and ``saq``, 0.1 if nothing is said; ``relative_rho``: as a share
    of the norm of all weights.
    ``loss_gate``: the clean loss below which errors begin in ``randbet`` and ``worst_bits``, by default 1.75.
    ``clip``: the largest magnitude of a weight, or ``none``; by default 0.1 under weight faults and in
    ``sam`` and ``saq``.
    ``range_penalty``: weight of the sum of learned weight ranges.
    """

    objective: ObjectiveName = "ftt"
    faults: tuple[TrainingFault, ...] | None = None
    faulty_share: Share = constant(0.5)
    rho: Amount | None = None
    relative_rho: Amount | None = None
    loss_gate: float | None = Field(None, gt=0)
    clip: float | Literal["default", "none"] = "default"
    sparsity: SparsitySettings = SparsitySettings()
    lipschitz: LipschitzSettings = LipschitzSettings()
    range_penalty: Amount = constant(0.0)
    gradient_clip: float = Field(5.0, gt=0)

    @model_validator(mode="after")
    def _each_key_has_its_use(self) -> Self:
        if self.objective not in SHARP and (self.rho is not None or self.relative_rho is not None):
            raise ValueError(f"rho: is for the objectives {' and '.join(SHARP)}, not for {self.objective}")
        if self.rho is not None and self.relative_rho is not None:
            raise ValueError("rho: give it or relative_rho, not both")
        if self.objective not in UNDER_BIT_ERRORS and self.loss_gate is not None:
            raise ValueError(f"loss_gate: is for the objectives {' and '.join(UNDER_BIT_ERRORS)}")
        if self.objective == "qat" and self.faults:
            raise ValueError("faults: qat trains without any; choose another objective")
        if isinstance(self.clip, float | int) and not self.clip > 0:
            raise ValueError(f"clip: more than 0, default or none, got {self.clip}")
        return self

    @property
    def gate(self) -> float:
        """The clean loss below which errors begin."""
        return GATE if self.loss_gate is None else self.loss_gate

    @property
    def radius_is_relative(self) -> bool:
        """Whether ``radius`` is a share of the norm of all weights."""
        return self.relative_rho is not None

    @property
    def radius(self) -> Schedule:
        """The radius of ``sam`` and ``saq``."""
        return self.relative_rho or self.rho or constant(RHO)

    def largest_weight(self, faults: Sequence[AnyFault]) -> float | None:
        """Return the magnitude that weights are cut off at after each step; ``None`` for no end.

        Args:
            faults: of the experiment, which count where ``self`` names none.
        """
        if self.clip != "default":
            return None if isinstance(self.clip, str) else self.clip
        acting = () if self.objective == "qat" else faults if self.faults is None else self.faults
        weights_fail = any(fault.target == "weights" for fault in faults_at(acting, 1.0))
        return CLIP if weights_fail or self.objective in SHARP else None
