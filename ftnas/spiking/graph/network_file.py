"""A spiking graph as a JSON file: the net, the processor that it is for, and how its inputs are encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftnas.configuration import validate
from ftnas.errors import ConfigError, RunError, SpikingError
from ftnas.files import read_json, write_json
from ftnas.spiking.graph.encoding import Encoding
from ftnas.spiking.graph.genome import Genome, Processor, Synapse, checked, genome
from ftnas.spiking.graph.tasks import TASKS

FORMAT = "ftnas spiking graph 1"
_KEYS = ("format", "task", "inputs", "outputs", "processor", "encoding", "neurons", "synapses")
_NEURON, _SYNAPSE = ("id", "threshold"), ("from", "to", "weight", "delay")


@dataclass(frozen=True)
class Network:
    """A net with everything that is needed to run it.

    Attributes:
        genome: its neurons and synapses.
        processor: that it runs on.
        encoding: of its inputs.
        task: the name of what it was made for.
    """

    genome: Genome
    processor: Processor
    encoding: Encoding
    task: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        net = self.genome
        return {
            "format": FORMAT,
            "task": self.task,
            "inputs": net.inputs,
            "outputs": net.outputs,
            "processor": self.processor.model_dump(mode="json"),
            "encoding": self.encoding.model_dump(mode="json"),
            "neurons": [dict(zip(_NEURON, pair, strict=True)) for pair in sorted(net.thresholds.items())],
            "synapses": [dict(zip(_SYNAPSE, synapse, strict=True)) for synapse in net.synapses],
        }


def write_network(path: Path, network: Network) -> None:
    """Write ``network`` to ``path``."""
    write_json(path, network.to_dict())


def read_network(path: Path) -> Network:
    """Read what ``write_network`` wrote, or what a user made like it.

    Raises:
        SpikingError: the file is missing, is no such net, or its net is impossible; the first mistake is named.
    """
    try:
        content = read_json(path)
    except RunError as error:
        raise SpikingError(str(error).partition("; delete")[0]) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SpikingError(f'{path}: is no spiking graph (it needs "format": "{FORMAT}")')
    _demand_keys(content, _KEYS, str(path))
    if not isinstance(content["task"], str) or content["task"] not in TASKS:
        raise SpikingError(f"{path}: task {content['task']!r} is unknown; choose from {', '.join(TASKS)}")
    try:
        processor = validate(Processor, _mapping(content, "processor", path), source=f"{path}: processor")
        encoding = validate(Encoding, _mapping(content, "encoding", path), source=f"{path}: encoding")
    except ConfigError as error:
        raise SpikingError(str(error).splitlines()[0]) from None
    net = checked(_genome(content, path), processor, str(path))
    return Network(net, processor, encoding, str(content["task"]))


def _genome(content: Mapping[str, Any], path: Path) -> Genome:
    for key in ("inputs", "outputs"):
        _whole(content[key], f"{path}: {key}", least=1)
    neurons = [_numbers(row, _NEURON, f"{path}: neuron {i}") for i, row in enumerate(_rows(content, "neurons", path))]
    synapses = [
        _numbers(row, _SYNAPSE, f"{path}: synapse {i}") for i, row in enumerate(_rows(content, "synapses", path))
    ]
    thresholds = {row[0]: row[1] for row in neurons}
    if len(thresholds) < len(neurons):
        numbers = [node for node, _ in neurons]
        twice = next(node for node in numbers if numbers.count(node) > 1)
        raise SpikingError(f"{path}: neuron {twice}: stands there twice")
    return genome(content["inputs"], content["outputs"], thresholds, (Synapse(*row) for row in synapses))


def _rows(content: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    rows = content[key]
    if not isinstance(rows, list):
        raise SpikingError(f"{path}: {key}: a list is needed, got {type(rows).__name__}")
    return rows


def _mapping(content: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    section = content[key]
    if not isinstance(section, dict):
        raise SpikingError(f"{path}: {key}: an object is needed, got {type(section).__name__}")
    return section


def _numbers(row: Any, keys: tuple[str, ...], place: str) -> list[int]:
    if not isinstance(row, dict):
        raise SpikingError(f"{place}: an object with {', '.join(keys)} is needed, got {row!r}")
    _demand_keys(row, keys, place)
    return [_whole(row[key], f"{place}: {key}") for key in keys]


def _whole(value: Any, place: str, least: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        raise SpikingError(
            f"{place}: a whole number{'' if least is None else f' from {least}'} is needed, got {value!r}"
        )
    return value


def _demand_keys(row: Mapping[str, Any], keys: tuple[str, ...], place: str) -> None:
    for key in keys:
        if key not in row:
            raise SpikingError(f"{place}: {key} is missing; needed are {', '.join(keys)}")
    for key in row:
        if key not in keys:
            raise SpikingError(f"{place}: unknown key {key!r}; choose from {', '.join(keys)}")
