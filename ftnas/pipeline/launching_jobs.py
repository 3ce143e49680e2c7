"""What a trial is asked to do, and proof of whose result it brings: a key of all that decides it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from ftnas.configuration import read_yaml, validate
from ftnas.errors import LaunchError
from ftnas.pipeline.config import TrainConfig
from ftnas.pipeline.experiment_folder import CONFIG, FREE_KEYS
from ftnas.pipeline.experiments import (
    TRAININGS,
    ExperimentConfig,
    check_trainings,
    open_experiment,
    train_and_measure,
)
from ftnas.runtime import key_seed

# What decides where and how fast, not what is computed.
_PLACE: Any = {"threads": True, "device": True, "data": {"directory"}}


def job_keys(config: ExperimentConfig, trainings: Mapping[str, TrainConfig]) -> dict[str, str]:
    """Return for each of ``trainings`` a key of its net, how it is trained and what it is measured under.

    Nets are taken as they are now: the content of a genotype's file, the text of a Python file.

    Raises:
        FtnasError: a training is impossible.
    """
    measured = config.model_dump(mode="json", exclude={*FREE_KEYS, "base", "axes", "seeds", "against"})
    return {name: _key(trainings[name], net, measured) for name, net in check_trainings(trainings).items()}


def _key(training: TrainConfig, net: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    spec = dict(net["net"])
    if "python" in spec:
        spec["python"] = spec["python"].rpartition(":")[2]  # the file may lie elsewhere on another machine
    described = {
        "training": training.model_dump(mode="json", exclude=_PLACE),
        "net": spec,
        "space": net["space"],
        "measured": measured,
    }
    return f"{key_seed(json.dumps(described, sort_keys=True)):016x}"


def do_job(folder: Path, code: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Train and measure what a trial was given, in the ``folder`` of its experiment; return what it reports.

    Args:
        folder: of the experiment, as this machine sees it; made where it is not there.
        code: the folder that came with the trial, with the configuration of the experiment.
        given: the ``name`` of the training and its ``key``.

    Raises:
        LaunchError: here the training is another: a file has another content.
        FtnasError: it is impossible.
    """
    config = validate(ExperimentConfig, read_yaml(code / CONFIG), source=str(code / CONFIG))
    name = str(given.get("name"))
    training = config.trainings().get(name)
    if training is None:
        raise LaunchError(f"{name}: is no training of {config.name}")
    key = job_keys(config, {name: training})[name]
    if key != given.get("key"):
        raise LaunchError(
            f"{name}: is another training here (key {key}, launched as {given.get('key')}); has {training.net} changed?"
        )
    open_experiment(folder, config)
    return _metric(name, key, train_and_measure(training, folder / TRAININGS / name, config, lambda: None))


def _metric(name: str, key: str, measured: dict[str, Any]) -> dict[str, Any]:
    """Return what a trial reports: for NNI's curves the mean accuracy under faults, and whose it is."""
    return {
        "default": fmean(fmean(level["chips"]) for level in measured["faults"]),
        "clean": measured["clean"],
        "name": name,
        "key": key,
        "measured": measured,
    }
