"""The configuration of a search for layered spiking nets (``family: snn-dense``)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, PlainSerializer, PlainValidator, ValidationError, field_validator, model_validator

from ftnas.configuration import Name, Section, validate
from ftnas.errors import FaultError
from ftnas.pipeline.config import DIRECTORIES, DataSettings, Recipe, with_data_directory
from ftnas.search.choice_study import ChoiceStudySettings
from ftnas.space import Decision
from ftnas.spiking.dense.hardware_faults import AnyFault, parse_any
from ftnas.spiking.dense.scoring import Start, settled
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.training import TrainingSettings

START: tuple[Start, ...] = ("scratch", "converted")
FIXED = ("family",)


def _fault(given: Any) -> AnyFault:
    if not isinstance(given, str):
        return given  # type: ignore[no-any-return]
    try:
        return parse_any(given)
    except FaultError as error:
        raise ValueError(str(error)) from None


Fault = Annotated[Any, PlainValidator(_fault), PlainSerializer(str, return_type=str)]


class LayeredScoring(Section):
    """How a candidate is scored: trained for ``epochs`` on a part of the training images, measured on the other.

    ``validation_share``: of the training images, on which candidates are measured. ``chips``: that a score is the mean
    of.
    """

    epochs: int = Field(8, ge=1)
    validation_share: float = Field(0.25, gt=0, lt=1)
    chips: int = Field(8, ge=1)


class LayeredFinalists(Section):
    """The nets of the front that are trained in full: the ``top`` by faulty accuracy, measured on ``chips`` chips."""

    top: int = Field(3, ge=1)
    chips: int = Field(20, ge=2)


class LayeredSearchConfig(Section):
    """Everything that decides what a search for layered spiking nets computes.

    ``base``: keys of a net (see ``SpikingSpec``) that all have. ``space``: for other keys the options among which the
    study chooses, and for ``start`` whether a net is trained from ``scratch`` or ``converted`` from a quantised ReLU
    net. The study maximises accuracy under ``faults`` and minimises synapses and spikes. ``training``: of the
    finalists; that of candidates differs in its epochs only.
    """

    family: Literal["snn-dense"] = "snn-dense"
    name: Name
    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataSettings = DataSettings()
    faults: tuple[Fault, ...] = Field(min_length=1)
    base: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, tuple[Any, ...]] = Field(min_length=1)
    search: ChoiceStudySettings = ChoiceStudySettings()
    training: TrainingSettings = TrainingSettings(learning_rate=0.02, epochs=30)
    scoring: LayeredScoring = LayeredScoring()
    finalists: LayeredFinalists = LayeredFinalists()

    @field_validator("space")
    @classmethod
    def _options_differ(cls, space: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        known = [*(key for key in SpikingSpec.model_fields if key not in FIXED), "start"]
        for key, options in space.items():
            if key not in known:
                raise ValueError(f"{key}: unknown key; choose from {', '.join(known)}")
            if not options or len({str(option) for option in options}) < len(options):
                raise ValueError(f"{key}: one or more different options are needed, got {list(options)}")
            if key == "start" and not all(option in START for option in options):
                raise ValueError(f"start: choose from {', '.join(START)}, got {list(options)}")
        return space

    @model_validator(mode="after")
    def _nets_exist(self) -> Self:
        if self.data.directory is None and self.data.name in DIRECTORIES:
            raise ValueError(f"data.directory: {DIRECTORIES[self.data.name]} is needed for data set {self.data.name}")
        doubled = [key for key in self.base if key in self.space]
        if doubled:
            raise ValueError(f"base.{doubled[0]}: is among the choices of space; give it once")
        # Keys constrain each other in threshold and limit only, so that these go through together.
        joint = [key for key in self.space if key in ("threshold", "membrane_limit")]
        for key in self.space:
            if key not in joint:
                for option in self.space[key]:
                    self._try({key: option})
        for options in itertools.product(*(self.space[key] for key in joint)):
            self._try(dict(zip(joint, options, strict=True)))
        return self

    @property
    def decisions(self) -> list[Decision]:
        """What the study chooses."""
        return [Decision(key, len(options)) for key, options in self.space.items()]

    def net(self, choices: Mapping[str, int]) -> tuple[SpikingSpec, Start]:
        """Return the net that ``choices`` mean, and how it comes to its weights."""
        chosen = {key: self.space[key][choices[key]] for key in self.space}
        start: Start = chosen.pop("start", "scratch")
        return settled(SpikingSpec.model_validate({**self.base, **chosen}), start), start

    @property
    def recipe(self) -> Recipe:
        """What this has in common with other searches."""
        return Recipe(seed=self.seed, threads=self.threads, device=self.device, data=self.data, training=self.training)

    def to_yaml(self) -> str:
        """Return the whole configuration, defaults included, as YAML that loads back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def _try(self, keys: Mapping[str, Any]) -> None:
        chosen = {key: value for key, value in keys.items() if key != "start"}
        # The default of the one is not to forbid what is chosen for the other.
        try:
            SpikingSpec.model_validate({**self.base, **chosen})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or ", ".join(chosen) or "base"
            section = "space" if str(first["loc"][0] if first["loc"] else "") in chosen else "base"
            message = str(first["msg"]).removeprefix("Value error, ")
            given = "" if ", got " in message or "got " in message else f", got {first.get('input')!r}"
            raise ValueError(f"{section}.{place}: {message}{given}") from None


def layered_config(keys: Mapping[str, Any], source: Path, *, data_directory: Path | None = None) -> LayeredSearchConfig:
    """Return the configuration that ``keys``, read from the file ``source``, are.

    Args:
        keys: of the configuration.
        source: begins the line of an error.
        data_directory: replaces ``data.directory``.

    Raises:
        ConfigError: a key, type or value is wrong; one line each.
    """
    return validate(LayeredSearchConfig, with_data_directory(keys, data_directory), source=str(source))
