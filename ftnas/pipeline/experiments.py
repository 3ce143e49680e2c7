"""Experiments: one net trained in every combination of some choices, with several seeds, under the same faults."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, field_validator, model_validator

from ftnas.campaign import CONFIDENCE, accuracy, chip_accuracies
from ftnas.campaign.estimates import DROP
from ftnas.campaign.intervals import student_interval
from ftnas.campaign.levels import Level, levels_of
from ftnas.configuration import Section, read_yaml, validate
from ftnas.errors import ConfigError, FtnasError, RunError
from ftnas.files import read_json, write_json, write_text
from ftnas.pipeline.checkpoints import load_checkpoint
from ftnas.pipeline.config import TrainConfig
from ftnas.pipeline.jobs import Result, run_job
from ftnas.pipeline.run_folder import describe_environment
from ftnas.pipeline.training import check_net, prepare_training
from ftnas.pipeline.workers import run_tasks
from ftnas.report.grid import grid_csv, grid_figure, grid_markdown
from ftnas.report.raster import write_png
from ftnas.training import sharpness, zero_share

CONFIG, MEASURED, RESULTS = "experiment.yaml", "measured.json", "results.json"
FREE_KEYS = ("workers", "description")

Keys = dict[str, Any]


class ExperimentConfig(Section):
    """A grid of trainings.

    ``base``: keys of a training (see ``TrainConfig``) that all have. ``axes``: for each choice its options, and the
    keys that each option changes; every combination is trained once for each of ``seeds``. ``faults``: what all are
    measured under, each with its rates, on the same ``chips``. ``sharpness``: the radius at which it is measured, on
    the first ``sharpness_images`` test images. ``against``: the option that others of its choice are compared with.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
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
        for axis, options in self.axes.items():
            if not options:
                raise ValueError(f"axes.{axis}: at least one option is needed")
        if self.against is not None and not any(self.against in options for options in self.axes.values()):
            known = ", ".join(option for options in self.axes.values() for option in options)
            raise ValueError(f"against: unknown option; choose from {known}, got {self.against!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: each once, got {list(self.seeds)}")
        return self

    def combinations(self) -> Iterator[dict[str, str]]:
        """Return every choice of one option for each axis, the last axis changing fastest."""
        for options in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, options, strict=True))

    def training(self, combination: Mapping[str, str], seed: int) -> TrainConfig:
        """Return the training of ``combination``.

        Raises:
            ConfigError: the base and the options make no valid training; the message names the options.
        """
        keys: Keys = {**self.base, "seed": seed}
        for axis, option in combination.items():
            keys = merged(keys, self.axes[axis][option])
        return validate(TrainConfig, keys, source=f"{self.name}: {', '.join(combination.values())}")

    def first_training(self, combination: Mapping[str, str]) -> TrainConfig:
        """Return the training of ``combination`` with the first seed."""
        return self.training(combination, self.seeds[0])


@dataclass(frozen=True)
class ExperimentSummary:
    """What an experiment found: plain data, as in ``results.json``, and where table and figure are."""

    folder: Path
    results: dict[str, Any]


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
    firsts = [config.first_training(combination) for combination in config.combinations()]
    for training in {_kind(first): first for first in firsts}.values():
        check_net(training)
    _open(folder, config)
    cells = [(combination, seed) for combination in config.combinations() for seed in config.seeds]
    trainings = [config.training(*cell) for cell in cells]
    tasks = [
        partial(_train_and_measure, training, folder / "trainings" / option_name(*cell), config)
        for training, cell in zip(trainings, cells, strict=True)
    ]
    found = run_tasks(
        tasks,
        title=config.name,
        epochs=sum(training.training.epochs for training in trainings),
        workers=config.workers,
        threads=trainings[0].threads,
    )
    rows = [
        _row(combination, [one for (other, _), one in zip(cells, found, strict=True) if other == combination])
        for combination in config.combinations()
    ]
    results = {
        "name": config.name,
        "axes": {axis: list(options) for axis, options in config.axes.items()},
        "seeds": list(config.seeds),
        "chips": config.chips,
        "confidence": CONFIDENCE,
        "against": config.against,
        "rows": rows,
        "differences": list(_differences(config, rows)),
    }
    write_text(folder / "results.csv", grid_csv(results))
    write_text(folder / "results.md", grid_markdown(results))
    figure = grid_figure(results)
    write_text(folder / "figure.svg", figure)
    write_png(figure, folder / "figure.png")
    write_json(folder / RESULTS, results)
    return ExperimentSummary(folder, results)


def _kind(training: TrainConfig) -> str:
    """Return what decides whether a training is possible: its net and its images."""
    return training.model_dump_json(include={"net", "space", "width", "numbers", "bits", "data"})


def _open(folder: Path, config: ExperimentConfig) -> None:
    """Make the folder of the experiment, or go on in the one that is there."""
    now = config.model_dump(mode="json")
    if (folder / CONFIG).exists():
        there = validate(ExperimentConfig, read_yaml(folder / CONFIG), source=str(folder / CONFIG))
        for key, value in there.model_dump(mode="json").items():
            if key not in FREE_KEYS and value != now[key]:
                raise RunError(f"{folder}: is of another experiment ({key} differs); choose another with --out")
        return
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder}: exists and is not an experiment; choose another with --out")
    write_text(folder / CONFIG, yaml.safe_dump(now, sort_keys=False))
    write_json(folder / "environment.json", describe_environment(config.training(next(config.combinations()), 0)))


def _train_and_measure(
    training: TrainConfig, folder: Path, config: ExperimentConfig, advance: Callable[[], None]
) -> Result:
    work, job = prepare_training(training, folder)
    run_job(work.path, job, advance)
    levels = [level for text in config.faults for level in levels_of(text, None)]
    file = folder / MEASURED
    if not file.exists():
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
                "chips": chip_accuracies(
                    net.model, images, labels, faults=level.faults, chips=range(config.chips), study=config.name
                ),
            }
            for level in levels
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


def _row(combination: Mapping[str, str], seeds: list[Result]) -> Result:
    """Return means over seeds; the interval of an accuracy is over seeds, each a mean over the same chips."""
    faults = []
    for index, fault in enumerate(seeds[0]["faults"]):
        means = [fmean(seed["faults"][index]["chips"]) for seed in seeds]
        interval = student_interval(means, CONFIDENCE)
        faults.append(
            {"fault": fault["fault"], "rate": fault["rate"], "mean": fmean(means), "low": interval.low,
             "high": interval.high, "seeds": means}
        )  # fmt: skip
    single = {key: fmean(seed[key] for seed in seeds) for key in ("clean", "zeros", "sharpness")}
    return {
        "options": dict(combination),
        **single,
        "clean_of_seeds": [seed["clean"] for seed in seeds],
        "faults": faults,
    }


def _differences(config: ExperimentConfig, rows: list[Result]) -> Iterator[Result]:
    """Yield what each other option gains over ``against``, seed by seed on the same chips."""
    axis = next((axis for axis, options in config.axes.items() if config.against in options), None)
    for row in rows if axis is not None else ():
        if row["options"][axis] == config.against:
            continue
        base = next(other for other in rows if other["options"] == {**row["options"], axis: config.against})
        for ours, theirs in zip(row["faults"], base["faults"], strict=True):
            gains = [one - other for one, other in zip(ours["seeds"], theirs["seeds"], strict=True)]
            interval = student_interval(gains, CONFIDENCE, bounds=DROP)
            yield {
                "options": row["options"], "fault": ours["fault"], "rate": ours["rate"],
                "mean": fmean(gains), "low": interval.low, "high": interval.high,
            }  # fmt: skip


def merged(keys: Mapping[str, Any], changes: Mapping[str, Any]) -> Keys:
    """Return ``keys`` with ``changes``, sections merged into sections."""
    result = dict(keys)
    for key, value in changes.items():
        there = result.get(key)
        result[key] = merged(there, value) if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    return result


def option_name(combination: Mapping[str, str], seed: int) -> str:
    """Return the name of the folder of one combination and seed."""
    words = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", option) for option in combination.values())
    return f"{words}-seed{seed}"
