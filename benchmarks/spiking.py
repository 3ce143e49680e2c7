"""Spiking graphs: how long an evolution takes, and how many synaptic events a second the simulator makes.

A synaptic event is a spike that arrives over a synapse. snntorch, where it is installed, runs the same nets with the
same weights on the same samples, one matrix product and one layer of neurons a step; both must count the same spikes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from timing import Goal, choose_clock, measure, parse_count, print_rows, verdict

from ftnas.pipeline.evolution import evolution_of
from ftnas.pipeline.evolution_config import GraphSearchConfig
from ftnas.spiking.graph.batch import NetworkBatch, batch_of, joined
from ftnas.spiking.graph.encoding import Encoding
from ftnas.spiking.graph.evolution import first_generation, next_generation
from ftnas.spiking.graph.genome import Genome, Processor, Synapse, genome
from ftnas.spiking.graph.simulator import spike_counts, spike_trains
from ftnas.spiking.graph.tasks import load_task

# A potential that nothing cuts off, as snntorch has none.
PROCESSOR = Processor(hidden_max=64, delay_max=1, potential_min=-4096)


@dataclass(frozen=True)
class Layers:
    """A net of layers as a graph: weights [out, in] of each layer, thresholds alike in all neurons."""

    weights: tuple[np.ndarray, ...]
    threshold: int

    def genome(self) -> Genome:
        """Return the graph; of two layers the hidden one comes after the outputs."""
        inputs, outputs = self.weights[0].shape[1], self.weights[-1].shape[0]
        first = range(inputs)
        last = range(inputs, inputs + outputs)
        hidden = range(inputs + outputs, inputs + outputs + (self.weights[0].shape[0] if len(self.weights) > 1 else 0))
        places = [first, hidden, last] if hidden else [first, last]
        synapses = [
            Synapse(places[layer][source], places[layer + 1][target], int(matrix[target, source]), 1)
            for layer, matrix in enumerate(self.weights)
            for target, source in zip(*np.nonzero(matrix), strict=True)
        ]
        return genome(inputs, outputs, dict.fromkeys([*last, *hidden], self.threshold), synapses)

    def in_snntorch(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a function from spikes [steps, N, inputs] to counts [N, outputs]."""
        import snntorch

        # It fires above its threshold, not at it; weights are whole numbers. It hears a spike in the same step, so a
        # layer is called with what the one before fired a step ago.
        neurons = [
            snntorch.Leaky(beta=1.0, threshold=self.threshold - 0.5, reset_mechanism="zero", reset_delay=False)
            for _ in self.weights
        ]
        matrices = [torch.tensor(matrix, dtype=torch.float32).T.contiguous() for matrix in self.weights]

        @torch.no_grad()
        def run(spikes: torch.Tensor) -> torch.Tensor:
            before = [torch.zeros(spikes.shape[1], matrix.shape[0]) for matrix in matrices]
            membranes = [torch.zeros(spikes.shape[1], matrix.shape[1]) for matrix in matrices]
            counts = torch.zeros(spikes.shape[1], matrices[-1].shape[1])
            for now in spikes:
                fired = [now]
                for layer, (matrix, neuron) in enumerate(zip(matrices, neurons, strict=True)):
                    out, membranes[layer] = neuron(before[layer] @ matrix, membranes[layer])
                    fired.append(out)
                before = fired[:-1]
                counts += fired[-1]
            return counts

        return run


def sparse_net(rng: np.random.Generator) -> Layers:
    """Return what an evolution for wine finds: 12 synapses from 26 inputs to 3 outputs."""
    weights = np.zeros((3, 26), int)
    weights.flat[rng.choice(78, 12, replace=False)] = rng.integers(20, 120, 12)
    return Layers((weights,), 100)


def dense_net(rng: np.random.Generator) -> Layers:
    """Return 128-64-10, every neuron connected to every one of the next layer."""
    return Layers((rng.integers(-40, 60, (64, 128)), rng.integers(-40, 60, (10, 64))), 120)


def events(batch: NetworkBatch, spikes: np.ndarray) -> int:
    """Return how many spikes arrive over synapses in a run, those in the last step's flight counted."""
    fan_in = np.zeros((batch.nets, batch.inputs))
    np.add.at(fan_in, (batch.net[batch.source < batch.inputs], batch.source[batch.source < batch.inputs]), 1)
    total = float((fan_in.sum(axis=0) * spikes.sum(axis=(0, 2))).sum())
    inner = batch.source >= batch.inputs
    fired = spike_trains(batch, spikes).sum(axis=(0, 2))
    total += float(fired[batch.row_of(batch.net[inner], batch.source[inner])].sum())
    return int(total)


def population(size: int) -> NetworkBatch:
    """Return nets as an evolution for wine has them, 6 copies of each: without faults and on 5 chips."""
    rng = Random(0)
    nets = []
    for _ in range(size):
        weights = np.zeros((3, 26), int)
        for _ in range(12):
            weights.flat[rng.randrange(78)] = rng.randint(-127, 127)
        nets.append(Layers((weights,), 100).genome())
    return joined([batch_of(nets, PROCESSOR)] * 6)


def evolve(settings: GraphSearchConfig) -> None:
    """Run an evolution and leave its result."""
    evolution = evolution_of(settings, load_task(settings.task, settings.encoding))
    now = first_generation(evolution)
    for _ in range(settings.evolution.generations):
        now = next_generation(evolution, now)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=parse_count, default=10, help="rounds; the evolution is run once")
    parser.add_argument("--generations", type=parse_count, default=60)
    parser.add_argument("--threads", type=parse_count, default=1)
    options = parser.parse_args()
    clock, unit = choose_clock(options.threads)
    keys = {"family": "snn-graph", "name": "benchmark", "task": "wine", "chips": 5}
    settings = GraphSearchConfig.model_validate(
        keys | {"evolution": {"population": 80, "generations": options.generations}}
    )
    began = clock()
    evolve(settings)
    goal = Goal(f"evolution: wine, population 80, {options.generations} generations, 5 chips", "evolution", 30.0)
    print_rows(("what", "ms", "of ms", "s", "goal", ""), [goal.row({"evolution": [clock() - began]})], unit)
    print_throughput(options.repeats, clock, unit)


def print_throughput(repeats: int, clock: Callable[[], float], unit: str) -> None:
    """Print synaptic events a second of each net, here and in snntorch, and of a whole population."""
    rng = np.random.default_rng(0)
    wine, digits = (load_task(name, Encoding()).train[0] for name in ("wine", "digits"))
    cases = {
        "26-3, 12 synapses, 125 samples": (sparse_net(rng), wine),
        "128-64-10, dense, 1,200 samples": (dense_net(rng), digits),
    }
    rows = [_row(name, *case, repeats, clock) for name, case in cases.items()]
    batch = population(80)
    variants = {"ours": [lambda: spike_counts(batch, wine)]}
    seconds = min(measure(variants, rounds=repeats, clock=clock)["ours"])
    rows.append(("480 nets of 26-3, 125 samples", f"{events(batch, wine) / seconds / 1e6:,.1f}", "", "", "", ""))
    print_rows(("net", "M events/s", "snntorch", "ratio", "goal", ""), rows, unit)


def _row(name: str, net: Layers, spikes: np.ndarray, repeats: int, clock: Callable[[], float]) -> tuple[str, ...]:
    batch = batch_of([net.genome()], PROCESSOR)
    count = events(batch, spikes)
    variants: dict[str, list[Callable[[], object]]] = {"ours": [lambda: spike_counts(batch, spikes)]}
    try:
        other, given = net.in_snntorch(), torch.from_numpy(spikes.transpose(0, 2, 1).copy())
    except ImportError:
        other = None
    if other is not None:
        same = (spike_counts(batch, spikes)[0] == other(given).numpy().T).all()
        if not same:
            raise SystemExit(f"{name}: snntorch counts other spikes")
        variants["snntorch"] = [lambda: other(given)]
    seconds = {variant: min(times) for variant, times in measure(variants, rounds=repeats, clock=clock).items()}
    rates = {variant: count / time / 1e6 for variant, time in seconds.items()}
    if other is None:
        return name, f"{rates['ours']:,.1f}", "not installed", "", "", ""
    ratio = rates["ours"] / rates["snntorch"]
    return (
        name,
        f"{rates['ours']:,.1f}",
        f"{rates['snntorch']:,.1f}",
        f"{ratio:.2f}",
        *verdict(ratio, 1.0, at_least=True),
    )


if __name__ == "__main__":
    main()
