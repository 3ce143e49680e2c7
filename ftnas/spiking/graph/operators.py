"""What turns nets into other nets: random ones, mutations and a crossover. Every result keeps to the processor.

The kinds of mutation and their relative frequencies are those that users of EONS (Schuman et al., 2020) set: neurons
and synapses come and go, thresholds, weights and delays change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from ftnas.spiking.graph.genome import Genome, Processor, Synapse, genome

Mutation = Callable[[Genome, Processor, Random], Genome]


def random_genome(
    inputs: int, outputs: int, *, hidden: int, synapses: int, processor: Processor, rng: Random
) -> Genome:
    """Return a net of ``hidden`` neurons (no more than there are slots) and about ``synapses`` random synapses.

    A synapse that would be the second between its neurons is left out.
    """
    first = inputs + outputs
    nodes = [*range(inputs, first), *range(first, first + min(hidden, processor.hidden_max))]
    net = genome(inputs, outputs, {node: _draw_threshold(processor, rng) for node in nodes}, ())
    for _ in range(synapses):
        net = add_synapse(net, processor, rng)
    return net


def add_neuron(net: Genome, processor: Processor, rng: Random) -> Genome:
    """Put a hidden neuron into a random synapse: in with its delay, on with its weight, so that it takes part."""
    slots = range(net.first_hidden, net.first_hidden + processor.hidden_max)
    free = [node for node in slots if node not in net.thresholds]
    if not free or not net.synapses:
        return net
    node, old = rng.choice(free), rng.choice(net.synapses)
    kept = [synapse for synapse in net.synapses if synapse != old]
    onto = Synapse(old.source, node, _draw_weight(processor, rng), old.delay)
    on = Synapse(node, old.target, old.weight, _draw_delay(processor, rng))
    thresholds = {**net.thresholds, node: _draw_threshold(processor, rng)}
    return genome(net.inputs, net.outputs, thresholds, [*kept, onto, on])


def delete_neuron(net: Genome, processor: Processor, rng: Random) -> Genome:
    """Take a hidden neuron away, and all synapses to and from it."""
    if not net.hidden:
        return net
    node = rng.choice(net.hidden)
    thresholds = {other: threshold for other, threshold in net.thresholds.items() if other != node}
    kept = (synapse for synapse in net.synapses if node not in (synapse.source, synapse.target))
    return genome(net.inputs, net.outputs, thresholds, kept)


def add_synapse(net: Genome, processor: Processor, rng: Random) -> Genome:
    """Connect two random neurons that are not connected in this direction yet; a second try is not made."""
    source = rng.choice([*range(net.inputs), *net.thresholds])
    target = rng.choice([*net.thresholds])
    if any((synapse.source, synapse.target) == (source, target) for synapse in net.synapses):
        return net
    new = Synapse(source, target, _draw_weight(processor, rng), _draw_delay(processor, rng))
    return genome(net.inputs, net.outputs, net.thresholds, [*net.synapses, new])


def delete_synapse(net: Genome, processor: Processor, rng: Random) -> Genome:
    """Take a random synapse away."""
    if not net.synapses:
        return net
    gone = rng.randrange(len(net.synapses))
    return genome(net.inputs, net.outputs, net.thresholds, net.synapses[:gone] + net.synapses[gone + 1 :])


def change_threshold(net: Genome, processor: Processor, rng: Random) -> Genome:
    """Move the threshold of a random neuron, or draw it anew."""
    node = rng.choice([*net.thresholds])
    moved = _moved(net.thresholds[node], 1, processor.threshold_max, rng)
    return genome(net.inputs, net.outputs, {**net.thresholds, node: moved}, net.synapses)


def change_weight(net: Genome, processor: Processor, rng: Random) -> Genome:
    """Move the weight of a random synapse, or draw it anew."""
    if not net.synapses:
        return net
    place = rng.randrange(len(net.synapses))
    old = net.synapses[place]
    moved = old._replace(weight=_moved(old.weight, -processor.weight_max, processor.weight_max, rng))
    return genome(net.inputs, net.outputs, net.thresholds, [*net.synapses[:place], moved, *net.synapses[place + 1 :]])


def change_delay(net: Genome, processor: Processor, rng: Random) -> Genome:
    """Draw the delay of a random synapse anew."""
    if not net.synapses:
        return net
    place = rng.randrange(len(net.synapses))
    moved = net.synapses[place]._replace(delay=_draw_delay(processor, rng))
    return genome(net.inputs, net.outputs, net.thresholds, [*net.synapses[:place], moved, *net.synapses[place + 1 :]])


# Relative frequencies: 0.75 and 0.25 for neurons and for synapses that come and go, 2.5 for a neuron's number, 2.5 for
# a synapse's, of which 0.65 are weights.
MUTATIONS: Mapping[Mutation, float] = {
    add_neuron: 0.75,
    delete_neuron: 0.25,
    add_synapse: 0.75,
    delete_synapse: 0.25,
    change_threshold: 2.5,
    change_weight: 2.5 * 0.65,
    change_delay: 2.5 * 0.35,
}


def mutate(net: Genome, *, times: int, processor: Processor, rng: Random) -> Genome:
    """Return ``net`` after ``times`` random mutations; one that finds nothing to change changes nothing."""
    for mutation in rng.choices([*MUTATIONS], [*MUTATIONS.values()], k=times):
        net = mutation(net, processor, rng)
    return net


def crossover(first: Genome, second: Genome, rng: Random) -> Genome:
    """Return a child that has each neuron, with the synapses that lead to it, from one of two parents.

    Synapses from hidden neurons that the child lacks are left out.
    """
    parents = {node: rng.choice((first, second)) for node in sorted({*first.thresholds, *second.thresholds})}
    thresholds = {node: parent.thresholds[node] for node, parent in parents.items() if node in parent.thresholds}
    found = {*range(first.inputs), *thresholds}
    synapses = [
        synapse
        for parent in (first, second)
        for synapse in parent.synapses
        if synapse.source in found and synapse.target in thresholds and parents[synapse.target] is parent
    ]
    return genome(first.inputs, first.outputs, thresholds, dict.fromkeys(synapses))


def _draw_weight(processor: Processor, rng: Random) -> int:
    return rng.randint(-processor.weight_max, processor.weight_max)


def _draw_threshold(processor: Processor, rng: Random) -> int:
    return rng.randint(1, processor.threshold_max)


def _draw_delay(processor: Processor, rng: Random) -> int:
    return rng.randint(1, processor.delay_max)


def _moved(value: int, low: int, high: int, rng: Random) -> int:
    """Return a number near ``value`` (a tenth of the range is one standard deviation), one time in five any."""
    if rng.random() < 0.2:
        return rng.randint(low, high)
    return min(max(value + round(rng.gauss(0, (high - low) / 10)), low), high)
