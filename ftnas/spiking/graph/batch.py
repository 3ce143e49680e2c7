"""Many nets as one: their neurons below one another, their synapses in one list, ready to be simulated together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ftnas.spiking.graph.genome import Genome, Processor

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class NetworkBatch:
    """Nets of one number of inputs and outputs. A row is a neuron that is no input: of each net first its outputs.

    Attributes:
        processor: what the nets run on.
        inputs: of each net.
        outputs: of each net.
        nets: how many.
        row_net: which net a row is of ``[rows]``, rising.
        row_node: its number in that net ``[rows]``.
        thresholds: ``[rows]``; a dead neuron's is infinite.
        net: which net a synapse is of ``[synapses]``.
        source: the number of the neuron that it comes from ``[synapses]``.
        target: of the neuron that it leads to ``[synapses]``.
        weights: ``[synapses]``, whole numbers unless they drift.
        delays: in steps ``[synapses]``.
        noise: standard deviation of an event's charge, in units of weights, by net ``[nets]``.
        chip: which chip a net runs on, by net ``[nets]``; -1 for one without faults.
        study: with the chip's number it decides what fails there.
    """

    processor: Processor
    inputs: int
    outputs: int
    nets: int
    row_net: Integers
    row_node: Integers
    thresholds: Floats
    net: Integers
    source: Integers
    target: Integers
    weights: Floats
    delays: Integers
    noise: Floats
    chip: Integers
    study: str = ""

    @property
    def nodes(self) -> int:
        """How many numbers a neuron of a net may have, inputs, outputs and empty slots counted."""
        return self.inputs + self.outputs + self.processor.hidden_max

    @property
    def output_rows(self) -> Integers:
        """The rows of the outputs ``[nets, outputs]``."""
        first = np.searchsorted(self.row_net, np.arange(self.nets))
        return first[:, None] + np.arange(self.outputs)

    def row_of(self, net: Integers, node: Integers) -> Integers:
        """Return the rows of neurons that are no inputs."""
        table = np.full((self.nets, self.nodes), -1)
        table[self.row_net, self.row_node] = np.arange(len(self.row_net))
        return np.asarray(table[net, node])


def batch_of(genomes: Sequence[Genome], processor: Processor) -> NetworkBatch:
    """Return nets without faults, ready to be simulated; all have the inputs and outputs of the first."""
    neurons = [(number, node, threshold) for number, g in enumerate(genomes) for node, threshold in _in_order(g)]
    synapses = [(number, *synapse) for number, g in enumerate(genomes) for synapse in g.synapses]
    rows = np.array(neurons, dtype=np.int64).reshape(-1, 3)
    lines = np.array(synapses, dtype=np.int64).reshape(-1, 5)
    return NetworkBatch(
        processor=processor,
        inputs=genomes[0].inputs,
        outputs=genomes[0].outputs,
        nets=len(genomes),
        row_net=rows[:, 0],
        row_node=rows[:, 1],
        thresholds=rows[:, 2].astype(np.float32),
        net=lines[:, 0],
        source=lines[:, 1],
        target=lines[:, 2],
        weights=lines[:, 3].astype(np.float32),
        delays=lines[:, 4],
        noise=np.zeros(len(genomes), np.float32),
        chip=np.full(len(genomes), -1),
    )


def _in_order(genome: Genome) -> list[tuple[int, int]]:
    """Return number and threshold of each neuron, rising: outputs have lower numbers than hidden neurons."""
    return sorted(genome.thresholds.items())


def joined(batches: Sequence[NetworkBatch]) -> NetworkBatch:
    """Return all nets of ``batches`` as one batch, in that order; those on chips are all of the last one's study."""
    first = batches[0]
    offsets = np.cumsum([0, *(batch.nets for batch in batches)])

    def several(name: str, *, shifted: bool = False) -> NDArray[np.generic]:
        parts = [getattr(batch, name) for batch in batches]
        return np.concatenate(
            [part + offset for part, offset in zip(parts, offsets, strict=False)] if shifted else parts
        )

    plain = ("row_node", "thresholds", "source", "target", "weights", "delays", "noise", "chip")
    return replace(
        first,
        nets=int(offsets[-1]),
        study=batches[-1].study,
        **{name: several(name) for name in plain},  # type: ignore[arg-type]
        **{name: several(name, shifted=True) for name in ("row_net", "net")},  # type: ignore[arg-type]
    )
