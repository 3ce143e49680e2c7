"""Trainings as their folders describe them: which net, by which seed, and where a run's winner is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ftnas.data import Dataset
from ftnas.errors import RunError
from ftnas.files import read_json
from ftnas.networks.bounded import LARGEST
from ftnas.pipeline.jobs import build_model
from ftnas.pipeline.run_folder import Workplace
from ftnas.untrusted import inside, plain_name, understood

MODEL, RESULT = "model.json", "result.json"

# What ``model.json`` says, and as what; a training of long ago may lack the others.
_NEEDED = {"name": str, "model": dict, "seed": int}
_OTHERS = {"label": str, "training": str, "family": str, "size": str, "epochs": int}


def read_job(home: Path) -> dict[str, Any]:
    """Return what was trained in ``home``: ``name``, ``model`` and ``seed`` at least (see ``TrainingJob``).

    Raises:
        RunError: the file is missing, damaged or not as ftnas writes it.
    """
    file = home / MODEL
    job = read_json(file)
    if not isinstance(job, dict):
        raise RunError(f"{file}: describes no net")
    for key, kind in (_NEEDED | _OTHERS).items():
        if (key in job or key in _NEEDED) and not isinstance(job.get(key), kind):
            raise RunError(f"{file}: {key} must be {_WORDS[kind]}, got {job.get(key)!r:.60}")
    return job


_WORDS = {str: "text", dict: "an object", int: "a whole number"}


def rebuilt(work: Workplace, home: Path, data: Dataset, *, most: int = LARGEST) -> tuple[dict[str, Any], nn.Module]:
    """Return what was trained in ``home``, and that net with no particular weights, on the CPU.

    Args:
        work: the folder that the training is part of.
        home: of the training.
        data: whose images and classes the net is for.
        most: numbers that the net may have.

    Raises:
        RunError: the description is damaged.
        ModelError: the net is one of the user's own that cannot be built, or is too large.
    """
    job = read_job(home)
    with understood(home / MODEL):
        return job, build_model(work, job["model"], data, seed=job["seed"], most=most)


def training_named(work: Workplace, source: Path) -> Path:
    """Return the folder of the training whose result is in the file ``source`` of ``work``.

    Raises:
        RunError: the file is damaged, or names what is no training of this folder.
    """
    result = read_json(source)
    name = plain_name(result.get("name") if isinstance(result, dict) else None, source)
    return inside(work.path, work.path / "trainings" / name)
