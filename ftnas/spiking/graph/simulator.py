"""Nets in discrete time, many nets and all samples at once.

In a step every neuron adds what arrives, no potential falls below its least value, and a neuron whose potential has
reached its threshold fires and starts from 0 again: the semantics of the RISP processor (TENNLab's open framework).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ftnas.spiking.graph.batch import NetworkBatch
from ftnas.spiking.graph.perturbation import event_noise, on_grain

Floats = NDArray[np.float32]
Fired = NDArray[np.bool_]
Counts = NDArray[np.int64]

# A matrix with more entries than this share is multiplied as a whole, which is the quicker way then.
DENSE = 0.1
# Potentials that are held at a time, 4 MB: samples beyond them wait for the next round, which bounds the memory.
PIECE = 1 << 20


def spike_counts(batch: NetworkBatch, spikes: Floats) -> Counts:
    """Return how often each output fires, ``[nets, outputs, N]``.

    Args:
        batch: the nets.
        spikes: of the inputs, ``[steps, inputs, N]`` for all nets alike, or ``[steps, nets * inputs, N]`` for each net
            its own.
    """
    rows, samples = batch.output_rows.ravel(), spikes.shape[2]
    width = max(16, PIECE // max(1, len(batch.row_net)))
    pieces = []
    for start in range(0, samples, width):
        total = np.zeros((len(rows), min(width, samples - start)), np.int64)
        for fired in _steps(batch, spikes, slice(start, start + width)):
            total += fired[rows]
        pieces.append(total)
    return np.concatenate(pieces, axis=1).reshape(batch.nets, batch.outputs, samples)


def answers(counts: Counts) -> Counts:
    """Return the output that fires most, ``[nets, N]``, of several the first."""
    return np.asarray(counts.argmax(axis=1))


def spike_trains(batch: NetworkBatch, spikes: Floats) -> Fired:
    """Return when each neuron that is no input fires, ``[steps, rows, N]``; ``spikes`` as for ``spike_counts``."""
    return np.stack(list(_steps(batch, spikes, slice(0, spikes.shape[2]))))


def _steps(batch: NetworkBatch, spikes: Floats, samples: slice) -> Iterator[Fired]:
    """Yield which neurons fire ``[rows, samples]``, step by step."""
    inputs, neurons = _from_inputs(batch, spikes, samples), _from_neurons(batch, spikes, samples)
    lines = [line for line in (inputs, neurons) if line.matrix.shape[1]]
    noise = _Noise(batch, lines, len(spikes), samples, spikes.shape[2]) if batch.noise.any() else None
    thresholds, least = batch.thresholds[:, None], np.float32(batch.processor.potential_min)
    potential: Floats = np.zeros((len(thresholds), inputs.history.shape[2]), np.float32)
    for step in range(len(spikes)):
        if batch.processor.leak == "all":
            potential[:] = 0
        for line in lines:
            potential += line.arriving(step)
        if noise is not None:
            potential += noise.at(step)
        np.maximum(potential, least, out=potential)
        fired = potential >= thresholds
        np.multiply(potential, ~fired, out=potential)
        neurons.remember(step, fired)
        yield fired


@dataclass(frozen=True)
class _Line:
    """Synapses from a group of neurons, and what these have fired.

    Attributes:
        matrix: weights ``[rows, delays * senders]``, all of delay 1 first.
        history: ``[steps + delays, senders, samples]``, latest first, so that what arrives in a step lies together.
        senders: rows of the neurons; of inputs none, as their history is known from the start.
        steps: that are simulated.
    """

    matrix: csr_array | Floats
    history: Floats
    senders: NDArray[np.int64]
    steps: int

    def arriving(self, step: int) -> Floats:
        """Return what arrives in ``step``, ``[rows, samples]``."""
        first, delays = self.steps - step, len(self.history) - self.steps
        sent = self.history[first : first + delays].reshape(self.matrix.shape[1], -1)
        return np.asarray(self.matrix @ sent)

    def remember(self, step: int, fired: Fired) -> None:
        """Keep what the senders fire in ``step``."""
        if len(self.senders):
            self.history[self.steps - 1 - step] = fired[self.senders]


def _from_inputs(batch: NetworkBatch, spikes: Floats, samples: slice) -> _Line:
    """Return the synapses that come from inputs."""
    steps, count, _ = spikes.shape
    chosen = batch.source < batch.inputs
    delays = int(batch.delays[chosen].max(initial=0))
    own = batch.net[chosen] * batch.inputs if count != batch.inputs else 0
    sent = spikes[::-1, :, samples]
    history = np.zeros((steps + delays, *sent.shape[1:]), np.float32)
    history[:steps] = sent
    none = np.zeros(0, np.int64)
    return _Line(_matrix(batch, chosen, batch.source[chosen] + own, (delays, count)), history, none, steps)


def _from_neurons(batch: NetworkBatch, spikes: Floats, samples: slice) -> _Line:
    """Return the synapses that come from outputs and hidden neurons."""
    chosen = batch.source >= batch.inputs
    delays = int(batch.delays[chosen].max(initial=0))
    senders, place = np.unique(batch.row_of(batch.net[chosen], batch.source[chosen]), return_inverse=True)
    history = np.zeros((len(spikes) + delays, len(senders), spikes[0, :, samples].shape[1]), np.float32)
    return _Line(_matrix(batch, chosen, place, (delays, len(senders))), history, senders, len(spikes))


def _matrix(batch: NetworkBatch, chosen: Fired, place: NDArray[np.int64], size: tuple[int, int]) -> csr_array | Floats:
    """Return the weights of the ``chosen`` synapses from the senders at ``place``; ``size`` = (delays, senders)."""
    delays, senders = size
    rows = batch.row_of(batch.net[chosen], batch.target[chosen])
    columns = (batch.delays[chosen] - 1) * senders + place
    shape = (len(batch.row_net), delays * senders)
    matrix = csr_array((batch.weights[chosen], (rows, columns)), shape=shape)
    return matrix.toarray() if matrix.nnz > DENSE * shape[0] * shape[1] else matrix


def _carrying(matrix: csr_array | Floats) -> csr_array | Floats:
    """Return 1 where a synapse carries anything: the same product then counts events."""
    if isinstance(matrix, np.ndarray):
        return np.asarray(matrix != 0, np.float32)
    return csr_array((np.asarray(matrix.data != 0, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


class _Noise:
    """The noise of events: of k events that arrive together, sqrt(k) times that of one, since each has its own."""

    def __init__(self, batch: NetworkBatch, lines: Sequence[_Line], steps: int, samples: slice, total: int) -> None:
        self._counting = [replace(line, matrix=_carrying(line.matrix)) for line in lines]
        self._strength = batch.noise[batch.row_net][:, None]
        chips, place = np.unique(batch.chip, return_inverse=True)
        self._place = place[batch.row_net], batch.row_node - batch.inputs
        shape = (steps, batch.nodes - batch.inputs, total)
        self._normal = np.stack([event_noise(int(chip), batch.study, shape)[:, :, samples] for chip in chips])

    def at(self, step: int) -> Floats:
        """Return the noise of ``step``, ``[rows, samples]``."""
        events = sum(line.arriving(step) for line in self._counting)
        return on_grain(np.sqrt(events) * self._strength * self._normal[self._place[0], step, self._place[1]])
