"""A spiking net as a graph of neurons and synapses, and the processor whose numbers it must keep to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pydantic import Field

from ftnas.configuration import Section
from ftnas.errors import SpikingError

Leak = Literal["none", "all"]


class Processor(Section):
    """A discrete-time neuroprocessor in the manner of RISP: which numbers it stores, and what a neuron does with them.

    ``weight_bits``: of a synapse's weight, a two's complement code of that many bits; a net uses -n to n with
    n = 2^(bits - 1) - 1. ``threshold_max``: thresholds are whole numbers from 1 to it. ``delay_max``: a spike takes 1
    to so many steps. ``leak``: ``none`` keeps a potential until the neuron fires, ``all`` forgets it after each step.
    ``potential_min``: no potential falls below it. ``hidden_max``: how many neurons a net may have beside inputs and
    outputs.
    """

    weight_bits: int = Field(8, ge=2, le=12)
    threshold_max: int = Field(127, ge=1, le=4095)
    delay_max: int = Field(8, ge=1, le=32)
    leak: Leak = "none"
    potential_min: int = Field(-127, ge=-4096, le=0)
    hidden_max: int = Field(16, ge=0, le=256)

    @property
    def weight_max(self) -> int:
        """The largest weight, n."""
        return int(2 ** (self.weight_bits - 1) - 1)


class Synapse(NamedTuple):
    """A connection: what ``source`` fires arrives at ``target`` with ``weight``, ``delay`` steps later."""

    source: int
    target: int
    weight: int
    delay: int


@dataclass(frozen=True)
class Genome:
    """A net of ``inputs`` + ``outputs`` + hidden neurons, numbered in that order.

    Inputs are neurons that fire when the encoder says so; nothing else reaches them. A hidden neuron has the number of
    its slot, from ``inputs`` + ``outputs`` on, and slots may be empty: so a neuron keeps its number in all descendants.

    Attributes:
        thresholds: of every output and every hidden neuron that there is, by number.
        synapses: by source and target, at most one each.
    """

    inputs: int
    outputs: int
    thresholds: Mapping[int, int] = field(hash=False)
    synapses: tuple[Synapse, ...]

    @property
    def first_hidden(self) -> int:
        """The number of the first slot for a hidden neuron."""
        return self.inputs + self.outputs

    @cached_property
    def hidden(self) -> tuple[int, ...]:
        """The numbers of the hidden neurons that there are."""
        return tuple(sorted(node for node in self.thresholds if node >= self.first_hidden))

    @property
    def size(self) -> int:
        """Synapses and hidden neurons, what a search makes few of."""
        return len(self.synapses) + len(self.hidden)

    @cached_property
    def key(self) -> str:
        """A short name that equal nets share and others do not."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "thresholds": {str(node): self.thresholds[node] for node in sorted(self.thresholds)},
            "synapses": [list(synapse) for synapse in self.synapses],
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Genome:
        """Read what ``to_dict`` wrote, as it stands: what a user may have changed goes through ``checked``."""
        thresholds = {int(node): value for node, value in row["thresholds"].items()}
        return genome(row["inputs"], row["outputs"], thresholds, (Synapse(*synapse) for synapse in row["synapses"]))


def genome(inputs: int, outputs: int, thresholds: Mapping[int, int], synapses: Iterable[Synapse]) -> Genome:
    """Return a net with its neurons and synapses in order, so that equal nets are written alike."""
    return Genome(inputs, outputs, dict(sorted(thresholds.items())), tuple(sorted(synapses)))


def checked(net: Genome, processor: Processor, source: str) -> Genome:
    """Return ``net`` if ``processor`` can hold it.

    Args:
        net: from a file or any other place that may be wrong.
        processor: that it is for.
        source: begins the message of an error: the file.

    Raises:
        SpikingError: a neuron or synapse is impossible; the message names the first.
    """
    _check_neurons(net, processor, source)
    seen: set[tuple[int, int]] = set()
    for number, synapse in enumerate(net.synapses):
        place = f"{source}: synapse {number} ({synapse.source} to {synapse.target})"
        _check_synapse(net, synapse, processor, place)
        if synapse[:2] in seen:
            raise SpikingError(f"{place}: stands there twice; allowed is one synapse from a neuron to another")
        seen.add((synapse.source, synapse.target))
    return net


def _check_neurons(net: Genome, processor: Processor, source: str) -> None:
    last = net.first_hidden + processor.hidden_max - 1
    for node, threshold in net.thresholds.items():
        if not net.inputs <= node <= last:
            raise SpikingError(f"{source}: neuron {node}: allowed beside the inputs is {net.inputs} to {last}")
        _check_range(f"{source}: neuron {node}: threshold", threshold, 1, processor.threshold_max)
    for node in range(net.inputs, net.first_hidden):
        if node not in net.thresholds:
            raise SpikingError(f"{source}: output {node}: has no threshold; every output needs one")


def _check_synapse(net: Genome, synapse: Synapse, processor: Processor, place: str) -> None:
    if not (0 <= synapse.source < net.inputs or synapse.source in net.thresholds):
        raise SpikingError(f"{place}: comes from neuron {synapse.source}, which does not exist")
    if synapse.target not in net.thresholds:
        what = "is an input" if 0 <= synapse.target < net.inputs else "does not exist"
        raise SpikingError(f"{place}: leads to neuron {synapse.target}, which {what}; allowed are outputs and hidden")
    _check_range(f"{place}: weight", synapse.weight, -processor.weight_max, processor.weight_max)
    _check_range(f"{place}: delay", synapse.delay, 1, processor.delay_max)


def _check_range(what: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SpikingError(f"{what} is {value!r}; allowed is a whole number from {low} to {high}")
