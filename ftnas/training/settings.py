"""The numbers of a training."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ftnas.data import Augmentation
from ftnas.training.computing import Compile, ComputingSettings, check_compile
from ftnas.training.robustness import RobustnessSettings


class TrainingSettings(RobustnessSettings, ComputingSettings):
    """Stochastic gradient descent with momentum and a cosine schedule (arXiv 2003.10375, final training).

    ``compile``: ``default`` compiles the clean passes of ``qat``, ``ftt`` and ``randbet``, which takes minutes and
    pays in long trainings; ``cuda_graphs`` replays them on a GPU without a launch for each kernel.
    """

    epochs: int = Field(40, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(0.1, gt=0)
    final_learning_rate: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(4e-5, ge=0)
    augmentation: Augmentation = Augmentation()
    compile: Compile = "none"

    @model_validator(mode="after")
    def _can_be_compiled(self) -> Self:
        check_compile(
            self.compile, self.objective, is_sparse=bool(self.sparsity.l1.highest or self.sparsity.hoyer.highest)
        )
        return self
