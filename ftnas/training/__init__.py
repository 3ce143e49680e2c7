"""Training under faults: objectives, the loop, checkpoints, calibration. Knows nothing of which net it trains."""

from ftnas.training.calibration import recalibrate
from ftnas.training.checkpoints import (
    has_checkpoint,
    load_checkpoint,
    read_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)
from ftnas.training.computing import ComputingSettings, check_computing, in_precision, lay_out
from ftnas.training.flatness import sharpness
from ftnas.training.loss import FaultTolerantLoss, Forward, Losses, Step
from ftnas.training.objectives import OBJECTIVES, Objective, build_objective, penalties_of
from ftnas.training.penalties import zero_share
from ftnas.training.robustness import SHARP, RobustnessSettings
from ftnas.training.saving import EpochSoFar, Saving
from ftnas.training.settings import TrainingSettings
from ftnas.training.trainer import (
    EpochRecord,
    bound_weights,
    cosine,
    descend,
    is_finite,
    noticing_radius,
    set_learning_rate,
    sgd,
    take_step,
    train,
)

__all__ = [
    "OBJECTIVES",
    "SHARP",
    "ComputingSettings",
    "EpochRecord",
    "EpochSoFar",
    "FaultTolerantLoss",
    "Forward",
    "Losses",
    "Objective",
    "RobustnessSettings",
    "Saving",
    "Step",
    "TrainingSettings",
    "bound_weights",
    "build_objective",
    "check_computing",
    "cosine",
    "descend",
    "has_checkpoint",
    "in_precision",
    "is_finite",
    "lay_out",
    "load_checkpoint",
    "noticing_radius",
    "penalties_of",
    "read_checkpoint",
    "recalibrate",
    "remove_checkpoint",
    "save_checkpoint",
    "set_learning_rate",
    "sgd",
    "sharpness",
    "take_step",
    "train",
    "zero_share",
]
