"""The configuration of a run: one YAML file, the same keys for ``--set`` and in Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, model_validator

from ftnas.configuration import Section, override, read_yaml, validate
from ftnas.data import DATA_SETS
from ftnas.errors import FaultError
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


class CampaignSettings(Section):
    """The measurement on the test set: chips, and the rates beside the training's own."""

    chips: int = Field(20, ge=20)
    rates: tuple[Rate, ...] = ()


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


class RunConfig(Section):
    """Everything that decides what a run computes."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1)
    workers: int = Field(1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    space: str = "digits"
    data: DataSettings = DataSettings()
    faults: tuple[Fault, ...] = Field(min_length=1)
    supernet: SupernetSettings = SupernetSettings()
    search: ControllerSettings
    scoring: ScoringSettings = ScoringSettings()
    finalists: FinalistSettings = FinalistSettings()
    training: TrainingSettings = TrainingSettings()
    campaign: CampaignSettings = CampaignSettings()
    comparison: ComparisonSettings = ComparisonSettings()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.data.name == "npz" and self.data.directory is None:
            raise ValueError("data.directory: the path of the .npz file is needed for data set npz")
        if self.finalists.top > self.scoring.leaders:
            raise ValueError(
                f"finalists.top: at most scoring.leaders ({self.scoring.leaders}), got {self.finalists.top}"
            )
        return self

    def to_yaml(self) -> str:
        """Return the whole configuration, defaults included, as YAML that loads back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(path: Path, *, assignments: Sequence[str] = (), data_directory: Path | None = None) -> RunConfig:
    """Load a configuration.

    Args:
        path: the YAML file.
        assignments: ``a.b=value`` texts, applied in order.
        data_directory: replaces ``data.directory``.

    Raises:
        ConfigError: a key, type or value is wrong; one line each.
    """
    content = override(read_yaml(path), assignments)
    data = content.get("data", {})
    if data_directory is not None and isinstance(data, dict):
        content["data"] = {**data, "directory": str(data_directory)}
    if isinstance(content.get("space"), str) and Path(content["space"]).suffix in (".yaml", ".yml"):
        content["space"] = str((path.parent / content["space"]).resolve())
    return validate(RunConfig, content, source=str(path))
