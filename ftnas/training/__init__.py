"""Training under faults: the loss, the loop, checkpoints, calibration. Knows nothing of which net it trains."""

from ftnas.training.calibration import recalibrate
from ftnas.training.checkpoints import load_checkpoint, save_checkpoint
from ftnas.training.objective import FaultTolerantLoss, Losses
from ftnas.training.settings import TrainingSettings
from ftnas.training.trainer import EpochRecord, cosine, descend, set_learning_rate, sgd, train

__all__ = [
    "EpochRecord",
    "FaultTolerantLoss",
    "Losses",
    "TrainingSettings",
    "cosine",
    "descend",
    "load_checkpoint",
    "recalibrate",
    "save_checkpoint",
    "set_learning_rate",
    "sgd",
    "train",
]
