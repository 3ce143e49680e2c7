"""What fails in a graph of spiking neurons: a chip is a table over all neurons and synapses that a net may have.

So the synapse from neuron 3 to neuron 28 fails alike in every net of a generation, whatever else a net holds, and nets
are compared on the same chips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ftnas.errors import FaultError
from ftnas.runtime import keyed_generator
from ftnas.spiking.graph.batch import NetworkBatch, joined

# Charges are multiples of this, so that sums of them in float32 are exact in whatever order they are made: the largest
# potential, some 10^4, has 14 bits above the point, and float32 keeps 24 in all.
GRAIN = 1 / 64
FACTORS = (0.1, 3.0)  # of a threshold that fails


@dataclass(frozen=True, slots=True)
class Perturbation:
    """A kind of fault and how much of it.

    Attributes:
        name: one of ``PERTURBATIONS``.
        strength: 0 or more; of all but noise a probability.
    """

    name: str
    strength: float

    def __post_init__(self) -> None:
        if self.name not in PERTURBATIONS:
            raise FaultError(f"unknown fault {self.name!r} of spiking graphs; choose from {', '.join(PERTURBATIONS)}")
        most = 10.0 if self.name in NOISE else 1.0
        if not 0 <= self.strength <= most:
            raise FaultError(f"fault {self.name}: strength is {self.strength:g}; allowed is 0 to {most:g}")

    def __str__(self) -> str:
        return f"{self.name}:{self.strength:g}"


def parse_perturbations(text: str) -> tuple[Perturbation, ...]:
    """Read a fault at one or several strengths: ``weights.gaussian:0.1,0.2``.

    Raises:
        FaultError: the name is unknown, or a strength is no number or out of its range.
    """
    name, colon, strengths = (part.strip() for part in text.partition(":"))
    if not colon or not strengths:
        raise FaultError(f"fault {text!r} has no strength; write it as {name or 'weights.gaussian'}:0.1")
    try:
        numbers = [float(part) for part in strengths.split(",")]
    except ValueError:
        raise FaultError(f"fault {text!r}: its strengths must be numbers, got {strengths!r}") from None
    return tuple(Perturbation(name, number) for number in numbers)


def parse_perturbation(text: str) -> Perturbation:
    """Read a fault at one strength: ``weights.gaussian:0.1``.

    Raises:
        FaultError: as ``parse_perturbations``, or there are several strengths.
    """
    found = parse_perturbations(text)
    if len(found) != 1:
        raise FaultError(f"fault {text!r}: one strength is allowed here, got {len(found)}")
    return found[0]


def on_chips(batch: NetworkBatch, faults: Sequence[Perturbation], chips: Iterable[int], study: str) -> NetworkBatch:
    """Return all nets of ``batch`` on the first of ``chips``, then all on the second, and so on.

    Args:
        batch: nets without faults.
        faults: what fails, in this order, on every chip.
        chips: their numbers.
        study: with a chip's number it decides what fails there.
    """
    return joined([_on_chip(batch, faults, chip, study) for chip in chips])


def _on_chip(batch: NetworkBatch, faults: Sequence[Perturbation], chip: int, study: str) -> NetworkBatch:
    batch = replace(batch, chip=np.full(batch.nets, chip), study=study)
    for fault in sorted(faults, key=lambda fault: _ORDER[fault.name]):
        if fault.strength > 0:
            rng = keyed_generator("spiking graph", study, chip, fault.name)
            batch = PERTURBATIONS[fault.name](batch, fault.strength, rng)
    return batch


def _flip_bits(batch: NetworkBatch, rate: float, rng: torch.Generator) -> NetworkBatch:
    """Flip each bit of each weight's two's complement code with probability ``rate``."""
    bits = batch.processor.weight_bits
    table = _uniform(rng, batch.nodes, batch.nodes, bits) < rate
    return replace(batch, weights=_with_bits_flipped(batch, (table * (1 << np.arange(bits))).sum(axis=2)))


def _with_bits_flipped(batch: NetworkBatch, masks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the weights with those bits of their codes flipped that ``masks`` ``[nodes, nodes]`` say."""
    bits = batch.processor.weight_bits
    codes = batch.weights.astype(np.int64) & (2**bits - 1)
    flipped = codes ^ masks[batch.source, batch.target]
    return np.asarray(flipped - (flipped >> (bits - 1) << bits), np.float32)


def _drift(batch: NetworkBatch, sigma: float, rng: torch.Generator) -> NetworkBatch:
    """Add N(0, sigma n) to each weight and cut it off at -n and n."""
    limit = batch.processor.weight_max
    table = torch.randn(batch.nodes, batch.nodes, generator=rng, dtype=torch.float64).numpy()
    moved = batch.weights + sigma * limit * table[batch.source, batch.target]
    return replace(batch, weights=on_grain(np.clip(moved, -limit, limit)))


def _kill_synapses(batch: NetworkBatch, rate: float, rng: torch.Generator) -> NetworkBatch:
    dead = _uniform(rng, batch.nodes, batch.nodes) < rate
    return replace(batch, weights=np.where(dead[batch.source, batch.target], np.float32(0), batch.weights))


def _saturate_synapses(batch: NetworkBatch, rate: float, rng: torch.Generator) -> NetworkBatch:
    """Let weights read as the end of their range, on their own side of 0."""
    limit = np.float32(batch.processor.weight_max)
    return _reading(batch, rate, rng, np.where(batch.weights < 0, -limit, limit))


def _stick_synapses(batch: NetworkBatch, rate: float, rng: torch.Generator) -> NetworkBatch:
    """Let weights read as one random code each."""
    half = 2 ** (batch.processor.weight_bits - 1)
    codes = np.floor(_uniform(rng, batch.nodes, batch.nodes) * 2 * half) - half
    return _reading(batch, rate, rng, codes[batch.source, batch.target])


def _flip_synapses(batch: NetworkBatch, rate: float, rng: torch.Generator) -> NetworkBatch:
    """Let one random bit of weights be flipped."""
    bits = np.floor(_uniform(rng, batch.nodes, batch.nodes) * batch.processor.weight_bits).astype(np.int64)
    return _reading(batch, rate, rng, _with_bits_flipped(batch, 1 << bits))


def _reading(batch: NetworkBatch, rate: float, rng: torch.Generator, weights: NDArray[np.floating]) -> NetworkBatch:
    """Return ``batch`` with ``weights`` ``[synapses]`` in place of those of the synapses that fail."""
    failing = (_uniform(rng, batch.nodes, batch.nodes) < rate)[batch.source, batch.target]
    return replace(batch, weights=np.where(failing, weights, batch.weights).astype(np.float32))


def _saturate_neurons(batch: NetworkBatch, rate: float, rng: torch.Generator) -> NetworkBatch:
    """Let neurons that are no inputs fire in every step."""
    firing = _uniform(rng, batch.nodes) < rate
    return replace(batch, thresholds=np.where(firing[batch.row_node], np.float32(-np.inf), batch.thresholds))


def _stick_neurons(batch: NetworkBatch, rate: float, rng: torch.Generator) -> NetworkBatch:
    """Let the potential of neurons be one random number: from its threshold on a neuron always fires, below never."""
    low, high = batch.processor.potential_min, batch.processor.threshold_max
    held = low + np.floor(_uniform(rng, batch.nodes) * (high - low + 1))
    stuck = (_uniform(rng, batch.nodes) < rate)[batch.row_node]
    always = held[batch.row_node] >= batch.thresholds
    constant = np.where(always, np.float32(-np.inf), np.float32(np.inf))
    return replace(batch, thresholds=np.where(stuck, constant, batch.thresholds))


def _move_thresholds(batch: NetworkBatch, rate: float, rng: torch.Generator) -> NetworkBatch:
    """Let thresholds be a random factor of themselves, 0.1 to 3 as in SpikeFI, and 1 or more."""
    low, high = FACTORS
    factor = (low + (high - low) * _uniform(rng, batch.nodes))[batch.row_node]
    failing = (_uniform(rng, batch.nodes) < rate)[batch.row_node]
    moved = np.maximum(1, np.rint(batch.thresholds * factor)).astype(np.float32)
    return replace(batch, thresholds=np.where(failing, moved, batch.thresholds))


def _kill_neurons(batch: NetworkBatch, rate: float, rng: torch.Generator) -> NetworkBatch:
    """Let neurons never fire; of a dead input the synapses carry nothing."""
    dead = _uniform(rng, batch.nodes) < rate
    silent = dead[batch.source] & (batch.source < batch.inputs)
    return replace(
        batch,
        thresholds=np.where(dead[batch.row_node], np.float32(np.inf), batch.thresholds),
        weights=np.where(silent, np.float32(0), batch.weights),
    )


def _add_noise(batch: NetworkBatch, sigma: float, rng: torch.Generator) -> NetworkBatch:
    """Let the charge of every event vary by N(0, sigma n); the simulator draws it."""
    return replace(batch, noise=np.full(batch.nets, sigma * batch.processor.weight_max, np.float32))


# What changes codes comes first, while they are whole numbers; what is dead comes last, as it stays dead.
PERTURBATIONS: Mapping[str, Callable[[NetworkBatch, float, torch.Generator], NetworkBatch]] = {
    "weights.bit_flip": _flip_bits,
    "synapses.flipped": _flip_synapses,
    "synapses.stuck": _stick_synapses,
    "synapses.saturated": _saturate_synapses,
    "weights.gaussian": _drift,
    "synapses.dead": _kill_synapses,
    "neurons.threshold": _move_thresholds,
    "neurons.stuck": _stick_neurons,
    "neurons.saturated": _saturate_neurons,
    "neurons.dead": _kill_neurons,
    "events.gaussian": _add_noise,
}
NOISE = ("weights.gaussian", "events.gaussian")  # strengths that are standard deviations, not probabilities
_ORDER = {name: order for order, name in enumerate(PERTURBATIONS)}


def event_noise(chip: int, study: str, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return the standard normal numbers of a chip's event noise, ``shape`` = [steps, neurons, samples]."""
    rng = keyed_generator("spiking graph", study, chip, "events")
    return np.asarray(torch.randn(*shape, generator=rng, dtype=torch.float32).numpy())


def on_grain(charges: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return ``charges`` rounded to multiples of ``GRAIN``."""
    return np.asarray(np.rint(charges / GRAIN) * GRAIN, np.float32)


def _uniform(rng: torch.Generator, *shape: int) -> NDArray[np.float64]:
    return torch.rand(*shape, generator=rng, dtype=torch.float64).numpy()
