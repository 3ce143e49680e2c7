"""The configuration of a run: one YAML file, the same keys for ``--set`` and in Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, field_validator, model_validator

from ftnas.campaign.levels import at_rate, levels_of
from ftnas.configuration import Name, Section, override, read_yaml, validate
from ftnas.data import DATA_SETS
from ftnas.errors import CampaignError, FaultError
from ftnas.faults import Fault as FaultModel
from ftnas.faults import parse_fault
from ftnas.networks import BASELINES
from ftnas.quantization import Quantization
from ftnas.search.settings import ControllerSettings
from ftnas.search.supernet_training import SupernetSettings
from ftnas.space import QuantizationChoice
from ftnas.training import TrainingSettings


def _fault(given: Any) -> FaultModel:
    if isinstance(given, FaultModel):
        return given
    if not isinstance(given, str):
        raise ValueError("a fault is text such as features.mac_bit_bias:1e-3")
    try:
        return parse_fault(given)
    except FaultError as error:
        raise ValueError(str(error)) from None


def _data_set(name: str) -> str:
    if name not in DATA_SETS:
        raise ValueError(f"unknown data set; choose from {', '.join(DATA_SETS)}")
    return name


def _baseline(name: str) -> str:
    if name not in BASELINES:
        raise ValueError(f"unknown baseline; choose from {', '.join(BASELINES)}")
    return name


Fault = Annotated[Any, PlainValidator(_fault), PlainSerializer(str, return_type=str)]
Rate = Annotated[float, Field(ge=0, le=1)]
Baseline = Annotated[str, AfterValidator(_baseline)]
TrainingKind = Literal["fault-tolerant", "plain"]
SizeKind = Literal["own", "scaled"]

# What the data sets that lie at a place of the user's need there.
DIRECTORIES = {"npz": "the path of the .npz file", "folder": "the folder of images by class"}


class DataSettings(Section):
    """Which images.

    ``directory``: the CIFAR-10 folder or archive, or the npz file; ``--data-dir`` sets it. ``train_images`` and
    ``test_images``: use only so many, a fixed random choice, so that a small machine can finish; null uses all.
    """

    name: Annotated[str, AfterValidator(_data_set)] = "digits"
    directory: str | None = None
    train_images: int | None = Field(None, ge=100)
    test_images: int | None = Field(None, ge=100)


class ScoringSettings(Section):
    """How a candidate is scored: on how many validation images and chips, after calibration on how many images."""

    images: int = Field(300, ge=10)
    chips: int = Field(8, ge=1)
    calibration_images: int = Field(256, ge=16)
    fresh_chips: int = Field(16, ge=1)
    leaders: int = Field(10, ge=1)
    perturbation_images: int = Field(64, ge=10)
    perturbation_completions: int = Field(1, ge=0)


class FinalistSettings(Section):
    """The short trainings that choose the winner and test the supernet's ranking.

    ``top``: the best leaders; ``random``: cells sampled from the space; all are trained for ``epochs`` on the
    supernet's training split and measured on its validation split with ``chips``.
    """

    top: int = Field(4, ge=1)
    random: int = Field(6, ge=0)
    epochs: int = Field(15, ge=1)
    chips: int = Field(10, ge=2)


class ChipSettings(Section):
    """The measurement on the test set: chips, and the rates beside the training's own."""

    chips: int = Field(20, ge=20)
    rates: tuple[Rate, ...] = ()


class CampaignSettings(ChipSettings):
    """The measurement of a search's nets.

    ``layer_chips``: chips on which the winner's layers fail one at a time; 0 leaves that out.
    """

    layer_chips: int = Field(4, ge=0)


class ComparisonSettings(Section):
    """What the winner is compared with, all trained and measured alike.

    ``numbers`` are quantisations of the baselines' convolutions and the hand-made cells' edges, each giving a net of
    its own: the published 8 bits with power-of-two ranges by default. ``random_cells`` have the winner's FLOPs to
    within ``flops_tolerance``; the channels of ``hand_made`` cells and, where scaled, of baselines bring them nearest
    to it.
    """

    baselines: tuple[Baseline, ...] = ("mobilenet_v2", "resnet20")
    sizes: tuple[SizeKind, ...] = ("scaled",)
    trainings: tuple[TrainingKind, ...] = ("fault-tolerant",)
    numbers: tuple[QuantizationChoice, ...] = Field((Quantization(),), min_length=1)
    hand_made: tuple[Literal["separable", "dense"], ...] = ("separable",)
    random_cells: int = Field(2, ge=0)
    flops_tolerance: float = Field(0.15, gt=0, lt=1)


class Recipe(Section):
    """How nets are trained and measured: what a search, a training and a comparison have in common.

    ``faults``: what a training injects, and at which rates; ``campaign.rates`` are measured beside them.
    """

    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataSettings = DataSettings()
    faults: tuple[Fault, ...] = ()
    training: TrainingSettings = TrainingSettings()
    campaign: ChipSettings = ChipSettings()

    @model_validator(mode="after")
    def _has_directory(self) -> Self:
        if self.data.directory is None and self.data.name in DIRECTORIES:
            raise ValueError(f"data.directory: {DIRECTORIES[self.data.name]} is needed for data set {self.data.name}")
        return self

    def to_yaml(self) -> str:
        """Return the whole configuration, defaults included, as YAML that loads back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


class TrainConfig(Recipe):
    """Everything that decides what one training computes.

    ``net``: a baseline, a genotype's .json file, or ``FILE.py:NAME``. ``space``: that a genotype is of. ``width`` and
    ``numbers``: of a baseline, its width multiplier and the quantisation of its convolutions. ``bits``: of weights and
    features of a net from a Python file. ``kind``: ``plain`` trains without the faults that are measured.
    """

    net: str
    kind: TrainingKind = "fault-tolerant"
    space: str | None = None
    width: float = Field(1.0, gt=0)
    numbers: QuantizationChoice = Quantization()
    bits: int = Field(8, ge=2, le=16)


class CompareConfig(Recipe):
    """Everything that decides what a comparison of nets computes; the others are held against the first of ``nets``.

    ``sizes``, ``trainings`` and ``numbers`` are of baselines, as in ``ComparisonSettings``: scaled ones come nearest to
    the FLOPs of the first net. Classes of a Python file are trained in each of ``trainings``, too. ``bits``: of the
    nets from files that are not quantised yet.
    """

    nets: tuple[str, ...] = Field(min_length=1)
    workers: int = Field(1, ge=1)
    sizes: tuple[SizeKind, ...] = Field(("scaled",), min_length=1)
    trainings: tuple[TrainingKind, ...] = Field(("fault-tolerant",), min_length=1)
    numbers: tuple[QuantizationChoice, ...] = Field((Quantization(),), min_length=1)
    bits: int = Field(8, ge=2, le=16)
    faults: tuple[Fault, ...] = Field(min_length=1)

    @field_validator("nets")
    @classmethod
    def _each_once(cls, nets: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(nets)) < len(nets):
            raise ValueError(f"each net once, got {', '.join(nets)}")
        return nets


class RunConfig(Recipe):
    """Everything that decides what a run computes. ``family``: of the nets searched for; spiking ones have their own
    keys.
    """

    family: Literal["cells"] = "cells"
    name: Name
    workers: int = Field(1, ge=1)
    space: str = "digits"
    faults: tuple[Fault, ...] = Field(min_length=1)
    supernet: SupernetSettings = SupernetSettings()
    search: ControllerSettings
    scoring: ScoringSettings = ScoringSettings()
    finalists: FinalistSettings = FinalistSettings()
    campaign: CampaignSettings = CampaignSettings()
    comparison: ComparisonSettings = ComparisonSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.finalists.top > self.scoring.leaders:
            raise ValueError(
                f"finalists.top: at most scoring.leaders ({self.scoring.leaders}), got {self.finalists.top}"
            )
        return self


def load_config(path: Path, *, assignments: Sequence[str] = (), data_directory: Path | None = None) -> RunConfig:
    """Load a configuration.

    Args:
        path: the YAML file.
        assignments: ``a.b=value`` texts, applied in order.
        data_directory: replaces ``data.directory``.

    Raises:
        ConfigError: a key, type or value is wrong; one line each.
    """
    return run_config(override(read_yaml(path), assignments), path, data_directory=data_directory)


def run_config(keys: Mapping[str, Any], source: Path, *, data_directory: Path | None = None) -> RunConfig:
    """Return the configuration that ``keys``, read from the file ``source``, are.

    Args:
        keys: of the configuration.
        source: begins the line of an error; a space's file is looked for beside it.
        data_directory: replaces ``data.directory``.

    Raises:
        ConfigError: a key, type or value is wrong; one line each.
    """
    content = with_data_directory(keys, data_directory)
    if isinstance(content.get("space"), str) and Path(content["space"]).suffix in (".yaml", ".yml"):
        content["space"] = str((source.parent / content["space"]).resolve())
    return validate(RunConfig, content, source=str(source))


def with_data_directory(keys: Mapping[str, Any], directory: Path | None) -> dict[str, Any]:
    """Return ``keys`` with ``directory``, if there is one, as ``data.directory``."""
    data = keys.get("data", {})
    is_changed = directory is not None and isinstance(data, Mapping)
    return {**keys, "data": {**data, "directory": str(directory)}} if is_changed else dict(keys)


def faults_and_rates(texts: Sequence[str]) -> tuple[list[str], list[float]]:
    """Return ``faults`` at the first of the rates that ``texts`` list, and the others as ``campaign.rates``.

    Raises:
        CampaignError: the rates of several faults do not change in proportion, as those of a campaign do here.
        FaultError: a fault is impossible.
    """
    first, *others = levels_of(list(texts), None)
    for level in others:
        expected = tuple(at_rate(first.faults, level.rate))
        if not all(math.isclose(a.rate, b.rate) for a, b in zip(level.faults, expected, strict=True)):
            raise CampaignError(
                f"faults: {' + '.join(map(str, level.faults))} are not {' + '.join(map(str, first.faults))} in "
                f"proportion; allowed at {level.rate:g} is {' + '.join(map(str, expected))}"
            )
    return [str(fault) for fault in first.faults], [level.rate for level in others]
