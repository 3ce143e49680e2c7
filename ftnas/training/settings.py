"""The numbers of a training."""

from __future__ import annotations

from pydantic import Field

from ftnas.data import Augmentation
from ftnas.training.robustness import RobustnessSettings


class TrainingSettings(RobustnessSettings):
    """Stochastic gradient descent with momentum and a cosine schedule (arXiv 2003.10375, final training)."""

    epochs: int = Field(40, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(0.1, gt=0)
    final_learning_rate: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(4e-5, ge=0)
    augmentation: Augmentation = Augmentation()
