"""A user's file of models, a quick recipe, and what a comparison makes of the names of nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftnas.consent import allow_code
from ftnas.pipeline.config import CompareConfig
from ftnas.pipeline.entrants import Entrant, entrants_of
from ftnas.pipeline.jobs import load_dataset
from ftnas.pipeline.run_folder import ComparisonFolder
from ftnas.runtime import choose_device

MODELS = """
import torch
from torch import nn


class Small(nn.Sequential):
    def __init__(self, classes):
        super().__init__(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, classes)
        )


small = Small(10)
"""
RECIPE = {
    "data": {"train_images": 120, "test_images": 100},
    "faults": ["features.mac_bit_bias:3e-2"],
    "campaign": {"rates": [3e-3]},
    "training": {"epochs": 1, "batch_size": 32},
}


def write_models(folder: Path) -> Path:
    file = folder / "models.py"
    file.write_text(MODELS)
    allow_code(file)  # which the user does by naming it
    return file


def entrants(**changes: Any) -> list[Entrant]:
    config = CompareConfig.model_validate(RECIPE | changes)
    allow_code(*(text.rpartition(":")[0] for text in config.nets if ".py:" in text))
    return entrants_of(ComparisonFolder(Path("nowhere"), config), load_dataset(config, choose_device("cpu")))
