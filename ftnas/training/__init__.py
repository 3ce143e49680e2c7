"""Training under faults: objectives, the loop, checkpoints, calibration. Knows nothing of which net it trains."""

from ftnas.training.calibration import recalibrate
from ftnas.training.checkpoints import load_checkpoint, save_checkpoint
from ftnas.training.flatness import sharpness
from ftnas.training.loss import FaultTolerantLoss, Losses, Step
from ftnas.training.objectives import OBJECTIVES, Objective, build_objective, penalties_of
from ftnas.training.penalties import zero_share
from ftnas.training.robustness import SHARP, RobustnessSettings
from ftnas.training.settings import TrainingSettings
from ftnas.training.trainer import (
    EpochRecord,
    bound_weights,
    cosine,
    descend,
    noticing_radius,
    set_learning_rate,
    sgd,
    take_step,
    train,
)

__all__ = [
    "OBJECTIVES",
    "SHARP",
    "EpochRecord",
    "FaultTolerantLoss",
    "Losses",
    "Objective",
    "RobustnessSettings",
    "Step",
    "TrainingSettings",
    "bound_weights",
    "build_objective",
    "cosine",
    "descend",
    "load_checkpoint",
    "noticing_radius",
    "penalties_of",
    "recalibrate",
    "save_checkpoint",
    "set_learning_rate",
    "sgd",
    "sharpness",
    "take_step",
    "train",
    "zero_share",
]
