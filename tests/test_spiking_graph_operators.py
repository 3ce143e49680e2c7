"""Genomes of spiking graphs: every operator keeps them valid, and what cannot be is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from graph_nets import PROCESSOR, genomes, three_neurons
from hypothesis import given
from hypothesis import strategies as st

from ftnas.errors import SpikingError
from ftnas.spiking.graph import operators
from ftnas.spiking.graph.genome import Genome, Processor, Synapse, checked, genome
from ftnas.spiking.graph.operators import MUTATIONS, crossover, mutate, random_genome

TIGHT = Processor(weight_bits=2, threshold_max=2, delay_max=1, hidden_max=2)
seeds = st.integers(0, 2**32)


@pytest.mark.parametrize("processor", [PROCESSOR, TIGHT], ids=["wide", "tight"])
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
@given(data=st.data(), seed=seeds)
def test_a_mutation_keeps_every_net_valid(mutation: operators.Mutation, processor: Processor, data: Any, seed: int):
    net = data.draw(genomes(processor=processor))
    checked(mutation(net, processor, Random(seed)), processor, "net")


@given(genomes(), genomes(), seeds)
def test_a_child_of_two_valid_nets_is_valid_and_has_nothing_that_neither_has(one: Genome, other: Genome, seed: int):
    child = checked(crossover(one, other, Random(seed)), PROCESSOR, "net")
    assert {*child.synapses} <= {*one.synapses, *other.synapses}
    assert {*child.thresholds.items()} <= {*one.thresholds.items(), *other.thresholds.items()}


@given(genomes(), seeds)
def test_a_child_of_a_net_with_itself_is_that_net(net: Genome, seed: int):
    assert crossover(net, net, Random(seed)) == net


@given(genomes(), seeds, st.integers(1, 5))
def test_the_same_seed_makes_the_same_net(net: Genome, seed: int, times: int):
    one, other = (mutate(net, times=times, processor=PROCESSOR, rng=Random(seed)) for _ in range(2))
    assert one == other and one.key == other.key


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_every_mutation_changes_some_net(mutation: operators.Mutation):
    net = random_genome(3, 2, hidden=2, synapses=6, processor=PROCESSOR, rng=Random(0))
    assert any(mutation(net, PROCESSOR, Random(seed)) != net for seed in range(5))


@pytest.mark.parametrize(
    ("mutation", "synapses", "hidden"),
    [
        (operators.add_synapse, 1, 0),
        (operators.delete_synapse, -1, 0),
        (operators.add_neuron, 1, 1),
        (operators.change_weight, 0, 0),
    ],
)
def test_a_mutation_changes_the_size_as_its_name_says(mutation: Callable[..., Genome], synapses: int, hidden: int):
    net = genome(2, 1, {2: 5}, [Synapse(0, 2, 3, 1)])
    found = next(after for seed in range(20) if (after := mutation(net, PROCESSOR, Random(seed))) != net)
    assert (len(found.synapses) - 1, len(found.hidden)) == (synapses, hidden)


@given(genomes())
def test_a_net_survives_plain_data(net: Genome):
    again = Genome.from_dict(net.to_dict())
    assert again == net and again.key == net.key


@pytest.mark.parametrize(
    ("thresholds", "synapses", "words"),
    [
        ({1: 7}, [(0, 2, 5, 1)], ["synapse 0 (0 to 2)", "leads to neuron 2", "does not exist"]),
        ({1: 7}, [(3, 1, 5, 1)], ["comes from neuron 3", "does not exist"]),
        ({1: 7}, [(1, 0, 5, 1)], ["leads to neuron 0", "is an input"]),
        ({1: 7}, [(0, 1, 5, 0)], ["delay is 0", "1 to 4"]),
        ({1: 7}, [(0, 1, 5, 5)], ["delay is 5", "1 to 4"]),
        ({1: 7}, [(0, 1, 128, 1)], ["weight is 128", "-127 to 127"]),
        ({1: 7}, [(0, 1, 5, 1), (0, 1, 6, 1)], ["twice"]),
        ({1: 0}, [], ["neuron 1: threshold is 0", "1 to 127"]),
        ({2: 7}, [], ["output 1", "no threshold"]),
        ({1: 7, 9: 7}, [], ["neuron 9", "1 to 5"]),
        ({1: True}, [], ["threshold is True"]),
    ],
)
def test_an_impossible_net_is_refused_in_one_line(thresholds: Any, synapses: Any, words: list[str]):
    net = genome(1, 1, thresholds, [Synapse(*synapse) for synapse in synapses])
    with pytest.raises(SpikingError) as caught:
        checked(net, PROCESSOR, "net.json")
    line = str(caught.value)
    assert line.startswith("net.json: ") and "\n" not in line
    assert [word for word in words if word not in line] == []


def test_size_counts_synapses_and_hidden_neurons():
    assert three_neurons().size == 4
