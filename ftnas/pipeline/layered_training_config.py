"""The configuration of one training of a layered spiking net."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ftnas.configuration import Section, read_yaml, validate
from ftnas.errors import ConfigError, FtnasError
from ftnas.pipeline.config import DIRECTORIES, DataSettings, Recipe, TrainingKind
from ftnas.pipeline.spiking_nets import graph_file, spiking_file
from ftnas.spiking.dense.attack import SpikingLevel, spiking_levels
from ftnas.spiking.dense.scoring import settled
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.training import TrainingSettings

YAML = (".yaml", ".yml")
FAMILY = "snn-dense"


class ChipCount(Section):
    """On how many chips a trained net is measured for each rate."""

    chips: int = Field(20, ge=2)


class LayeredTrainConfig(Section):
    """Everything that decides what one training of a layered spiking net computes.

    ``net``: a YAML file with the keys of a net, or a net: a search's folder, a training's, a ``.json`` or ``.nir``
    file. ``start``: where its weights begin: ``scratch``, ``converted`` from a quantised ReLU net, or ``weights``,
    those of the net, which are the default where it has some. ``faults``: what is trained under as far as any quantised
    net can have it, and measured, at one or several rates. ``kind``: ``plain`` trains without faults. ``map``: what is
    broken on the chip that the net is for. ``bypass``: the chip passes its broken synapses by, so they count as 0.
    ``learn_threshold``: whether thresholds learn, by default as the net says.
    """

    net: str
    start: Literal["scratch", "converted", "weights"] | None = None
    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataSettings = DataSettings()
    faults: tuple[str, ...] = ()
    kind: TrainingKind = "fault-tolerant"
    training: TrainingSettings = TrainingSettings(learning_rate=0.02, epochs=30, objective="qat")
    campaign: ChipCount = ChipCount()
    map: str | None = None
    bypass: bool = True
    learn_threshold: bool | None = None

    @field_validator("faults")
    @classmethod
    def _faults_exist(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        try:
            if texts:
                spiking_levels(texts)
        except FtnasError as error:
            raise ValueError(str(error)) from None
        return texts

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.data.directory is None and self.data.name in DIRECTORIES:
            raise ValueError(f"data.directory: {DIRECTORIES[self.data.name]} is needed for data set {self.data.name}")
        if self.start == "converted" and self.map is not None:
            raise ValueError("start: a net that is converted knows no map; convert it first, then train the result")
        if self.start == "converted" and self.learn_threshold:
            raise ValueError("learn_threshold: a ReLU net has no thresholds to learn")
        if self.map is None and not self.bypass:
            raise ValueError("bypass: would change nothing without a map")
        return self

    @property
    def levels(self) -> tuple[SpikingLevel, ...]:
        """What is measured; the first is trained under."""
        return spiking_levels(self.faults) if self.faults else ()

    @property
    def recipe(self) -> Recipe:
        """What this has in common with other trainings."""
        return Recipe(seed=self.seed, threads=self.threads, device=self.device, data=self.data, training=self.training)

    def to_yaml(self) -> str:
        """Return the whole configuration, defaults included, as YAML that loads back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def is_layered_training(text: object) -> bool:
    """Return whether ``text`` names a spiking net, or a YAML file with the keys of one."""
    if not isinstance(text, str):
        return False
    path = Path(text)
    if path.suffix in YAML and path.is_file():
        try:
            return read_yaml(path).get("family") == FAMILY and "name" not in read_yaml(path)
        except ConfigError:
            return False
    return spiking_file(text) is not None or graph_file(text) is not None


def layered_train_config(keys: Mapping[str, Any], source: str) -> LayeredTrainConfig:
    """Return the configuration that ``keys`` are; ``source`` begins the line of an error.

    Raises:
        ConfigError: a key, type or value is wrong, or the net is none that is trained.
    """
    config = validate(LayeredTrainConfig, keys, source=source)
    if graph_file(config.net) is not None:
        raise ConfigError(f"{source}: net: {config.net} is a spiking graph, which is evolved (ftnas search)")
    if config.start == "weights" and Path(config.net).suffix in YAML:
        raise ConfigError(f"{source}: start: {config.net} holds the keys of a net and no weights")
    return config


def specification(config: LayeredTrainConfig) -> SpikingSpec:
    """Return the net that the YAML file of ``config`` describes.

    Raises:
        ConfigError: a key or value of the file is wrong.
    """
    spec = validate(SpikingSpec, read_yaml(Path(config.net)), source=config.net)
    return with_thresholds(spec, config)


def with_thresholds(spec: SpikingSpec, config: LayeredTrainConfig) -> SpikingSpec:
    """Return ``spec`` as the training changes it: whether thresholds learn, and what a conversion settles."""
    keys = {} if config.learn_threshold is None else {"learn_threshold": config.learn_threshold}
    try:
        return settled(spec.model_copy(update=keys), "converted" if config.start == "converted" else "scratch")
    except ValidationError as error:
        raise ConfigError(f"{config.net}: {error.errors()[0]['msg']}") from None
