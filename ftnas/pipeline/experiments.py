"""Experiments: one net trained in every combination of some choices, with several seeds, under the same faults."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from ftnas.campaign import accuracy
from ftnas.campaign.levels import Level, levels_of
from ftnas.configuration import Name, Section, read_yaml, validate
from ftnas.errors import ConfigError, FtnasError
from ftnas.files import read_json, write_json
from ftnas.holding import holding
from ftnas.locking import LOCK, holding_lock
from ftnas.pipeline.answers import kept_chip_accuracies
from ftnas.pipeline.checkpoints import load_checkpoint
from ftnas.pipeline.config import TrainConfig
from ftnas.pipeline.experiment_folder import CONFIG, MEASURED, ExperimentSummary, open_folder
from ftnas.pipeline.experiment_results import write_results
from ftnas.pipeline.grids import Keys, check_grid, chosen_keys, combinations_of, merged, option_name
from ftnas.pipeline.jobs import Result, run_job
from ftnas.pipeline.training import check_net, prepare_training
from ftnas.pipeline.workers import run_tasks
from ftnas.training import sharpness, zero_share

TRAININGS = "trainings"


class ExperimentConfig(Section):
    """A grid of trainings.

    ``base``: keys of a training (see ``TrainConfig``) that all have. ``axes``: for each choice its options, and the
    keys that each option changes; every combination is trained once for each of ``seeds``. ``faults``: what all are
    measured under, each with its rates, on the same ``chips``. ``sharpness``: the radius at which it is measured, on
    the first ``sharpness_images`` test images. ``against``: the option that others of its choice are compared with.
    """

    name: Name
    description: str = ""
    base: Keys
    axes: dict[str, dict[str, Keys]] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=2)
    faults: tuple[str, ...] = Field(min_length=1)
    chips: int = Field(20, ge=2)
    sharpness: float = Field(0.5, gt=0)
    sharpness_images: int = Field(500, ge=10)
    against: str | None = None
    workers: int = Field(1, ge=1)

    @field_validator("faults")
    @classmethod
    def _faults_exist(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            try:
                levels_of(text, None)
            except FtnasError as error:
                raise ValueError(str(error)) from None
        return texts

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_grid(self.axes, self.seeds, self.against)
        return self

    def combinations(self) -> Iterator[dict[str, str]]:
        """Return every choice of one option for each axis, the last axis changing fastest."""
        return combinations_of(self.axes)

    def training(self, combination: Mapping[str, str], seed: int) -> TrainConfig:
        """Return the training of ``combination``.

        Raises:
            ConfigError: the base and the options make no valid training; the message names the options.
        """
        keys = chosen_keys({**self.base, "seed": seed}, self.axes, combination)
        return validate(TrainConfig, keys, source=f"{self.name}: {', '.join(combination.values())}")

    def trainings(self) -> dict[str, TrainConfig]:
        """Return every training by the name of its folder, combination by combination, seed by seed.

        Raises:
            ConfigError: two have one name, since their options differ in signs only.
        """
        found: dict[str, TrainConfig] = {}
        for combination, seed in itertools.product(self.combinations(), self.seeds):
            name = option_name(combination, seed)
            if name in found:
                raise ConfigError(f"{self.name}: axes: two trainings would be called {name}; rename an option")
            found[name] = self.training(combination, seed)
        return found

    def first_training(self, combination: Mapping[str, str]) -> TrainConfig:
        """Return the training of ``combination`` with the first seed."""
        return self.training(combination, self.seeds[0])


def load_experiment(path: Path, *, workers: int | None = None, data_directory: Path | None = None) -> ExperimentConfig:
    """Load the configuration of an experiment.

    Raises:
        ConfigError: a key, type or value is wrong, of the experiment or of one of its trainings.
    """
    content = read_yaml(path)
    if workers is not None:
        content["workers"] = workers
    base = content.get("base")
    if data_directory is not None and isinstance(base, dict):
        content["base"] = merged(base, {"data": {"directory": str(data_directory)}})
    config = validate(ExperimentConfig, content, source=str(path))
    for combination in config.combinations():
        _check_training(config, combination)
    config.trainings()
    return config


def _check_training(config: ExperimentConfig, combination: Mapping[str, str]) -> None:
    if config.first_training(combination).faults:
        raise ConfigError(
            f"{config.name}: base.faults: write what is measured in faults, what trains in training.faults"
        )


def run_experiment(config: ExperimentConfig, folder: Path) -> ExperimentSummary:
    """Train and measure all that ``config`` says, and write table and figure; the same call goes on after a kill.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    trainings = config.trainings()
    check_trainings(trainings)
    with holding(folder, CONFIG):
        return _run(config, folder, trainings)


def _run(config: ExperimentConfig, folder: Path, trainings: Mapping[str, TrainConfig]) -> ExperimentSummary:
    open_experiment(folder, config)
    tasks = [
        partial(train_and_measure, training, folder / TRAININGS / name, config) for name, training in trainings.items()
    ]
    found = run_tasks(
        tasks,
        title=config.name,
        epochs=sum(training.training.epochs for training in trainings.values()),
        workers=config.workers,
        threads=next(iter(trainings.values())).threads,
    )
    return write_results(config, folder, found)


def check_trainings(trainings: Mapping[str, TrainConfig]) -> dict[str, dict[str, Any]]:
    """Refuse what is impossible before any work; return for each training its net as plain data.

    Raises:
        FtnasError: names the net, the data, or what was asked of them.
    """
    kinds = {_kind(training): training for training in trainings.values()}
    nets = {kind: check_net(training) for kind, training in kinds.items()}
    return {name: nets[_kind(training)] for name, training in trainings.items()}


def _kind(training: TrainConfig) -> str:
    """Return what decides whether a training is possible: its net and its images."""
    return training.model_dump_json(include={"net", "space", "width", "numbers", "bits", "data"})


def open_experiment(folder: Path, config: ExperimentConfig) -> None:
    """Make the folder of the experiment, or go on in the one that is there.

    Raises:
        RunError: the folder is of another experiment, or of something else.
    """
    open_folder(folder, config, config.training(next(config.combinations()), 0))


def train_and_measure(
    training: TrainConfig, folder: Path, config: ExperimentConfig, advance: Callable[[], None]
) -> Result:
    """Train and measure one net of an experiment in its own ``folder``, unless that is done; return what was measured.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with holding_lock(folder / LOCK, of=folder):  # a trial of a launch that was killed may still be at it
        work, job = prepare_training(training, folder)
        file = folder / MEASURED
        if not (file.exists() and not (folder / "model.json").exists()):  # else it was trained on another machine
            run_job(work.path, job, advance)
        if not file.exists():
            levels = [level for text in config.faults for level in levels_of(text, None)]
            write_json(file, _measured(folder, config, levels))
        return dict(read_json(file))


def _measured(folder: Path, config: ExperimentConfig, levels: list[Level]) -> Result:
    net = load_checkpoint(folder)
    images, labels = net.data.test_images, net.data.test_labels
    few = config.sharpness_images
    return {
        "clean": accuracy(net.model, images, labels),
        "zeros": zero_share(net.model, images[:few]),
        "sharpness": sharpness(net.model, images[:few], labels[:few], config.sharpness),
        "faults": [
            {
                "fault": _fault_name(level),
                "rate": level.rate,
                "chips": kept_chip_accuracies(
                    folder / f"chips-{index}.jsonl",
                    net.model,
                    images,
                    labels,
                    faults=level.faults,
                    chips=config.chips,
                    study=config.name,
                ),
            }
            for index, level in enumerate(levels)
        ],
    }


def _fault_name(level: Level) -> str:
    """Return what fails, options included, without the rate."""
    names = []
    for fault in level.faults:
        name, _, rest = str(fault).partition(":")
        _, _, options = rest.partition(":")
        names.append(f"{name}:{options}" if options else name)
    return " + ".join(names)
