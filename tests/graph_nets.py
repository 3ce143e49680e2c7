"""Spiking graphs for tests: hand-made ones, strategies for any, and a slow simulator that follows the rules by hand."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import strategies as st

from ftnas.spiking.graph.genome import Genome, Processor, Synapse, genome
from ftnas.spiking.graph.operators import mutate, random_genome

PROCESSOR = Processor(hidden_max=4, delay_max=4)


def three_neurons() -> Genome:
    """Return input 0 -> hidden 2 -> output 1, with an inhibiting synapse back from the output."""
    synapses = [Synapse(0, 2, 5, 1), Synapse(2, 1, 7, 2), Synapse(1, 2, -6, 1)]
    return genome(1, 1, {1: 7, 2: 8}, synapses)


@st.composite
def genomes(draw: st.DrawFn, *, processor: Processor = PROCESSOR, inputs: int = 3, outputs: int = 2) -> Genome:
    """Draw a net: a random one after some mutations."""
    rng = Random(draw(st.integers(0, 2**32)))
    hidden, synapses = draw(st.integers(0, 5)), draw(st.integers(0, 14))
    net = random_genome(inputs, outputs, hidden=hidden, synapses=synapses, processor=processor, rng=rng)
    return mutate(net, times=draw(st.integers(0, 6)), processor=processor, rng=rng)


def slow_trains(net: Genome, spikes: np.ndarray, processor: Processor) -> dict[int, list[bool]]:
    """Return when each neuron fires for spikes ``[steps, inputs]``, one neuron, step and synapse at a time."""
    steps = len(spikes)
    fired = {node: [False] * steps for node in net.thresholds}
    fired |= {node: [bool(step[node]) for step in spikes] for node in range(net.inputs)}
    potential = dict.fromkeys(net.thresholds, 0)
    for step in range(steps):
        for node, threshold in net.thresholds.items():
            if processor.leak == "all":
                potential[node] = 0
            for synapse in net.synapses:
                sent = step - synapse.delay
                if synapse.target == node and sent >= 0 and fired[synapse.source][sent]:
                    potential[node] += synapse.weight
            potential[node] = max(potential[node], processor.potential_min)
            if potential[node] >= threshold:
                fired[node][step], potential[node] = True, 0
    return fired
