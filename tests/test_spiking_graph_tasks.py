"""Tasks of spiking graphs: samples that are the same in every run, and a pole that falls as poles do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ftnas.cli.catalogue import SPIKING_TASKS
from ftnas.errors import SpikingError
from ftnas.spiking.graph.batch import batch_of
from ftnas.spiking.graph.encoding import Encoding
from ftnas.spiking.graph.genome import Processor, Synapse, genome
from ftnas.spiking.graph.perturbation import Perturbation, event_noise, on_chips
from ftnas.spiking.graph.pole import PoleBalancing, moved, starting_states, within
from ftnas.spiking.graph.tasks import TASKS, demand_fit, load_task

PROCESSOR = Processor()


def test_the_command_line_knows_the_tasks():
    assert [*SPIKING_TASKS] == [*TASKS]


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "samples"),
    [("iris", 8, 3, (105, 45)), ("wine", 26, 3, (125, 53)), ("breast_cancer", 60, 2, (398, 171)),
     ("digits", 128, 10, (1200, 597))],
)  # fmt: skip
def test_a_classification_has_two_inputs_a_feature_and_an_output_a_class(name, inputs, outputs, samples):
    task = load_task(name, Encoding())
    assert (task.inputs, task.outputs) == (inputs, outputs)
    for (spikes, labels), count in zip((task.train, task.test), samples, strict=True):
        assert spikes.shape == (24, inputs, count) and {*np.unique(spikes)} == {0.0, 1.0}
        assert np.bincount(labels, minlength=outputs).min() > 0
    again = load_task(name, Encoding())
    assert (again.test[0] == task.test[0]).all()


def test_a_net_without_synapses_answers_the_first_class():
    task = load_task("iris", Encoding())
    silent = batch_of([genome(8, 3, {8: 5, 9: 5, 10: 5}, [])], PROCESSOR)
    assert task.scores(silent, "train") == pytest.approx((task.train[1] == 0).mean())


@pytest.mark.parametrize(("name", "last"), [("iris", 44), ("pole_balancing", 49)])
def test_a_sample_that_is_not_there_is_refused(name, last):
    task = load_task(name, Encoding())
    assert task.example(last).shape == (24, task.inputs)
    for number in (-1, last + 1):
        with pytest.raises(SpikingError, match=f"0 to {last}"):
            task.example(number)


def test_an_unknown_task_and_a_net_that_does_not_fit_are_refused():
    with pytest.raises(SpikingError, match="'mnist' is unknown; choose from iris, wine"):
        load_task("mnist", Encoding())
    task = load_task("iris", Encoding())
    demand_fit(8, 3, task, "net.json")
    with pytest.raises(SpikingError, match=r"net.json: inputs: the task iris needs 8, got 4"):
        demand_fit(4, 3, task, "net.json")
    with pytest.raises(SpikingError, match=r"net.json: outputs: the task iris needs 3, got 2"):
        demand_fit(8, 2, task, "net.json")


def test_an_upright_pole_that_is_pushed_falls_the_other_way():
    state = moved(np.zeros((2, 4)), np.array([1, 0]))
    assert state[0].tolist() == (-state[1]).tolist()
    # By hand: force 10 on 1.1 kg; the pole's inertia is 0.5 (4/3 - 0.1/1.1).
    turning = -(10 / 1.1) / (0.5 * (4 / 3 - 0.1 / 1.1))
    faster = 10 / 1.1 - 0.1 * 0.5 * turning / 1.1
    assert state[0] == pytest.approx([0, 0.02 * faster, 0, 0.02 * turning])


def test_an_episode_ends_beyond_the_track_or_twelve_degrees():
    states = np.array([[2.4, 9, 0, 9], [2.5, 0, 0, 0], [0, 0, math.radians(-12), 0], [0, 0, math.radians(12.1), 0]])
    assert within(states).tolist() == [True, False, True, False]


def test_a_net_that_always_pushes_one_way_drops_the_pole_and_one_that_pushes_under_it_holds_on():
    task = PoleBalancing("pole_balancing", Encoding(spikes=8, interval=1, steps=12), longest=60)
    silent = genome(8, 2, {8: 1, 9: 1}, [])
    # Right when the pole tilts or turns to the right, left when to the left.
    helpful = genome(
        8, 2, {8: 2, 9: 2}, [Synapse(4, 8, 1, 1), Synapse(6, 8, 2, 1), Synapse(5, 9, 1, 1), Synapse(7, 9, 2, 1)]
    )
    scores = task.scores(batch_of([silent, helpful], PROCESSOR), "train")
    assert scores[0] < 0.25 < 0.6 < scores[1] <= 1
    assert task.scores(batch_of([helpful], PROCESSOR), "train")[0] == scores[1]


def test_noise_of_events_is_drawn_anew_in_every_step_of_an_episode(monkeypatch):
    drawn: list[tuple[int, str]] = []

    def noise(chip, study, shape):
        drawn.append((chip, study))
        return event_noise(chip, study, shape)

    monkeypatch.setattr("ftnas.spiking.graph.simulator.event_noise", noise)
    task = PoleBalancing("pole_balancing", Encoding(spikes=8, interval=1, steps=12), longest=5)
    net = genome(8, 2, {8: 60, 9: 60}, [Synapse(6, 8, 60, 1), Synapse(7, 9, 60, 1)])
    task.scores(on_chips(batch_of([net], PROCESSOR), [Perturbation("events.gaussian", 0.5)], range(2), "s"), "train")
    assert len(drawn) == len({*drawn}) == 2 * 5


def test_training_and_test_episodes_begin_differently():
    assert len(starting_states("train")) == 10 and len(starting_states("test")) == 50
    assert abs(starting_states("test")).max() <= 0.05
    assert starting_states("train")[0, 0] != starting_states("test")[0, 0]
