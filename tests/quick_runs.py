"""Whole runs of a few seconds, and what they leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from ftnas.cli.main import app

# Less of everything: a few seconds of work.
QUICK = {
    "name": "quick",
    "space": "tiny",
    "data": {"train_images": 120, "test_images": 100},
    "faults": ["features.mac_bit_bias:3e-2"],
    "supernet": {"epochs": 2, "warm_up": 1, "batch_size": 16},
    "search": {"trials": 6},
    "scoring": {"images": 30, "chips": 2, "leaders": 3, "fresh_chips": 2, "perturbation_images": 10},
    "finalists": {"top": 2, "random": 2, "epochs": 1, "chips": 2},
    "training": {"epochs": 1, "batch_size": 32},
    "comparison": {"baselines": [], "hand_made": [], "random_cells": 0},
}
RESULTS = (
    "supernet/architecture_weights.json",
    "supernet/supernet.safetensors",
    "study/candidates.json",
    "study/candidates.csv",
    "study/front.json",
    "study/leaders.json",
    "ranking.json",
    "comparison.json",
    "comparison.csv",
    "comparison.md",
    "winner/genotype.json",
    "winner/genotype.svg",
    "winner/result.json",
    "winner/vulnerability.json",
    "warnings.json",
)


def ftnas(*arguments: object) -> str:
    """Return what a command that ends well prints."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def results(run: Path) -> dict[str, bytes]:
    """Return what a run has found, without times."""
    trained = [str(path.relative_to(run)) for path in sorted(run.glob("trainings/*/*")) if path.stem != "history"]
    return {name: (run / name).read_bytes() for name in (*RESULTS, *trained)}


def quick(folder: Path, **changes: Any) -> Path:
    """Write the quick experiment into ``folder``."""
    path = folder / "quick.yaml"
    path.write_text(yaml.safe_dump(QUICK | changes), encoding="utf-8")
    return path


def quick_run(folder: Path, *arguments: object, **changes: Any) -> Path:
    """Return the folder of a finished quick run."""
    ftnas("search", quick(folder, **changes), "--run", folder / "run", *arguments)
    return folder / "run"
