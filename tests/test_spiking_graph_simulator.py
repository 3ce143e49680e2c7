"""Spiking graphs in discrete time: a trace by hand, a slow simulator as oracle, and nets that do not disturb others."""

from __future__ import annotations

import numpy as np
import pytest
from graph_nets import PROCESSOR, genomes, slow_trains, three_neurons
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnas.spiking.graph.batch import batch_of, joined
from ftnas.spiking.graph.encoding import Encoding, encoded, scaled
from ftnas.spiking.graph.genome import Genome, Processor, Synapse, genome
from ftnas.spiking.graph.perturbation import Perturbation, on_chips
from ftnas.spiking.graph.simulator import answers, spike_counts, spike_trains

trains = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=12)


def fired(net: Genome, spikes: np.ndarray, processor: Processor = PROCESSOR) -> dict[int, list[bool]]:
    """Return when each neuron that is no input fires, by number."""
    batch = batch_of([net], processor)
    found = spike_trains(batch, spikes[:, :, None].astype(np.float32))[:, :, 0]
    return {int(node): found[:, row].tolist() for row, node in enumerate(batch.row_node)}


def steps_of(train: list[bool]) -> list[int]:
    return [step for step, spike in enumerate(train) if spike]


def test_three_neurons_fire_as_computed_by_hand() -> None:
    # From step 1 on 5 arrives at the hidden neuron (threshold 8) in every step. Its potential: 5, then 10: it fires in
    # step 2 and starts from 0. 5, 10: it fires in step 4. The spike of step 2 reaches the output (threshold 7) in step
    # 4 as 7, so that fires, and its -6 is back in step 5: 5 - 6 = -1. Step 6: 4. The output fires in step 6, too, by
    # the spike of step 4, so step 7: 4 + 5 - 6 = 3. Step 8: 8, it fires, and the output does in step 10.
    found = fired(three_neurons(), np.ones((12, 1)))
    assert steps_of(found[2])[:3] == [2, 4, 8]
    assert steps_of(found[1])[:3] == [4, 6, 10]


def test_a_potential_waits_for_its_neuron_unless_it_leaks() -> None:
    net = genome(1, 1, {1: 10}, [Synapse(0, 1, 5, 1)])
    spikes = np.array([[1], [0], [0], [1], [0], [0]])
    assert steps_of(fired(net, spikes)[1]) == [4]
    assert steps_of(fired(net, spikes, Processor(leak="all"))[1]) == []


def test_no_potential_falls_below_its_least_value() -> None:
    net = genome(2, 1, {2: 10}, [Synapse(0, 2, -100, 1), Synapse(1, 2, 10, 1)])
    spikes = np.array([[1, 0], [0, 1], [0, 1], [0, 1], [0, 0]])
    assert steps_of(fired(net, spikes, Processor(potential_min=-20))[2]) == [4]
    assert steps_of(fired(net, spikes, Processor(potential_min=0))[2]) == [2, 3, 4]


@given(genomes(), trains, st.sampled_from(["none", "all"]))
def test_many_at_once_fire_as_one_at_a_time(net: Genome, train: list[list[bool]], leak: str) -> None:
    processor = PROCESSOR.model_copy(update={"leak": leak})
    spikes = np.array(train)
    expected = slow_trains(net, spikes, processor)
    assert fired(net, spikes, processor) == {node: expected[node] for node in net.thresholds}


@settings(max_examples=30)
@given(st.lists(genomes(), min_size=2, max_size=4), trains)
def test_a_net_counts_alike_alone_and_among_others(nets: list[Genome], train: list[list[bool]]) -> None:
    spikes = np.array(train, np.float32)[:, :, None]
    together = spike_counts(batch_of(nets, PROCESSOR), spikes)
    for place, net in enumerate(nets):
        assert (spike_counts(batch_of([net], PROCESSOR), spikes)[0] == together[place]).all()


def test_samples_do_not_disturb_each_other_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    spikes = (rng.random((12, 1, 50)) < 0.6).astype(np.float32)
    batch = joined([batch_of([three_neurons()], PROCESSOR)] * 3)
    whole = spike_counts(batch, spikes)
    monkeypatch.setattr("ftnas.spiking.graph.simulator.PIECE", 16)
    assert (spike_counts(batch, spikes) == whole).all()
    assert len(np.unique(whole)) > 1


def test_a_dense_product_and_a_sparse_one_give_the_same_spikes(monkeypatch: pytest.MonkeyPatch) -> None:
    spikes = (np.random.default_rng(1).random((12, 1, 9)) < 0.6).astype(np.float32)
    found = []
    for share in (0.0, 1.0):
        monkeypatch.setattr("ftnas.spiking.graph.simulator.DENSE", share)
        batch = on_chips(batch_of([three_neurons()], PROCESSOR), [Perturbation("events.gaussian", 0.1)], range(4), "s")
        found.append(spike_counts(batch, spikes))
    assert (found[0] == found[1]).all()


def test_each_net_may_have_inputs_of_its_own() -> None:
    net = genome(2, 1, {2: 5}, [Synapse(0, 2, 5, 1)])
    spikes = np.zeros((6, 4, 1), np.float32)
    spikes[:2, 0] = 1
    spikes[:4, 2] = 1
    assert spike_counts(batch_of([net, net], PROCESSOR), spikes)[:, 0, 0].tolist() == [2, 4]


def test_of_outputs_that_fire_alike_the_first_is_the_answer() -> None:
    assert answers(np.array([[[2, 0], [2, 1], [1, 1]]])).tolist() == [[0, 1]]


def test_a_feature_fires_its_low_neuron_below_the_middle_and_its_high_one_above() -> None:
    spikes = encoded(np.array([[-1.0], [0.0], [0.5]]), Encoding(spikes=8, interval=3, steps=24))
    assert spikes.shape == (24, 2, 3)
    assert spikes.sum(axis=0).tolist() == [[8, 0, 0], [0, 0, 4]]
    assert steps_of(spikes[:, 1, 2].astype(bool).tolist()) == [0, 3, 6, 9]


def test_features_beyond_the_training_range_are_cut_off_and_constant_ones_are_silent() -> None:
    low, high = np.array([0.0, 5.0]), np.array([10.0, 5.0])
    assert scaled(np.array([[20.0, 7.0], [-3.0, 5.0], [5.0, 5.0]]), low, high).tolist() == [[1, 0], [-1, 0], [0, 0]]
