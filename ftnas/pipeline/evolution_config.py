"""The configuration of an evolution of spiking graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, field_validator

from ftnas.configuration import Name, Section, validate
from ftnas.errors import FaultError
from ftnas.spiking.graph.encoding import Encoding
from ftnas.spiking.graph.genome import Processor
from ftnas.spiking.graph.perturbation import parse_perturbation, parse_perturbations
from ftnas.spiking.graph.settings import EvolutionSettings, FitnessSettings
from ftnas.spiking.graph.tasks import TASKS


def _task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"unknown task; choose from {', '.join(TASKS)}")
    return name


class GraphMeasurement(Section):
    """What the found nets are measured under. ``faults``: each with its strengths; the first strength is that of the
    figure. ``chips``: for each strength, on test samples. ``fresh_chips``: on training samples, on which the winner is
    chosen. ``leaders``: of ``scalar``, so many nets are measured.
    """

    faults: tuple[str, ...] = Field(("weights.gaussian:0.2,0.1,0.3", "weights.bit_flip:0.02,0.05"), min_length=1)
    chips: int = Field(50, ge=2)
    fresh_chips: int = Field(20, ge=2)
    leaders: int = Field(5, ge=1)

    @field_validator("faults")
    @classmethod
    def _faults_exist(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            _as_value_error(parse_perturbations, text)
        return texts


class GraphSearchConfig(Section):
    """Everything that decides what an evolution of spiking graphs computes.

    ``family``: ``snn-graph``. ``task``: what the nets are for. ``processor``: that they run on. ``encoding``: of their
    inputs. ``faults``: what a faulty accuracy is under, all on every chip. ``chips``: of a faulty accuracy.
    ``renew_chips``: whether every generation has chips of its own, so that no net is fitted to a few of them; without,
    nets are scored once and the front's hypervolume never falls. ``evolution``: how nets descend from nets.
    ``fitness``: one number of what counts. ``measurement``: of the nets found.
    """

    family: Literal["snn-graph"]
    name: Name
    seed: int = Field(0, ge=0)
    task: Annotated[str, AfterValidator(_task)] = "wine"
    processor: Processor = Processor()
    encoding: Encoding = Encoding()
    faults: tuple[str, ...] = Field(("weights.gaussian:0.2",), min_length=1)
    chips: int = Field(5, ge=1)
    renew_chips: bool = True
    evolution: EvolutionSettings = EvolutionSettings()
    fitness: FitnessSettings = FitnessSettings()
    measurement: GraphMeasurement = GraphMeasurement()

    @field_validator("faults")
    @classmethod
    def _faults_exist(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            _as_value_error(parse_perturbation, text)
        return texts

    def to_yaml(self) -> str:
        """Return the whole configuration, defaults included, as YAML that loads back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def graph_config(keys: Mapping[str, Any], source: Path) -> GraphSearchConfig:
    """Return the configuration that ``keys``, read from the file ``source``, are.

    Raises:
        ConfigError: a key, type or value is wrong; one line each.
    """
    return validate(GraphSearchConfig, keys, source=str(source))


def _as_value_error(parse: Any, text: str) -> None:
    try:
        parse(text)
    except FaultError as error:
        raise ValueError(str(error)) from None
