"""What fails in a spiking graph: chips that are the same for every net, and amounts that are those asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_nets import PROCESSOR, genomes, three_neurons
from hypothesis import given
from hypothesis import strategies as st

from ftnas.errors import FaultError
from ftnas.spiking.graph.batch import batch_of
from ftnas.spiking.graph.encoding import Encoding
from ftnas.spiking.graph.genome import Genome, Processor, Synapse, genome
from ftnas.spiking.graph.perturbation import (
    GRAIN,
    PERTURBATIONS,
    Perturbation,
    on_chips,
    parse_perturbation,
    parse_perturbations,
)
from ftnas.spiking.graph.scoring import scores_of
from ftnas.spiking.graph.simulator import spike_counts
from ftnas.spiking.graph.tasks import load_task

LARGE = Processor(hidden_max=64)


def full(weight: int = 100) -> Genome:
    """Return a net in which every neuron is connected to each that is no input: 5,280 synapses."""
    nodes = range(16, 80)
    synapses = [Synapse(source, target, weight, 1) for source in range(80) for target in range(16, 80)]
    return genome(16, 2, dict.fromkeys(nodes, 50), [*synapses])


def weights(net: Genome, fault: str, chips: int = 1, processor: Processor = LARGE) -> np.ndarray:
    return on_chips(batch_of([net], processor), [parse_perturbation(fault)], range(chips), "study").weights


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_at_strength_0_the_faulty_accuracy_is_the_accuracy_to_the_last_bit(name: str):
    task = load_task("iris", Encoding())
    nets = [genome(8, 3, {8: 20, 9: 20, 10: 20}, [Synapse(i, 8 + i % 3, 15, 1) for i in range(8)])]
    [score] = scores_of(
        nets, processor=PROCESSOR, task=task, faults=[Perturbation(name, 0.0)], chips=range(3), study="s"
    )
    assert score.chips == (score.clean,) * 3 and score.faulty == score.clean > 0.4


@pytest.mark.parametrize("name", PERTURBATIONS)
@given(st.lists(genomes(), min_size=2, max_size=3), st.integers(0, 5))
def test_a_net_fails_alike_alone_and_among_others(name: str, nets: list[Genome], chip: int):
    faults = [Perturbation(name, 0.3)]
    together = on_chips(batch_of(nets, PROCESSOR), faults, [chip], "study")
    for place, net in enumerate(nets):
        alone = on_chips(batch_of([net], PROCESSOR), faults, [chip], "study")
        assert (alone.weights == together.weights[together.net == place]).all()
        assert (alone.thresholds == together.thresholds[together.row_net == place]).all()


def test_a_synapse_fails_alike_in_nets_that_differ_elsewhere():
    small = genome(16, 2, {16: 5, 17: 5}, [Synapse(3, 17, 100, 1)])
    large = full()
    place = large.synapses.index(Synapse(3, 17, 100, 1))
    for fault in ("weights.gaussian:0.2", "weights.bit_flip:0.5", "synapses.dead:0.5"):
        assert weights(small, fault)[0] == weights(large, fault)[place]


def test_weights_drift_by_their_share_of_the_largest_and_stay_within_it():
    moved = weights(full(0), "weights.gaussian:0.2")
    assert moved.std() / 127 == pytest.approx(0.2, rel=0.05) and abs(moved.mean()) < 1
    assert abs(weights(full(), "weights.gaussian:3")).max() == 127
    assert (moved / GRAIN % 1 == 0).all()


def test_bits_flip_as_often_as_asked_in_codes_of_two_complement():
    found = weights(full(-1), "weights.bit_flip:0.02").astype(int)
    flipped = [bin((value ^ -1) & 255).count("1") for value in found]
    assert np.mean(flipped) / 8 == pytest.approx(0.02, rel=0.15)
    assert {*weights(full(-1), "weights.bit_flip:1")} == {0.0}
    assert {*weights(full(127), "weights.bit_flip:1")} == {-128.0}


def test_what_is_dead_at_a_low_rate_is_dead_at_a_higher_one():
    low, high = (weights(full(), f"synapses.dead:{rate}") == 0 for rate in (0.1, 0.3))
    assert (low <= high).all()
    assert [low.mean(), high.mean()] == pytest.approx([0.1, 0.3], abs=0.02)


def test_a_dead_neuron_never_fires_and_a_dead_input_carries_nothing():
    spikes = np.ones((10, 1, 1), np.float32)
    batch = batch_of([three_neurons()], PROCESSOR)
    assert spike_counts(batch, spikes).sum() > 0
    assert spike_counts(on_chips(batch, [Perturbation("neurons.dead", 1.0)], [0], "s"), spikes).sum() == 0
    input_only = replace(batch, thresholds=np.full_like(batch.thresholds, -200))
    assert (on_chips(input_only, [Perturbation("neurons.dead", 1.0)], [0], "s").weights[:1] == 0).all()


def test_chips_differ_and_a_chip_is_the_same_whenever_it_is_drawn():
    three = weights(full(), "weights.gaussian:0.1", chips=3).reshape(3, -1)
    assert len(np.unique(three[:, 0])) == 3
    assert (weights(full(), "weights.gaussian:0.1", chips=2).reshape(2, -1) == three[:2]).all()


def test_noise_of_events_grows_with_the_root_of_their_number_and_needs_an_event():
    many = [Synapse(source, 9, 1, 1) for source in range(9)]
    net = genome(9, 1, {9: 100}, many)
    spikes = np.zeros((4, 9, 4000), np.float32)
    spikes[0, :4, :2000] = 1
    spikes[0, :, 2000:] = 1
    noisy = on_chips(batch_of([net], PROCESSOR), [Perturbation("events.gaussian", 0.1)], [0], "s")

    def share(threshold: float, samples: slice) -> float:
        thresholds = np.full_like(noisy.thresholds, threshold)
        return float(spike_counts(replace(noisy, thresholds=thresholds), spikes)[0, 0, samples].mean())

    # One standard deviation of k events is sqrt(k) 12.7 above their sum, k: 16 % of the samples fire.
    assert share(4 + 2 * 12.7, slice(0, 2000)) == pytest.approx(0.159, abs=0.025)
    assert share(9 + 3 * 12.7, slice(2000, 4000)) == pytest.approx(0.159, abs=0.025)
    quiet = replace(noisy, thresholds=np.full_like(noisy.thresholds, 0.01))
    assert spike_counts(quiet, np.zeros_like(spikes)).sum() == 0


@pytest.mark.parametrize("name", [name for name in PERTURBATIONS if name != "neurons.dead"])
def test_another_study_has_other_chips(name: str):
    task = load_task("iris", Encoding())
    nets = [genome(8, 3, {8: 20, 9: 20, 10: 20}, [Synapse(i, 8 + i % 3, 15 - i, 1) for i in range(8)])]
    faults = [Perturbation(name, 0.3)]
    one, other = (
        scores_of(nets, processor=PROCESSOR, task=task, faults=faults, chips=range(6), study=study)[0]
        for study in ("one", "other")
    )
    assert one.clean == other.clean and one.chips != other.chips


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("weights.melted:0.1", ["unknown fault", "'weights.melted'", "weights.gaussian"]),
        ("weights.gaussian", ["no strength", "weights.gaussian:0.1"]),
        ("weights.gaussian:much", ["numbers", "'much'"]),
        ("synapses.dead:1.5", ["1.5", "0 to 1"]),
        ("weights.gaussian:-0.1", ["-0.1", "0 to 10"]),
        ("weights.gaussian:nan", ["nan", "0 to 10"]),
        ("weights.gaussian:0.1,0.2", ["one strength", "got 2"]),
    ],
)
def test_an_impossible_fault_is_refused(text: str, words: list[str]):
    with pytest.raises(FaultError) as caught:
        parse_perturbation(text)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_fault_is_read_as_it_is_written():
    assert [str(fault) for fault in parse_perturbations("weights.bit_flip: 0.02,0.05")] == [
        "weights.bit_flip:0.02",
        "weights.bit_flip:0.05",
    ]
